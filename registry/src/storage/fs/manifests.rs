//! Manifests, their tags and their referrers.
//!
//! A push puts everything on the disk first, under names that nobody looks at, with the entries of the indexes. Then
//! content and the repository's record get their names, then tags: whatever a crash leaves, an old tag is replaced only
//! by one that is complete. Deletes go the other way round and never run beside a push to the same repository,
//! so that nothing which an accepted manifest needs is taken away.

use std::{collections::HashSet, fs, io::Read as _, path::PathBuf};

use bytes::Bytes;
use oci::{Digest, Manifest, Reference, RepoName, Tag};
use serde::{Deserialize, Serialize};

use super::{Store, change::Change, durable::parent, ignoring_damage, layout::Repository, repositories};
use crate::storage::{Deleted, Error, IoContext as _, Put, StoredManifest};

/// What a repository knows of one of its manifests without reading the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) media_type: String,
    pub(super) size: u64,
    /// Blobs and manifests of this repository that must stay while this one does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) needs: Vec<Digest>,
    /// What of this was missing at the push, where sparse manifests are allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) absent: Vec<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl Store {
    /// Stores a manifest under its digest and these tags, if all that it needs is there.
    pub(crate) fn put_manifest(
        &self,
        repository: &RepoName,
        manifest: Manifest,
        digest: &Digest,
        bytes: &[u8],
        tags: &[Tag],
    ) -> Result<Put, Error> {
        let _no_deletes = self.lock_for_push(repository);
        match self.record(repository, digest) {
            // The same bytes under another type would be another manifest to who pulls them (CVE-2021-41190).
            Ok(Some(known)) if known.media_type != manifest.media_type => {
                return Ok(Put::OtherType(known.media_type));
            }
            Err(Error::Damaged { .. }) => {}
            record => drop(record?),
        }
        let missing = self.missing(repository, &manifest)?;
        if !self.sparse.allows(&manifest, &missing) {
            return Ok(Put::Missing(missing));
        }
        let _it_stays = self.locks.hold(digest);
        let _one_at_a_time = self.locks.tags(repository, tags);
        let folder = self.layout.repository(repository);
        let formers: Vec<_> = tags
            .iter()
            .map(|tag| ignoring_damage(self.resolve(repository, tag)))
            .collect::<Result<_, _>>()?;
        let mut change = self.durable.change();
        self.settle_needed(&mut change, &folder, &manifest);
        let record = Record { absent: missing, ..Record::of(manifest, bytes) };
        change.mark(&record.entries(&folder, digest))?;
        change.mark(&[self.layout.holder(digest, repository)])?;
        change.mark(&tags.iter().map(|tag| folder.tagged_by(digest, tag)).collect::<Vec<_>>())?;
        let (content, at) = (self.layout.content(digest), folder.manifest(digest));
        let json = serde_json::to_vec(&record).map_err(Error::Encode)?;
        let new_content = change.write_if_new(&content, bytes)?;
        let new_record = change.write_if_new(&at, &json)?;
        let mut pointers = Vec::with_capacity(tags.len());
        for tag in tags {
            let at = folder.tag(tag);
            let new = change.write_if_new(&at, format!("{digest}\n").as_bytes())?;
            pointers.extend(new.map(|new| (new, at)));
        }
        change.settle()?;
        if let Some(new_content) = new_content {
            let _nobody_judges = self.locks.place(digest);
            change.rename(&new_content, &content)?;
        }
        let new_record: Vec<_> = new_record.iter().map(|new| (new.as_path(), at.as_path())).collect();
        change.name(&new_record)?;
        let pointers: Vec<_> = pointers.iter().map(|(from, to)| (from.as_path(), to.as_path())).collect();
        change.name(&pointers).inspect_err(|_| self.listings.forget(&folder.tags()))?;
        for tag in tags {
            self.listings.note(&folder.tags(), tag.as_str(), true);
        }
        drop(change);
        self.repositories_changed();
        let outdated = tags.iter().zip(formers).filter_map(|(tag, former)| {
            let former = former.filter(|former| former != digest)?;
            Some(folder.tagged_by(&former, tag))
        });
        self.forget_entries(&outdated.collect::<Vec<_>>());
        Ok(Put::Stored)
    }

    /// What a manifest needs may have been pushed by a request that has not put it on the disk yet.
    fn settle_needed(&self, change: &mut Change<'_>, folder: &Repository, manifest: &Manifest) {
        for digest in manifest.blobs.iter().chain(&manifest.manifests) {
            change.also(parent(&self.layout.content(digest)));
            change.also(parent(&folder.blob(digest)));
        }
        for digest in &manifest.manifests {
            change.also(parent(&folder.manifest(digest)));
        }
    }

    /// What the manifest needs and the repository has not.
    fn missing(&self, repository: &RepoName, manifest: &Manifest) -> Result<Vec<Digest>, Error> {
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for digest in manifest.blobs.iter().filter(|digest| seen.insert(*digest)) {
            if self.blob_size(repository, digest)?.is_none() {
                missing.push(digest.clone());
            }
        }
        for digest in manifest.manifests.iter().filter(|digest| seen.insert(*digest)) {
            // Build caches are indexes of plain blobs.
            if self.whole_manifest(repository, digest)?.is_none()
                && self.blob_size(repository, digest)?.is_none()
            {
                missing.push(digest.clone());
            }
        }
        Ok(missing)
    }

    /// Looks a manifest up without reading its content.
    pub(crate) fn find_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, Error> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => match self.unless_damaged(self.resolve(repository, tag))? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        let record = self.whole_manifest(repository, &digest)?;
        Ok(record.map(|record| StoredManifest { digest, media_type: record.media_type, size: record.size }))
    }

    /// The record of a manifest whose content is there: without it, clients should push it again.
    fn whole_manifest(&self, repository: &RepoName, digest: &Digest) -> Result<Option<Record>, Error> {
        let record = self.unless_damaged(self.record(repository, digest))?;
        let Some(record) = record else { return Ok(None) };
        let is_whole = self.content_length(digest, record.size)?.is_some();
        Ok(is_whole.then_some(record))
    }

    /// Reads a manifest's bytes and checks them against their digest; none where they are damaged.
    pub(crate) fn read_manifest(&self, manifest: &StoredManifest) -> Result<Option<Bytes>, Error> {
        let digest = &manifest.digest;
        let Some(mut file) = self.open_content(digest, manifest.size)? else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(usize::try_from(manifest.size).unwrap_or_default());
        file.read_to_end(&mut bytes).at("read", self.layout.content(digest))?;
        if Digest::of(digest.algorithm(), &bytes) == *digest {
            return Ok(Some(bytes.into()));
        }
        self.is_damaged(digest, &file);
        Ok(None)
    }

    pub(super) fn resolve(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Digest>, Error> {
        let path = self.layout.repository(repository).tag(tag);
        let Some(text) = super::read_if_there(&path)? else {
            return Ok(None);
        };
        let digest = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
        digest.map(Some).ok_or(Error::Damaged { path, what: "it should hold a digest" })
    }

    pub(super) fn record(&self, repository: &RepoName, digest: &Digest) -> Result<Option<Record>, Error> {
        let path = self.layout.repository(repository).manifest(digest);
        let Some(json) = super::read_if_there(&path)? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&json);
        record.map(Some).map_err(|_| Error::Damaged { path, what: "it should hold a manifest's record" })
    }

    /// Takes a tag away and nothing else.
    pub(crate) fn delete_tag(&self, repository: &RepoName, tag: &Tag) -> Result<Deleted, Error> {
        let _no_pushes = self.lock_for_delete(repository);
        let folder = self.layout.repository(repository);
        let digest = self.resolve(repository, tag).unwrap_or_default();
        let removed = self.remove_tag(&folder, tag)?;
        self.forget_entries(digest.map(|digest| folder.tagged_by(&digest, tag)).iter());
        Ok(if removed { Deleted::Done } else { Deleted::Unknown })
    }

    fn remove_tag(&self, folder: &Repository, tag: &Tag) -> Result<bool, Error> {
        // Also where it fails later: then it may be gone, or not.
        let removed =
            self.durable.remove(&folder.tag(tag)).inspect_err(|_| self.listings.forget(&folder.tags()))?;
        self.listings.note(&folder.tags(), tag.as_str(), false);
        Ok(removed)
    }

    /// Takes a manifest away with its tags, unless an index of the repository needs it.
    pub(crate) fn delete_manifest(&self, repository: &RepoName, digest: &Digest) -> Result<Deleted, Error> {
        let _no_pushes = self.lock_for_delete(repository);
        let folder = self.layout.repository(repository);
        let entries = match self.record(repository, digest) {
            Ok(None) => return Ok(Deleted::Unknown),
            Ok(Some(record)) => record.entries(&folder, digest),
            // Nobody knows what it needed: entries that stay are found not to be true.
            Err(Error::Damaged { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        if let Some(needed_by) = self.needed_by(repository, digest)? {
            return Ok(Deleted::Needed(needed_by));
        }
        let _nobody_holds = self.locks.release(digest);
        for tag in self.tags_of(repository, digest)? {
            self.remove_tag(&folder, &tag)?;
            self.forget_entries([&folder.tagged_by(digest, &tag)]);
        }
        self.durable.remove(&folder.manifest(digest))?;
        self.repositories_changed();
        self.forget_entries(&entries);
        if self.marked_size(repository, digest)?.is_none() {
            self.durable.forget(&self.layout.holder(digest, repository))?;
        }
        Ok(Deleted::Done)
    }

    /// The repository's tags after `last`, sorted, at most `n` and whether there are more. None where there is no
    /// such repository.
    pub(crate) fn tags(
        &self,
        repository: &RepoName,
        last: Option<&str>,
        n: usize,
    ) -> Result<Option<(Vec<String>, bool)>, Error> {
        let folder = self.layout.repository(repository);
        let page = self.page(&folder.tags(), last, n)?;
        if page.0.is_empty() && !self.is_repository(repository)? {
            return Ok(None);
        }
        Ok(Some(page))
    }

    fn is_repository(&self, repository: &RepoName) -> Result<bool, Error> {
        let folder = self.layout.repository(repository);
        let there = |path: &std::path::Path| fs::exists(path).at("look at", path);
        Ok(there(&folder.blobs())? || there(&folder.tags())? || repositories::has_manifests(&folder)?)
    }
}

impl Record {
    /// Where the indexes say that this manifest is there.
    pub(super) fn entries(&self, folder: &Repository, digest: &Digest) -> Vec<PathBuf> {
        let needs = self.needs.iter().map(|needed| folder.needed_by(needed, digest));
        let subject = self.subject.iter().map(|subject| folder.referrer(subject, digest));
        needs.chain(subject).collect()
    }

    pub(super) fn of(manifest: Manifest, bytes: &[u8]) -> Self {
        let Manifest { media_type, blobs, manifests, subject, artifact_type, annotations } = manifest;
        let needs = blobs.into_iter().chain(manifests).collect();
        let absent = Vec::new();
        Self { media_type, size: bytes.len() as u64, needs, absent, subject, artifact_type, annotations }
    }
}
