//! Manifests, their tags and their referrers.
//!
//! A push makes everything first, under names that nobody looks at, with the entries of the indexes, and has it in the
//! journal. Then content and the repository's record get their names, then tags: an old tag is replaced only by one that
//! is complete. Deletes go the other way round and never run beside a push to the same repository,
//! so that nothing which an accepted manifest needs is taken away.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::Read as _,
    path::PathBuf,
};

use bytes::Bytes;
use oci::{Digest, Manifest, Reference, RepoName};
use serde::{Deserialize, Serialize};

use super::{Store, blobs::Content, layout::Repository};
use crate::storage::{Error, IoContext as _, NewTag, Put, StoredManifest, stamp::Stamp};

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
    /// Stores a manifest under its digest and these tags, if all that it needs is there. With a stamp of another
    /// registry the tags keep that.
    pub(crate) fn put_manifest(
        &self,
        repository: &RepoName,
        manifest: Manifest,
        digest: &Digest,
        bytes: &[u8],
        new_tags: &[NewTag],
        stamp: Option<&Stamp>,
    ) -> Result<Put, Error> {
        let _no_deletes = self.begin_push(repository)?;
        let is_known = match self.record(repository, digest) {
            // The same bytes under another type would be another manifest to who pulls them (CVE-2021-41190).
            Ok(Some(known)) if known.media_type != manifest.media_type => {
                return Ok(Put::OtherType(known.media_type));
            }
            Err(Error::Damaged { .. }) => false,
            record => record?.is_some(),
        };
        let missing = self.missing(repository, &manifest)?;
        if !self.sparse.allows(&manifest, &missing, is_known || stamp.is_some()) {
            return Ok(Put::Missing(missing));
        }
        let _it_stays = self.locks.hold(digest);
        let mut entry = self.ledger.push(self, repository)?;
        let tags: Vec<_> = new_tags.iter().map(|new| &new.tag).collect();
        let _one_at_a_time = self.locks.tags(repository, &tags);
        let folder = self.layout.repository(repository);
        let moves = match self.moves(repository, digest, new_tags, stamp)? {
            Ok(moves) => moves,
            Err(refused) => return Ok(refused),
        };
        entry.take_in(digest, bytes.len() as u64)?;
        let mut change = self.durable.change();
        let record = Record { absent: missing, ..Record::of(manifest, bytes) };
        change.mark(&record.entries(&folder, digest))?;
        change.mark(&[self.layout.holder(digest, repository)])?;
        change.mark(&tags.iter().map(|tag| folder.tagged_by(digest, tag)).collect::<Vec<_>>())?;
        let json = serde_json::to_vec(&record).map_err(Error::Encode)?;
        let one_brings_it = self.locks.place(digest);
        change.write_if_new(&self.layout.content(digest), bytes)?;
        let is_new = change.write_if_new(&folder.manifest(digest), &json)?;
        let mut new_names = 0;
        for (tag, _) in &moves.tags {
            let at = folder.tag(tag);
            new_names += usize::from(!fs::exists(&at).unwrap_or(false));
            change.write(&at, &moves.event.encode())?;
        }
        let outdated = moves.outdated(&folder);
        change.forget(&outdated);
        for name in &moves.undone {
            change.remove(&folder.deletion(name))?;
        }
        let announced = self.announce_push(repository, &moves, record.subject.as_ref(), is_new);
        let stored = change.commit();
        drop(one_brings_it);
        stored.inspect_err(|_| {
            self.listings.forget(&folder.tags());
            self.listings.forget(&folder.deletions());
            self.look_for_manifests(repository);
            entry.doubt();
        })?;
        drop(announced);
        for (tag, _) in &moves.tags {
            self.listings.note(&folder.tags(), tag.as_str(), true);
        }
        for name in &moves.undone {
            self.listings.note(&folder.deletions(), name, false);
        }
        entry.keep();
        entry.tags(new_names, 0);
        // What was there already was not pushed now.
        if is_new || !moves.tags.is_empty() {
            let tag = moves.tags.last().map(|(tag, _)| *tag);
            if let Some(push) = Self::last_push(&folder, tag, digest) {
                entry.pushed(push);
            }
        }
        drop(entry);
        self.filled.note(repository, true);
        self.forget_entries(&outdated);
        Ok(Put::Stored)
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
        let found = self.look_up(repository, reference, |digest, size| self.content_length(digest, size))?;
        Ok(found.map(|(manifest, _)| manifest))
    }

    /// The same, with its content.
    pub(crate) fn open_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Option<(StoredManifest, File)>, Error> {
        self.look_up(repository, reference, |digest, size| self.open_content(digest, size))
    }

    fn look_up<T>(
        &self,
        repository: &RepoName,
        reference: &Reference,
        look: impl FnOnce(&Digest, u64) -> Result<Content<T>, Error>,
    ) -> Result<Option<(StoredManifest, T)>, Error> {
        let nothing_goes = self.locks.see(repository);
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => match self.unless_damaged(self.resolve(repository, tag))? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        let Some(record) = self.unless_damaged(self.record(repository, &digest))? else { return Ok(None) };
        let content = look(&digest, record.size)?;
        drop(nothing_goes);
        let content = self.unless_wrong(&digest, record.size, content);
        let manifest = StoredManifest { digest, media_type: record.media_type, size: record.size };
        Ok(content.map(|content| (manifest, content)))
    }

    /// The record of a manifest whose content is there: without it, clients should push it again.
    fn whole_manifest(&self, repository: &RepoName, digest: &Digest) -> Result<Option<Record>, Error> {
        let record = self.unless_damaged(self.record(repository, digest))?;
        let Some(record) = record else { return Ok(None) };
        let content = self.content_length(digest, record.size)?;
        Ok(self.unless_wrong(digest, record.size, content).map(|_| record))
    }

    /// Reads a manifest's bytes and checks them against their digest; none where they are damaged.
    pub(crate) fn read_manifest(
        &self,
        manifest: &StoredManifest,
        mut file: File,
    ) -> Result<Option<Bytes>, Error> {
        let digest = &manifest.digest;
        let mut bytes = Vec::with_capacity(usize::try_from(manifest.size).unwrap_or_default());
        file.read_to_end(&mut bytes).at("read", self.layout.content(digest))?;
        if Digest::of(digest.algorithm(), &bytes) == *digest {
            return Ok(Some(bytes.into()));
        }
        self.is_damaged(digest, &file);
        Ok(None)
    }

    pub(super) fn record(&self, repository: &RepoName, digest: &Digest) -> Result<Option<Record>, Error> {
        let path = self.layout.repository(repository).manifest(digest);
        let Some(json) = super::read_if_there(&path)? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&json);
        record.map(Some).map_err(|_| Error::Damaged { path, what: "it should hold a manifest's record" })
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
