//! Manifests: one value each, which holds what it is, and its bytes.
//!
//! A push says first what the manifest needs, then looks whether it is there, then writes the manifest, then its tags.

use std::collections::HashSet;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use oci::{Digest, Manifest, Reference, RepoName, Tag};
use serde::{Deserialize, Serialize};

use super::{
    Objects,
    bucket::{AT_ONCE, Attempts, Slot, nonce},
    keys,
};
use crate::storage::{Deleted, Error, NewTag, Put, Stays, StoredManifest};

/// Read of a manifest for what it is: all but absurd media types are shorter.
const FIRST: u64 = 2048;

/// What stands before a manifest's bytes, on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header {
    pub(super) media_type: String,
    /// Names the entries of what it needs and refers to.
    pub(super) entries: String,
    /// Since when somebody wants to take it away. Whoever needs it takes this away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) going_since: Option<u64>,
}

/// A manifest of a repository.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) header: Header,
    pub(super) bytes: Bytes,
}

impl Record {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut value = serde_json::to_vec(&self.header).map_err(Error::Encode)?;
        value.push(b'\n');
        value.extend_from_slice(&self.bytes);
        Ok(value)
    }

    pub(super) fn parse(&self) -> Option<Manifest> {
        Manifest::parse(Some(&self.header.media_type), &self.bytes).ok()
    }
}

/// The header in the first bytes of a value, and how long its line is.
fn header(slot: &Slot) -> Result<Option<(Header, usize)>, Error> {
    let Some(content) = &slot.content else { return Ok(None) };
    let end = content.iter().position(|byte| *byte == b'\n');
    let parsed = end.and_then(|end| Some((serde_json::from_slice(&content[..end]).ok()?, end + 1)));
    parsed.map(Some).ok_or_else(|| slot.damaged("it should hold a manifest"))
}

fn record(slot: &Slot) -> Result<Option<Record>, Error> {
    let found = header(slot)?.zip(slot.content.as_ref());
    Ok(found.map(|((header, end), content)| Record { header, bytes: content.slice(end..) }))
}

/// All that must stay while the manifest does.
fn needs(manifest: &Manifest) -> HashSet<&Digest> {
    manifest.blobs.iter().chain(&manifest.manifests).collect()
}

/// Where it stands that the manifest is there.
fn entries(repository: &RepoName, digest: &Digest, manifest: &Manifest, nonce: &str) -> Vec<Path> {
    let needed = needs(manifest).into_iter().map(|needed| keys::needed(repository, needed));
    let subject = manifest.subject.iter().map(|subject| keys::referrers(repository, subject));
    needed.chain(subject).map(|folder| keys::entry(&folder, &keys::as_name(digest), nonce)).collect()
}

impl Objects {
    pub(crate) async fn put_manifest(
        &self,
        repository: RepoName,
        manifest: Manifest,
        digest: Digest,
        bytes: Bytes,
        tags: Vec<NewTag>,
    ) -> Result<Put, Error> {
        for NewTag { tag, .. } in tags.iter().filter(|new| new.is_fixed) {
            let former = self.resolve(&repository, tag).await;
            if let Ok(Some(former)) = former
                && former != digest
            {
                return Ok(Put::Fixed(tag.clone(), former));
            }
        }
        let one_at_a_time = self.take_in(&repository, &digest, bytes.len() as u64).await?;
        let put = self.put_record(&repository, &manifest, &digest, bytes).await?;
        if put != Put::Stored {
            return Ok(put);
        }
        drop(one_at_a_time);
        for new in &tags {
            if let Some(former) = self.point(&repository, new, &digest).await? {
                return Ok(Put::Fixed(new.tag.clone(), former));
            }
        }
        // Somebody who deleted the manifest meanwhile may not have seen the last of its tags.
        if !tags.is_empty() && self.manifest_header(&repository, &digest).await?.is_none() {
            self.take_tags(&repository, &digest).await?;
        }
        self.changed();
        Ok(Put::Stored)
    }

    /// Stores all but the tags.
    async fn put_record(
        &self,
        repository: &RepoName,
        manifest: &Manifest,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<Put, Error> {
        let key = keys::manifest(repository, digest);
        let mut attempts = Attempts::default();
        let mut tried: Option<String> = None;
        loop {
            let began = self.bucket.clock.now();
            let slot = self.bucket.read(&key).await?;
            let former = record(&slot)?.map(|record| record.header);
            if let Some(nonce) = tried.take()
                && former.as_ref().is_none_or(|former| former.entries != nonce)
            {
                // They never came to be true, or are so no more.
                self.bucket.forget(entries(repository, digest, manifest, &nonce)).await;
            }
            // The same bytes under another type would be another manifest to who pulls them (CVE-2021-41190).
            if let Some(former) = former.as_ref().filter(|former| former.media_type != manifest.media_type) {
                return Ok(Put::OtherType(former.media_type.clone()));
            }
            let is_new = former.is_none();
            let name = former.map_or_else(nonce, |former| former.entries);
            if is_new {
                self.write_entries(entries(repository, digest, manifest, &name)).await?;
            }
            let missing = self.missing(repository, manifest).await?;
            if !self.sparse.allows(manifest, &missing, false) {
                let unneeded = if is_new { entries(repository, digest, manifest, &name) } else { Vec::new() };
                self.bucket.forget(unneeded).await;
                return Ok(Put::Missing(missing));
            }
            self.bucket.check_time(began)?;
            tried = is_new.then(|| name.clone());
            let header = Header { media_type: manifest.media_type.clone(), entries: name, going_since: None };
            let record = Record { header, bytes: bytes.clone() };
            if self.bucket.swap(&slot, &record.encode()?).await?.is_some() {
                return Ok(Put::Stored);
            }
            attempts.again(&key).await?;
        }
    }

    async fn write_entries(&self, entries: Vec<Path>) -> Result<(), Error> {
        let writes: Vec<_> = entries.iter().map(|entry| self.bucket.write_entry(entry)).collect();
        futures::stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// What the manifest needs and the repository has not. What it has is not about to go any more.
    async fn missing(&self, repository: &RepoName, manifest: &Manifest) -> Result<Vec<Digest>, Error> {
        let blobs = manifest.blobs.iter().map(|digest| (digest, false));
        let manifests = manifest.manifests.iter().map(|digest| (digest, true));
        let mut seen = HashSet::new();
        let needed: Vec<_> = blobs.chain(manifests).filter(|(digest, _)| seen.insert(*digest)).collect();
        let looks = needed.into_iter().map(|(digest, may_be_manifest)| async move {
            // Build caches are indexes of plain blobs.
            let is_there = may_be_manifest && self.keep_manifest(repository, digest).await?
                || self.keep_blob(repository, digest).await?;
            Ok::<_, Error>((!is_there).then(|| digest.clone()))
        });
        let looks = futures::stream::iter(looks.collect::<Vec<_>>()).buffered(AT_ONCE);
        let missing: Vec<Option<Digest>> = looks.try_collect().await?;
        Ok(missing.into_iter().flatten().collect())
    }

    async fn keep_blob(&self, repository: &RepoName, digest: &Digest) -> Result<bool, Error> {
        // Whether it is going is what counts: there is no time after which it is touched for its own sake.
        Ok(self.touch(repository, digest, u64::MAX).await? && self.locate(digest).await?.is_some())
    }

    async fn keep_manifest(&self, repository: &RepoName, digest: &Digest) -> Result<bool, Error> {
        let key = keys::manifest(repository, digest);
        let mut attempts = Attempts::default();
        loop {
            match self.manifest_header(repository, digest).await? {
                None => return Ok(false),
                Some((header, _)) if header.going_since.is_none() => return Ok(true),
                Some(_) => {}
            }
            let slot = self.bucket.read(&key).await?;
            if let Some(mut record) = record(&slot)?
                && record.header.going_since.take().is_some()
                && self.bucket.swap(&slot, &record.encode()?).await?.is_some()
            {
                return Ok(true);
            }
            attempts.again(&key).await?;
        }
    }

    /// What a manifest is, without its bytes, and how many they are.
    pub(super) async fn manifest_header(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<(Header, u64)>, Error> {
        let key = keys::manifest(repository, digest);
        let mut slot = self.bucket.read_first(&key, FIRST).await?;
        if slot.content.as_ref().is_some_and(|content| !content.contains(&b'\n')) {
            slot = self.bucket.read(&key).await?;
        }
        Ok(header(&slot)?.map(|(header, end)| (header, slot.size - end as u64)))
    }

    pub(super) async fn record(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<Record>, Error> {
        record(&self.bucket.read(&keys::manifest(repository, digest)).await?)
    }

    pub(crate) async fn find_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Option<StoredManifest>, Error> {
        let Some(digest) = self.digest_of(&repository, reference).await? else {
            return Ok(None);
        };
        let found = self.manifest_header(&repository, &digest).await?;
        Ok(found.map(|(header, size)| StoredManifest { digest, media_type: header.media_type, size }))
    }

    pub(crate) async fn read_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Option<(StoredManifest, Bytes)>, Error> {
        let Some(digest) = self.digest_of(&repository, reference).await? else {
            return Ok(None);
        };
        let Some(Record { header, bytes }) = self.record(&repository, &digest).await? else {
            return Ok(None);
        };
        if Digest::of(digest.algorithm(), &bytes) != digest {
            self.count_damage();
            tracing::error!(%repository, %digest, "manifest does not match its digest");
            return Ok(None);
        }
        let size = bytes.len() as u64;
        Ok(Some((StoredManifest { digest, media_type: header.media_type, size }, bytes)))
    }

    async fn digest_of(&self, repository: &RepoName, reference: Reference) -> Result<Option<Digest>, Error> {
        match reference {
            Reference::Digest(digest) => Ok(Some(digest)),
            Reference::Tag(tag) => self.resolve(repository, &tag).await,
        }
    }

    #[cfg(test)]
    pub(crate) async fn delete_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Deleted, Error> {
        self.delete_manifest_unless(repository, reference, std::sync::Arc::new(|_| false)).await
    }

    pub(crate) async fn delete_manifest_unless(
        &self,
        repository: RepoName,
        reference: Reference,
        stays: Stays,
    ) -> Result<Deleted, Error> {
        match reference {
            Reference::Tag(tag) => self.delete_tag(&repository, &tag).await,
            Reference::Digest(digest) => self.delete_record(&repository, &digest, &*stays).await,
        }
    }

    /// First it is going, then what keeps it is looked for, then it is gone, then its tags and entries go.
    async fn delete_record(
        &self,
        repository: &RepoName,
        digest: &Digest,
        stays: &(dyn Fn(&Tag) -> bool + Send + Sync),
    ) -> Result<Deleted, Error> {
        let key = keys::manifest(repository, digest);
        let mut attempts = Attempts::default();
        loop {
            let slot = self.bucket.read(&key).await?;
            let Some(record) = record(&slot)? else {
                // What somebody left who did not come to the end.
                self.take_tags(repository, digest).await?;
                return Ok(Deleted::Unknown);
            };
            let mut going = record.clone();
            going.header.going_since = Some(self.bucket.clock.now());
            if let Some(going) = self.bucket.swap(&slot, &going.encode()?).await? {
                let kept = self.kept(repository, digest, stays).await;
                if let Ok(None) = kept {
                    if self.bucket.bury(going.slot()).await? {
                        self.changed();
                        if let Some(manifest) = record.parse() {
                            let gone = entries(repository, digest, &manifest, &record.header.entries);
                            self.bucket.forget(gone).await;
                        }
                        self.take_tags(repository, digest).await?;
                        return Ok(Deleted::Done);
                    }
                } else {
                    let turned_back = self.bucket.swap(going.slot(), &record.encode()?).await;
                    let kept = kept?;
                    turned_back?;
                    if let Some(kept) = kept {
                        return Ok(kept);
                    }
                }
            }
            attempts.again(&key).await?;
        }
    }
    /// What keeps a manifest that is going, if anything does.
    async fn kept(
        &self,
        repository: &RepoName,
        digest: &Digest,
        stays: &(dyn Fn(&Tag) -> bool + Send + Sync),
    ) -> Result<Option<Deleted>, Error> {
        if let Some(needed_by) = self.needed_by(repository, digest).await? {
            return Ok(Some(Deleted::Needed(needed_by)));
        }
        let tag = self.tagged(repository, digest, stays).await?;
        Ok(tag.map(Deleted::Fixed))
    }
}
