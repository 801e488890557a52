//! Writing so that it is still there after a power failure: when a function here returns, the file and every folder
//! on the way to it are on the disk. Readers see a file whole or not at all.
//!
//! A [`Change`] puts together what belongs to one request: everything is made first, put on the disk at once, and named
//! then, so that it costs few waits for the disk however many files it has.
//!
//! Folders are made as they are needed, and taken away when they are empty and nobody is about to put something there.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError},
};

use uuid::Uuid;

use super::disk::Disk;
use crate::storage::{Error, IoContext as _};

/// Folders remembered as being on the disk, so that they need not be synced again and again.
const KNOWN_FOLDERS: usize = 32 << 10;

#[derive(Debug)]
pub(super) struct Durable {
    pub(super) disk: Disk,
    /// Exists; the folders below it are this type's business.
    root: PathBuf,
    /// On the same file system, so that renaming is atomic.
    tmp: PathBuf,
    known: Mutex<Known>,
    /// Shared by those who put something into a folder; who takes folders away needs it alone and never waits.
    filling: RwLock<()>,
}

/// Folders by the hash of their path: two of one hash are not to be expected in the life of a registry.
#[derive(Debug, Default)]
struct Known {
    hasher: RandomState,
    folders: HashSet<u64>,
}

impl Known {
    fn has(&self, folder: &Path) -> bool {
        self.folders.contains(&self.hasher.hash_one(folder))
    }

    fn add(&mut self, folders: &[PathBuf]) {
        if self.folders.len() + folders.len() > KNOWN_FOLDERS {
            self.folders.clear();
        }
        self.folders.extend(folders.iter().map(|folder| self.hasher.hash_one(folder.as_path())));
    }

    fn remove(&mut self, folder: &Path) {
        self.folders.remove(&self.hasher.hash_one(folder));
    }
}

/// Something that is about to be done. What has no name yet when it goes is removed.
#[derive(Debug)]
pub(super) struct Change<'a> {
    durable: &'a Durable,
    /// Written, not yet named.
    written: Vec<PathBuf>,
    /// To be put on the disk.
    files: Vec<(File, PathBuf)>,
    folders: BTreeSet<PathBuf>,
    /// Made here, not yet on the disk.
    made: Vec<PathBuf>,
    _folders_stay: RwLockReadGuard<'a, ()>,
}

impl Change<'_> {
    /// Makes empty files, where they are not there.
    pub(super) fn mark<'p>(&mut self, paths: impl IntoIterator<Item = &'p PathBuf>) -> Result<(), Error> {
        for path in paths {
            self.folder(parent(path))?;
            match self.durable.disk.create_new(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).at("create", path);
                }
                // One that is there may have been made by a request that has not synced it yet.
                _ => self.also(parent(path)),
            }
        }
        Ok(())
    }

    /// Writes what shall be at `path`, and says under which name it is until then.
    pub(super) fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<PathBuf, Error> {
        self.write_with(path, bytes, 0o666)
    }

    fn write_with(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, Error> {
        self.folder(parent(path))?;
        let tmp = self.durable.tmp_name();
        let disk = &self.durable.disk;
        let mut file = disk.create_new_with(&tmp, mode).at("create", &tmp)?;
        self.written.push(tmp.clone());
        disk.write(&mut file, bytes).at("write", &tmp)?;
        self.files.push((file, tmp.clone()));
        Ok(tmp)
    }

    /// Takes a file along that is there already and shall be at `path`.
    pub(super) fn adopt(&mut self, file: File, from: &Path, path: &Path) -> Result<(), Error> {
        self.folder(parent(path))?;
        self.files.push((file, from.to_owned()));
        Ok(())
    }

    /// Puts on the disk what others may just have done in this folder.
    pub(super) fn also(&mut self, folder: &Path) {
        self.folders.insert(folder.to_owned());
    }

    /// Puts everything so far on the disk.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let mut things = std::mem::take(&mut self.files);
        for folder in std::mem::take(&mut self.folders) {
            match File::open(&folder) {
                Ok(file) => things.push((file, folder)),
                // Nothing of ours is in it: what is, keeps it.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error).at("open", folder),
            }
        }
        self.durable.disk.sync_together(things)?;
        self.durable.known().add(&std::mem::take(&mut self.made));
        Ok(())
    }

    /// Gives a file that is on the disk its name, over whatever had that. The name is on the disk when the change has
    /// settled again.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        self.durable.disk.rename(from, to).at("rename to", to)?;
        self.written.retain(|written| written != from);
        self.also(parent(to));
        Ok(())
    }

    /// The same for some, and puts all names on the disk.
    pub(super) fn name(&mut self, moves: &[(&Path, &Path)]) -> Result<(), Error> {
        moves.iter().try_for_each(|(from, to)| self.rename(from, to))?;
        self.settle()
    }

    /// Makes a folder and those above it, down from the root.
    fn folder(&mut self, folder: &Path) -> Result<(), Error> {
        let missing: Vec<PathBuf> = {
            let known = self.durable.known();
            let above =
                folder.ancestors().take_while(|above| *above != self.durable.root && !known.has(above));
            above.filter(|above| !self.made.iter().any(|made| made == above)).map(Path::to_owned).collect()
        };
        for step in missing.into_iter().rev() {
            match self.durable.disk.create_folder(&step) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).at("create", step);
                }
                // One that is there already may have been made just before a power failure, or by a request that has
                // not synced it yet.
                _ => self.also(parent(&step)),
            }
            self.made.push(step);
        }
        Ok(())
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        for tmp in &self.written {
            // What is left would go with a collection anyway.
            let _ = fs::remove_file(tmp);
        }
    }
}

impl Durable {
    pub(super) fn new(root: &Path, tmp: PathBuf) -> Self {
        Self {
            disk: Disk::default(),
            root: root.to_owned(),
            tmp,
            known: Mutex::default(),
            filling: RwLock::default(),
        }
    }

    pub(super) fn change(&self) -> Change<'_> {
        Change {
            durable: self,
            written: Vec::new(),
            files: Vec::new(),
            folders: BTreeSet::new(),
            made: Vec::new(),
            _folders_stay: self.filling.read().unwrap_or_else(PoisonError::into_inner),
        }
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
                self.known().remove(folder);
                Ok(true)
            }
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(error).at("remove", folder),
        }
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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That it, or a folder on the way to it, is not there.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The folder of a path below the root, which always has one.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable() -> (tempfile::TempDir, Durable) {
        let root = tempfile::tempdir().unwrap();
        let tmp = root.path().join("tmp");
        fs::create_dir(&tmp).unwrap();
        let durable = Durable::new(root.path(), tmp);
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
