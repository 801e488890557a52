//! Writing so that it is still there after a power failure: when a function here returns, what it did is on the disk, in
//! its place or in the [`journal`](super::journal). Readers see a file whole or not at all.
//!
//! Folders are made as they are needed, and taken away when they are empty and nobody is about to put something there.

mod start;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, TryLockError},
    thread::JoinHandle,
};

use uuid::Uuid;

use super::{
    change::Change,
    disk::Disk,
    journal::{Journal, Record, Step},
};
use crate::storage::{Error, IoContext as _};

/// Names of folders in `tmp/` that will be used again begin with this.
pub(super) const SPARE: &str = "spare-";

#[derive(Debug)]
pub(super) struct Durable {
    pub(super) disk: Disk,
    /// Exists; the folders below it are this type's business.
    root: PathBuf,
    /// On the same file system, so that renaming is atomic.
    tmp: PathBuf,
    /// What all empty files are: making another file of each would cost more than all the rest of a push.
    empty: PathBuf,
    pub(super) journal: Arc<Journal>,
    /// Keeps the journal short, once what it held is done.
    keeper: Option<JoinHandle<()>>,
    /// Shared by those who put something into a folder; who takes folders away needs it alone and never waits.
    filling: RwLock<()>,
}

impl Durable {
    pub(super) fn change(&self) -> Change<'_> {
        Change::new(self, self.filling())
    }

    fn filling(&self) -> RwLockReadGuard<'_, ()> {
        self.filling.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `bytes` the content of `path`.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut change = self.change();
        change.write(path, bytes)?;
        change.commit()
    }

    /// The same for what is read before the journal is, or must not be in it: no record may be about the same path.
    pub(super) fn write_at_once(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(path, bytes, 0o666)
    }

    /// The same for what nobody else on the machine may read.
    pub(super) fn write_secret(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(path, bytes, 0o600)
    }

    fn write_with(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
        let tmp = self.tmp_name();
        let write = || {
            let mut file = self.disk.create_new_with(&tmp, mode).at("create", &tmp)?;
            self.disk.write(&mut file, bytes).at("write", &tmp)?;
            self.disk.sync_data(&file).at("sync", &tmp)?;
            self.rename(&tmp, path)
        };
        write().inspect_err(|_| {
            // What is left goes with a collection.
            let _ = fs::remove_file(&tmp);
        })
    }

    /// Makes empty files, where they are not there.
    pub(super) fn mark(&self, paths: &[PathBuf]) -> Result<(), Error> {
        let mut change = self.change();
        change.mark(paths)?;
        change.commit()
    }

    /// Gives a file that is synced itself its name, over whatever had that name, in a folder of those that are there from
    /// the start or in one below.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let _folders_stay = self.filling();
        let folder = parent(to);
        self.folder(folder)?;
        self.disk.rename(from, to).at("rename to", to)?;
        self.disk.sync_folder(folder).at("sync", folder)?;
        if folder == self.root {
            return Ok(());
        }
        // Who made the folder may not have put it on the disk yet.
        self.disk.sync_folder(parent(folder)).at("sync", parent(folder))
    }

    /// Moves a file away that records write, or may have written.
    pub(super) fn set_aside(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.rename(from, to)?;
        let mut record = Record::default();
        record.add(&Step::Remove(self.below_root(from)));
        self.journal.append(record)?.done();
        Ok(())
    }

    /// Takes a name away; false where it was not there.
    pub(super) fn remove(&self, path: &Path) -> Result<bool, Error> {
        match fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(error).at("look at", path),
        }
        let mut record = Record::default();
        record.add(&Step::Remove(self.below_root(path)));
        let applying = self.journal.append(record)?;
        let removed = self.forget(path)?;
        applying.done();
        Ok(removed)
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
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(error).at("remove", folder),
        }
    }

    /// Makes an empty file where none is. Its record makes it durable.
    pub(super) fn mark_now(&self, path: &Path) -> Result<(), Error> {
        if fs::exists(path).unwrap_or(false) {
            return Ok(());
        }
        self.folder(parent(path))?;
        match self.make_empty(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at("create", path),
            _ => Ok(()),
        }
    }

    fn make_empty(&self, path: &Path) -> io::Result<()> {
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

    /// A path as records name it.
    pub(super) fn below_root<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// Makes a folder and those above it, where they are not there.
    pub(super) fn folder(&self, folder: &Path) -> Result<(), Error> {
        if fs::exists(folder).unwrap_or(false) {
            return Ok(());
        }
        if folder != self.root {
            self.folder(parent(folder))?;
        }
        match self.disk.create_folder(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at("create", folder),
            _ => Ok(()),
        }
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        // Where it could not be opened, what the journal holds was not done.
        let Some(keeper) = self.keeper.take() else { return };
        self.journal.close();
        if keeper.join().is_err() {
            tracing::error!("who keeps the journal short has panicked");
        }
        if let Err(error) = self.journal.checkpoint() {
            tracing::error!(%error, "what was taken stays in the journal until the next start");
        }
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
    use super::{super::layout::Layout, *};

    fn durable() -> (tempfile::TempDir, Durable) {
        let root = tempfile::tempdir().unwrap();
        let durable = Durable::open(&Layout::new(root.path()), Disk::default()).unwrap();
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
