//! Writing so that it is still there after a power failure: when a function here returns, the file and every folder
//! on the way to it are on the disk. Readers see a file whole or not at all.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use crate::storage::{Error, IoContext as _};

/// Folders remembered as being on the disk, so that they need not be synced again and again.
const KNOWN_FOLDERS: usize = 4096;

#[derive(Debug)]
pub(super) struct Durable {
    /// Exists; the folders below it are this type's business.
    root: PathBuf,
    /// On the same file system, so that renaming is atomic.
    tmp: PathBuf,
    known: Mutex<HashSet<PathBuf>>,
}

impl Durable {
    pub(super) fn new(root: &Path, tmp: PathBuf) -> Self {
        Self { root: root.to_owned(), tmp, known: Mutex::default() }
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
        let tmp = self.tmp.join(Uuid::new_v4().to_string());
        let written =
            write_and_sync(&tmp, bytes, mode).at("write", &tmp).and_then(|()| self.rename(&tmp, path));
        if written.is_err() {
            // What is left would go at the next start anyway.
            let _ = fs::remove_file(&tmp);
        }
        written
    }

    /// Gives a file that is synced itself its name, over whatever had that name.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let folder = parent(to);
        self.ensure_folder(folder)?;
        fs::rename(from, to).at("rename to", to)?;
        sync_folder(folder)
    }

    /// Makes a folder and those above it, down from the root.
    pub(super) fn ensure_folder(&self, folder: &Path) -> Result<(), Error> {
        // Held while syncing: who finds the folder there must not go on before it is on the disk.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if folder == self.root || known.contains(folder) {
            return Ok(());
        }
        let missing: Vec<_> =
            folder.ancestors().take_while(|above| *above != self.root && !known.contains(*above)).collect();
        for step in missing.into_iter().rev() {
            match fs::create_dir(step) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).at("create", step);
                }
                // One that is there already may have been made just before a power failure.
                _ => sync_folder(parent(step))?,
            }
            if known.len() >= KNOWN_FOLDERS {
                known.clear();
            }
            known.insert(step.to_owned());
        }
        Ok(())
    }
}

fn write_and_sync(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Takes a name away; false where it was not there.
pub(super) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(parent(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("remove", path),
    }
}

/// Puts the names in a folder on the disk.
fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).at("sync", folder)
}

/// The folder of a path below the root, which always has one.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_whole_and_leave_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let tmp = root.path().join("tmp");
        fs::create_dir(&tmp).unwrap();
        let durable = Durable::new(root.path(), tmp.clone());
        let path = root.path().join("a/b/c");
        durable.write(&path, b"one").unwrap();
        durable.write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let tmp = root.path().join("tmp");
        fs::create_dir(&tmp).unwrap();
        let durable = Durable::new(root.path(), tmp.clone());
        fs::write(root.path().join("a"), b"a file where a folder should be").unwrap();
        assert!(durable.write(&root.path().join("a/b"), b"").is_err());
        assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    }
}
