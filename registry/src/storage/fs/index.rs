//! The way back: from content to the repositories that hold it, from what a manifest needs to the manifest, from a
//! manifest to its tags. Empty files, one for each.
//!
//! An entry is written before what it stands for and goes after it, so that one may be too many after a crash but never
//! too few. Whoever follows one looks whether it is still true.

use oci::{Digest, RepoName, Tag};

use super::{Store, folder, ignoring_damage, layout};
use crate::storage::{Error, IoContext as _};

impl Store {
    /// A manifest of the repository, other than the one asked about, that needs this content.
    pub(super) fn needed_by(&self, repository: &RepoName, digest: &Digest) -> Result<Option<Digest>, Error> {
        let folder = self.layout.repository(repository).needed(digest);
        for name in folder::entries(&folder)? {
            let Some(manifest) = layout::as_digest(&name.at("list", &folder)?) else { continue };
            if manifest == *digest {
                continue;
            }
            match self.needs(repository, &manifest, digest) {
                Ok(false) => {}
                // What a record that can't be read says of it, nobody knows.
                Ok(true) | Err(Error::Damaged { .. }) => return Ok(Some(manifest)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether a manifest of the repository needs this content.
    pub(super) fn needs(
        &self,
        repository: &RepoName,
        manifest: &Digest,
        digest: &Digest,
    ) -> Result<bool, Error> {
        Ok(self.record(repository, manifest)?.is_some_and(|record| record.needs.contains(digest)))
    }

    /// The tags that point to a manifest, one by one.
    pub(super) fn tags_of(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<impl Iterator<Item = Result<Tag, Error>>, Error> {
        let folder = self.layout.repository(repository).tagged(digest);
        Ok(folder::entries(&folder)?.filter_map(move |name| {
            let tag = match name.at("list", &folder) {
                Ok(name) => name.parse::<Tag>().ok()?,
                Err(error) => return Some(Err(error)),
            };
            match ignoring_damage(self.resolve(repository, &tag)) {
                Ok(target) => (target.as_ref() == Some(digest)).then_some(Ok(tag)),
                Err(error) => Some(Err(error)),
            }
        }))
    }

    /// Whether the repository has this content, as a blob or as a manifest.
    pub(super) fn holds(&self, repository: &RepoName, digest: &Digest) -> Result<bool, Error> {
        let folder = self.layout.repository(repository);
        let there = |path: std::path::PathBuf| std::fs::exists(&path).at("look at", path);
        Ok(there(folder.blob(digest))? || there(folder.manifest(digest))?)
    }

    /// A repository that has this blob, among those that `wanted` accepts.
    pub(crate) fn find_blob(
        &self,
        digest: &Digest,
        wanted: impl Fn(&RepoName) -> bool,
    ) -> Result<Option<RepoName>, Error> {
        self.find_holder(digest, |repository| {
            Ok(wanted(repository) && self.blob_size(repository, digest)?.is_some())
        })
    }

    /// A repository that once came to hold this content and that `wanted` accepts.
    pub(super) fn find_holder(
        &self,
        digest: &Digest,
        wanted: impl Fn(&RepoName) -> Result<bool, Error>,
    ) -> Result<Option<RepoName>, Error> {
        let folder = self.layout.holders(digest);
        for name in folder::entries(&folder)? {
            let Some(repository) = layout::as_repository(&name.at("list", &folder)?) else { continue };
            if wanted(&repository)? {
                return Ok(Some(repository));
            }
        }
        Ok(None)
    }

    /// Takes entries away that nothing needs any more, and their folders with the last one. That they are still there
    /// after a failure does no harm.
    pub(super) fn forget_entries<'a>(&self, entries: impl IntoIterator<Item = &'a std::path::PathBuf>) {
        for entry in entries {
            let removed = self.durable.forget(entry).and_then(|_| match entry.parent() {
                Some(folder) => self.durable.remove_if_empty(folder),
                None => Ok(false),
            });
            if let Err(error) = removed {
                tracing::warn!(%error, "an entry that nothing needs any more is left");
            }
        }
    }
}
