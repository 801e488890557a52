//! Blobs: content shared by all repositories, and each repository's own mark that it has it.
//!
//! A mark carries the size, so that content that was cut short is noticed before its first byte is served. It is
//! moved to `quarantine/` then, and the blob counts as missing: the next push brings it back.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use oci::{Digest, RepoName};

use super::{Store, collect::is_older, layout};
use crate::storage::{Deleted, Error, IoContext as _};

/// That a blob was looked at is written down once in so long.
const TOUCH_AFTER: Duration = Duration::from_secs(60);

impl Store {
    /// Size of a blob for a client that may count on it from now on: that one was looked at keeps it from collection.
    pub(crate) fn check_blob(&self, repository: &RepoName, digest: &Digest) -> Result<Option<u64>, Error> {
        let size = self.blob_size(repository, digest)?;
        if size.is_some() {
            let mark = self.layout.repository(repository).blob(digest);
            let touched = File::open(&mark).and_then(|mark| {
                let last = mark.metadata()?.modified()?;
                if is_older(last, TOUCH_AFTER) { mark.set_modified(SystemTime::now()) } else { Ok(()) }
            });
            // Gone between, or on a disk that takes nothing: it was there all the same.
            if let Err(error) = touched {
                tracing::debug!(%digest, %error, "that a blob was looked at is not kept");
            }
        }
        Ok(size)
    }

    /// Size of a blob that the repository has and that is there.
    pub(crate) fn blob_size(&self, repository: &RepoName, digest: &Digest) -> Result<Option<u64>, Error> {
        let Some(size) = self.marked_size(repository, digest)? else {
            return Ok(None);
        };
        let content = self.layout.content(digest);
        match fs::metadata(&content) {
            Ok(metadata) => Ok(self.is_whole(digest, &content, size, metadata.len()).then_some(size)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.lost(digest)),
            Err(error) => Err(error).at("look at", &content),
        }
    }

    pub(crate) fn open_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<(File, u64)>, Error> {
        let Some(size) = self.marked_size(repository, digest)? else {
            return Ok(None);
        };
        Ok(self.open_content(digest, size)?.map(|file| (file, size)))
    }

    /// Opens content that must be this long; none where it is lost or cut short.
    pub(super) fn open_content(&self, digest: &Digest, size: u64) -> Result<Option<File>, Error> {
        let content = self.layout.content(digest);
        match File::open(&content) {
            Ok(file) => {
                let length = file.metadata().at("look at", &content)?.len();
                Ok(self.is_whole(digest, &content, size, length).then_some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.lost(digest)),
            Err(error) => Err(error).at("open", &content),
        }
    }

    /// Gives `to` a blob that `from` has; false where `from` has not.
    pub(crate) fn mount_blob(&self, from: &RepoName, to: &RepoName, digest: &Digest) -> Result<bool, Error> {
        let _it_stays = self.locks.hold(digest);
        let Some(size) = self.blob_size(from, digest)? else {
            return Ok(false);
        };
        self.durable.mark(&[self.layout.holder(digest, to)])?;
        self.mark_blob(to, digest, size)?;
        Ok(true)
    }

    /// Takes the blob from the repository, unless a manifest there needs it. Its content stays for the collection.
    pub(crate) fn delete_blob(&self, repository: &RepoName, digest: &Digest) -> Result<Deleted, Error> {
        let _no_pushes = self.lock_for_delete(repository);
        if self.marked_size(repository, digest)?.is_none() {
            return Ok(Deleted::Unknown);
        }
        if let Some(needed_by) = self.needed_by(repository, digest)? {
            return Ok(Deleted::Needed(needed_by));
        }
        let _nobody_holds = self.locks.release(digest);
        self.remove_blob(repository, digest)?;
        Ok(Deleted::Done)
    }

    /// Takes the blob from the repository, for who holds both locks.
    pub(super) fn remove_blob(&self, repository: &RepoName, digest: &Digest) -> Result<(), Error> {
        self.durable.remove(&self.layout.repository(repository).blob(digest))?;
        if self.record(repository, digest)?.is_none() {
            self.durable.forget(&self.layout.holder(digest, repository))?;
        }
        Ok(())
    }

    /// Says that the repository has the blob; its content is there and synced, and the repository among its holders.
    pub(super) fn mark_blob(&self, repository: &RepoName, digest: &Digest, size: u64) -> Result<(), Error> {
        self.durable.write(&self.layout.repository(repository).blob(digest), format!("{size}\n").as_bytes())
    }

    pub(super) fn marked_size(&self, repository: &RepoName, digest: &Digest) -> Result<Option<u64>, Error> {
        let mark = self.layout.repository(repository).blob(digest);
        let Some(text) = super::read_if_there(&mark)? else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
        size.map(Some).ok_or(Error::Damaged { path: mark, what: "it should hold a size" })
    }

    fn is_whole(&self, digest: &Digest, content: &Path, size: u64, length: u64) -> bool {
        if length == size {
            return true;
        }
        tracing::error!(%digest, size, length, "content has the wrong length, moved to quarantine");
        self.quarantine(digest, content);
        false
    }

    /// Takes damaged content out of service.
    pub(super) fn quarantine(&self, digest: &Digest, content: &Path) {
        self.count_damage();
        let name = format!("{}-{}", layout::as_name(digest), uuid::Uuid::new_v4());
        if let Err(error) = self.durable.rename(content, &self.layout.quarantine().join(name)) {
            tracing::error!(%digest, %error, "failed to move damaged content to quarantine");
        }
    }

    fn lost<T>(&self, digest: &Digest) -> Option<T> {
        self.count_damage();
        tracing::error!(%digest, "content that a repository has is lost");
        None
    }
}
