//! Writing so that it is still there after a power failure: when a function here returns, the file and every folder
//! on the way to it are on the disk. Readers see a file whole or not at all.
//!
//! Folders are made as they are needed, and taken away when they are empty and nobody is about to put something there.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, TryLockError},
};

use uuid::Uuid;

use super::{change::Change, disk::Disk, known::Known};
use crate::storage::{Error, IoContext as _};

/// Names of folders in `tmp/` that will be used again begin with this.
pub(super) const SPARE: &str = "spare-";

#[derive(Debug)]
pub(super) struct Durable {
    pub(super) disk: Disk,
    /// Exists; the folders below it are this type's business.
    pub(super) root: PathBuf,
    /// On the same file system, so that renaming is atomic.
    tmp: PathBuf,
    /// What all empty files are: making another file of each would cost more than all the rest of a push.
    empty: PathBuf,
    pub(super) known: Known,
    /// Shared by those who put something into a folder; who takes folders away needs it alone and never waits.
    filling: RwLock<()>,
}

impl Durable {
    pub(super) fn new(root: &Path, tmp: PathBuf, empty: PathBuf) -> Self {
        Self {
            disk: Disk::default(),
            root: root.to_owned(),
            tmp,
            empty,
            known: Known::default(),
            filling: RwLock::default(),
        }
    }

    pub(super) fn change(&self) -> Change<'_> {
        Change::new(self, self.filling.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes `bytes` the content of `path`.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(path, bytes, 0o666)
    }

    /// The same for what nobody else on the machine may read.
    pub(super) fn write_secret(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(path, bytes, 0o600)
    }

    fn write_with(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
        let mut change = self.change();
        let tmp = change.write_with(path, bytes, mode)?;
        change.settle()?;
        change.name(&[(&tmp, path)])
    }

    /// Gives a file that is synced itself its name, over whatever had that name.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let mut change = self.change();
        change.folder(parent(to))?;
        change.name(&[(from, to)])
    }

    /// Makes empty files, where they are not there.
    pub(super) fn mark(&self, paths: &[PathBuf]) -> Result<(), Error> {
        let mut change = self.change();
        change.mark(paths)?;
        change.settle()
    }

    /// Takes a name away; false where it was not there.
    pub(super) fn remove(&self, path: &Path) -> Result<bool, Error> {
        let removed = self.forget(path)?;
        if removed {
            self.sync_folder_of(path)?;
        }
        Ok(removed)
    }

    /// Puts on the disk what was done to a name, unless its folder is gone too.
    pub(super) fn sync_folder_of(&self, path: &Path) -> Result<(), Error> {
        match self.disk.sync_folder(parent(path)) {
            Err(error) if is_gone(&error) => Ok(()),
            synced => synced.at("sync", parent(path)),
        }
    }

    /// Takes away a name that does no harm when a power failure brings it back.
    pub(super) fn forget(&self, path: &Path) -> Result<bool, Error> {
        match self.disk.remove(path) {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error).at("remove", path),
        }
    }

    /// Takes a folder away where it is empty; false where it is not, or may be filled right now.
    pub(super) fn remove_if_empty(&self, folder: &Path) -> Result<bool, Error> {
        let _nobody_fills = match self.filling.try_write() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        match self.disk.remove_folder(folder) {
            Ok(()) => {
                self.known.forget(folder);
                Ok(true)
            }
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(error).at("remove", folder),
        }
    }

    /// Makes an empty file where none is.
    pub(super) fn make_empty(&self, path: &Path) -> io::Result<()> {
        let linked = match self.disk.link(&self.empty, path) {
            // It is not there yet, or has as many names as a file can have.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::TooManyLinks) => {
                let new = self.tmp_name();
                self.disk.create_new(&new)?;
                self.disk.rename(&new, &self.empty)?;
                self.disk.link(&self.empty, path)
            }
            linked => linked,
        };
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                // Not every file system has links, and others may have replaced it meanwhile.
                self.disk.create_new(path).map(drop)
            }
            linked => linked,
        }
    }

    /// A name in `tmp/` for a folder that will be used again, and so is nothing to be collected.
    pub(super) fn spare_name(&self) -> PathBuf {
        self.tmp.join(format!("{SPARE}{}", Uuid::new_v4()))
    }

    /// A name in `tmp/` that nothing has.
    pub(super) fn tmp_name(&self) -> PathBuf {
        self.tmp.join(Uuid::new_v4().to_string())
    }

    pub(super) fn ensure_folder(&self, folder: &Path) -> Result<(), Error> {
        let mut change = self.change();
        change.folder(folder)?;
        change.settle()
    }
}

/// That it, or a folder on the way to it, is not there.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The folder of a path below the root, which always has one.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn durable() -> (tempfile::TempDir, Durable) {
        let root = tempfile::tempdir().unwrap();
        let tmp = root.path().join("tmp");
        fs::create_dir(&tmp).unwrap();
        let durable = Durable::new(root.path(), tmp, root.path().join("empty"));
        (root, durable)
    }

    #[test]
    fn files_appear_whole_and_leave_nothing_behind() {
        let (root, durable) = durable();
        let path = root.path().join("a/b/c");
        durable.write(&path, b"one").unwrap();
        durable.write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&durable.tmp).unwrap().count(), 0);
        assert!(durable.remove(&path).unwrap());
        assert!(!durable.remove(&path).unwrap());
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let (root, durable) = durable();
        fs::write(root.path().join("a"), b"a file where a folder should be").unwrap();
        assert!(durable.write(&root.path().join("a/b"), b"").is_err());
        assert_eq!(fs::read_dir(&durable.tmp).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_was_taken_away_is_made_again() {
        let (root, durable) = durable();
        let paths = ["a/b/c", "a/d/e", "a/d/f"].map(|path| root.path().join(path));
        durable.mark(&paths).unwrap();
        assert!(!durable.remove_if_empty(&root.path().join("a/b")).unwrap());
        assert!(durable.remove(&paths[0]).unwrap());
        assert!(durable.remove_if_empty(&root.path().join("a/b")).unwrap());
        durable.write(&paths[0], b"again").unwrap();
        durable.mark(&paths).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), b"again", "what is there stays as it is");
    }
}
