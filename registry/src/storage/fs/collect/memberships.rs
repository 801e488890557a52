//! Blobs that a repository has and does not need, and the empty folders of repositories.

use std::{
    fs::{self, Metadata},
    io,
    path::Path,
};

use oci::{Digest, RepoName, digest::ALGORITHMS};

use super::{Kind, Run};
use crate::storage::{
    Error, IoContext as _,
    fs::{
        folder, ignoring_damage,
        layout::{self, DELETED, INDEXES},
    },
};

impl Run<'_> {
    pub(super) fn memberships(&mut self) -> Result<(), Error> {
        self.below("").map(|_| ())
    }

    /// Looks at all repositories below `prefix`, which is empty or ends in `/`, in no order. False where it should end.
    fn below(&mut self, prefix: &str) -> Result<bool, Error> {
        let parent = self.store.layout.repositories().join(prefix);
        for name in folder::names(&parent)? {
            if !(self.go_on)() {
                return Ok(false);
            }
            if name.starts_with('_') {
                continue;
            }
            let name = format!("{prefix}{name}");
            if let Ok(repository) = name.parse()
                && !self.repository(&repository)?
            {
                return Ok(false);
            }
            if !self.below(&format!("{name}/"))? {
                return Ok(false);
            }
            self.tidy(&self.store.layout.repositories().join(name))?;
        }
        Ok(true)
    }

    fn repository(&mut self, repository: &RepoName) -> Result<bool, Error> {
        let folder = self.store.layout.repository(repository);
        for algorithm in ALGORITHMS {
            let blobs = folder.blobs().join(algorithm.as_str());
            for name in folder::entries(&blobs)? {
                if !(self.go_on)() {
                    return Ok(false);
                }
                if let Some(digest) = layout::of_hex(algorithm, &name.at("list", &blobs)?) {
                    self.membership(repository, &digest)?;
                }
            }
        }
        if !self.deletions(repository)? {
            return Ok(false);
        }
        let folder = folder.folder().to_owned();
        for index in INDEXES {
            for algorithm in ALGORITHMS {
                let index = folder.join(index).join(algorithm.as_str());
                for name in folder::entries(&index)? {
                    if !(self.go_on)() {
                        return Ok(false);
                    }
                    self.tidy(&index.join(name.at("list", &index)?))?;
                }
                self.tidy(&index)?;
            }
        }
        for part in ["_blobs", "_manifests"] {
            for algorithm in ALGORITHMS {
                self.tidy(&folder.join(part).join(algorithm.as_str()))?;
            }
        }
        for part in ["_blobs", "_manifests", "_tags", DELETED].into_iter().chain(INDEXES) {
            self.tidy(&folder.join(part))?;
        }
        Ok(true)
    }

    fn membership(&mut self, repository: &RepoName, digest: &Digest) -> Result<(), Error> {
        if !self.is_unneeded(repository, digest)? {
            return Ok(());
        }
        let store = self.store;
        let mark = store.layout.repository(repository).blob(digest);
        if !self.is_dry {
            let (Some(_no_pushes), Some(_nobody_holds)) =
                (store.try_lock_for_delete(repository), store.locks.try_release(digest))
            else {
                return Ok(());
            };
            if !self.is_unneeded(repository, digest)? {
                return Ok(());
            }
            let size = ignoring_damage(store.marked_size(repository, digest))?;
            let mut entry = store.ledger.removal(store, repository)?;
            entry.take_out(digest, size.unwrap_or_default())?;
            // Before the content goes, or a power failure could leave a blob without any. That the repository holds it
            // no more is found out there.
            store.remove_mark(repository, digest)?;
        }
        self.report(Kind::Blob, &mark, 0);
        Ok(())
    }

    pub(super) fn is_unneeded(&self, repository: &RepoName, digest: &Digest) -> Result<bool, Error> {
        let mark = self.store.layout.repository(repository).blob(digest);
        match fs::metadata(&mark).and_then(|metadata: Metadata| metadata.modified()) {
            Ok(touched) if self.is_old(touched) => Ok(self.store.needed_by(repository, digest)?.is_none()),
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).at("look at", mark),
        }
    }

    /// Takes a folder away if it is empty: whoever is about to put something there makes it again.
    fn tidy(&self, folder: &Path) -> Result<(), Error> {
        if !self.is_dry && folder::is_empty(folder)? {
            self.store.durable.remove_if_empty(folder)?;
        }
        Ok(())
    }
}
