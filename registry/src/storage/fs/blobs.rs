//! Blobs: content shared by all repositories, and each repository's own mark that it has it.
//!
//! A mark carries the size, so that content that was cut short is noticed before its first byte is served. It is
//! moved to `quarantine/` then, and the blob counts as missing: the next push brings it back.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    time::{Duration, SystemTime},
};

use oci::{Digest, Hasher, RepoName};

use super::{Store, change::Change, collect::is_older, ignoring_damage, layout, uploads::hash_from};
use crate::storage::{Deleted, Error, IoContext as _};

/// That a blob was looked at is written down once in so long.
const TOUCH_AFTER: Duration = Duration::from_secs(60);

/// What lies where content should be that somebody has.
pub(super) enum Content<T> {
    There(T),
    /// Of another length.
    Wrong(Metadata),
    Lost,
}

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
        let nothing_goes = self.locks.see(repository);
        let Some(size) = self.unless_damaged(self.marked_size(repository, digest))? else {
            return Ok(None);
        };
        let content = self.content_length(digest, size)?;
        drop(nothing_goes);
        Ok(self.unless_wrong(digest, size, content))
    }

    /// The length of content that must be this long.
    pub(super) fn content_length(&self, digest: &Digest, size: u64) -> Result<Content<u64>, Error> {
        let content = self.layout.content(digest);
        match fs::metadata(&content) {
            Ok(found) if found.len() == size => Ok(Content::There(size)),
            Ok(found) => Ok(Content::Wrong(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::Lost),
            Err(error) => Err(error).at("look at", &content),
        }
    }

    pub(crate) fn open_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<(File, u64)>, Error> {
        let nothing_goes = self.locks.see(repository);
        let Some(size) = self.unless_damaged(self.marked_size(repository, digest))? else {
            return Ok(None);
        };
        let content = self.open_content(digest, size)?;
        drop(nothing_goes);
        Ok(self.unless_wrong(digest, size, content).map(|file| (file, size)))
    }

    /// Opens content that must be this long.
    pub(super) fn open_content(&self, digest: &Digest, size: u64) -> Result<Content<File>, Error> {
        let content = self.layout.content(digest);
        match File::open(&content) {
            Ok(file) => {
                let found = file.metadata().at("look at", &content)?;
                Ok(if found.len() == size { Content::There(file) } else { Content::Wrong(found) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::Lost),
            Err(error) => Err(error).at("open", &content),
        }
    }

    /// Gives `to` a blob that `from` has; false where `from` has not.
    pub(crate) fn mount_blob(&self, from: &RepoName, to: &RepoName, digest: &Digest) -> Result<bool, Error> {
        let _it_stays = self.locks.hold(digest);
        let Some(size) = self.blob_size(from, digest)? else {
            return Ok(false);
        };
        let mut entry = self.ledger.push(self, to)?;
        entry.take_in(digest, size)?;
        let mut change = self.durable.change();
        self.mark_blob(&mut change, to, digest, size)?;
        change.commit()?;
        entry.keep();
        Ok(true)
    }

    /// Takes the blob from the repository, unless a manifest there needs it. Its content stays for the collection.
    pub(crate) fn delete_blob(&self, repository: &RepoName, digest: &Digest) -> Result<Deleted, Error> {
        let _no_pushes = self.lock_for_delete(repository);
        let Some(size) = self.marked_size(repository, digest)? else {
            return Ok(Deleted::Unknown);
        };
        if let Some(needed_by) = self.needed_by(repository, digest)? {
            return Ok(Deleted::Needed(needed_by));
        }
        let _nobody_holds = self.locks.release(digest);
        let mut entry = self.ledger.removal(self, repository)?;
        entry.take_out(digest, size)?;
        self.remove_blob(repository, digest)?;
        Ok(Deleted::Done)
    }

    /// Takes the blob from the repository, for who holds both locks.
    pub(super) fn remove_blob(&self, repository: &RepoName, digest: &Digest) -> Result<(), Error> {
        self.remove_mark(repository, digest)?;
        if self.record(repository, digest)?.is_none() {
            self.durable.forget(&self.layout.holder(digest, repository))?;
        }
        Ok(())
    }

    /// Takes the blob from the repository, but not from the content's holders.
    pub(super) fn remove_mark(&self, repository: &RepoName, digest: &Digest) -> Result<(), Error> {
        let mut change = self.durable.change();
        change.remove(&self.layout.repository(repository).blob(digest))?;
        change.commit_with(|| self.locks.hide(repository)).map(drop)
    }

    /// Says that the repository has a blob, among the content's holders too.
    pub(super) fn mark_blob(
        &self,
        change: &mut Change<'_>,
        repository: &RepoName,
        digest: &Digest,
        size: u64,
    ) -> Result<(), Error> {
        change.mark(&[self.layout.holder(digest, repository)])?;
        let mark = self.layout.repository(repository).blob(digest);
        change.write(&mark, format!("{size}\n").as_bytes())
    }

    pub(super) fn marked_size(&self, repository: &RepoName, digest: &Digest) -> Result<Option<u64>, Error> {
        let mark = self.layout.repository(repository).blob(digest);
        let Some(text) = super::read_if_there(&mark)? else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
        size.map(Some).ok_or(Error::Damaged { path: mark, what: "it should hold a size" })
    }

    /// A mark that can't be read is as good as none: the next push writes it again.
    pub(super) fn unless_damaged<T>(&self, found: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
        if let Err(error @ Error::Damaged { .. }) = &found {
            self.count_damage();
            tracing::error!(%error, "what it stands for counts as missing");
        }
        ignoring_damage(found)
    }

    /// What was found of content that must be this long; none where it is lost or cut short. Takes a place, and so not for
    /// who keeps anything from going.
    pub(super) fn unless_wrong<T>(&self, digest: &Digest, size: u64, content: Content<T>) -> Option<T> {
        match content {
            Content::There(found) => return Some(found),
            Content::Lost => {
                self.count_damage();
                tracing::error!(%digest, "content that a repository has is lost");
            }
            Content::Wrong(found) => {
                tracing::error!(%digest, size, length = found.len(), "content has the wrong length");
                if self.matches(digest, &found) {
                    // Others may have the right size, and the next push of this one brings it.
                    self.count_damage();
                } else {
                    let _ = self.quarantine(digest, &found);
                }
            }
        }
        None
    }

    /// Whether content is right in spite of what somebody has written down about it.
    fn matches(&self, digest: &Digest, found: &Metadata) -> bool {
        let hash = || {
            let mut file = File::open(self.layout.content(digest))?;
            let mut hasher = Hasher::new(digest.algorithm());
            hash_from(0, &mut file, &mut hasher)?;
            Ok::<_, io::Error>((is_same(&file.metadata()?, found), hasher.finish()))
        };
        hash().is_ok_and(|(is_same, actual)| is_same && actual == *digest)
    }

    /// Takes damaged content out of service, unless other content has come to its place since it was found. Says
    /// whether it did.
    pub(super) fn quarantine(&self, digest: &Digest, found: &Metadata) -> bool {
        self.count_damage();
        let content = self.layout.content(digest);
        let name = format!("{}-{}", layout::as_name(digest), uuid::Uuid::new_v4());
        let _nobody_brings_it = self.locks.place(digest);
        if !fs::metadata(&content).is_ok_and(|now| is_same(&now, found)) {
            return false;
        }
        match self.durable.rename(&content, &self.layout.quarantine().join(name)) {
            Ok(()) => {
                tracing::error!(%digest, "damaged content was moved to quarantine");
                true
            }
            Err(error) => {
                tracing::error!(%digest, %error, "failed to move damaged content to quarantine");
                false
            }
        }
    }
}

/// Whether it is one file.
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
