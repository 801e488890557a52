//! What belongs to one request: everything is made first, put on the disk at once, and named then, so that it costs few
//! waits for the disk however many files it has.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::RwLockReadGuard,
};

use super::durable::{Durable, is_gone, parent};
use crate::storage::{Error, IoContext as _};

/// Folders that are open at the same time.
const AT_ONCE: usize = 64;

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

impl<'a> Change<'a> {
    /// Where folders stay as long as it is under way.
    pub(super) fn new(durable: &'a Durable, folders_stay: RwLockReadGuard<'a, ()>) -> Self {
        Self {
            durable,
            written: Vec::new(),
            files: Vec::new(),
            folders: BTreeSet::new(),
            made: Vec::new(),
            _folders_stay: folders_stay,
        }
    }

    /// Makes empty files, where they are not there.
    pub(super) fn mark<'p>(&mut self, paths: impl IntoIterator<Item = &'p PathBuf>) -> Result<(), Error> {
        for path in paths {
            self.folder(parent(path))?;
            let coming = self.durable.known.coming(parent(path));
            let marked = self.durable.make_empty(path);
            drop(coming);
            match marked {
                Ok(()) => drop(self.folders.insert(parent(path).to_owned())),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.also(parent(path)),
                Err(error) => return Err(error).at("create", path),
            }
        }
        Ok(())
    }

    /// Writes what shall be at `path`, and says under which name it is until then.
    pub(super) fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<PathBuf, Error> {
        self.write_with(path, bytes, 0o666)
    }

    /// The same, unless that is there already. Each file that goes makes the next ones dearer: file systems take their
    /// time before they use its place again.
    pub(super) fn write_if_new(&mut self, path: &Path, bytes: &[u8]) -> Result<Option<PathBuf>, Error> {
        let length = bytes.len() as u64;
        let is_there = fs::metadata(path).is_ok_and(|found| found.len() == length)
            && fs::read(path).is_ok_and(|found| found == bytes);
        if is_there {
            self.also(parent(path));
            return Ok(None);
        }
        self.write(path, bytes).map(Some)
    }

    /// As [`Self::write`], with other permissions.
    pub(super) fn write_with(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, Error> {
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
        if !self.durable.known.is_settled(folder) {
            self.folders.insert(folder.to_owned());
        }
    }

    /// Puts everything so far on the disk.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let mut things = std::mem::take(&mut self.files);
        let known = &self.durable.known;
        let mut folders = std::mem::take(&mut self.folders).into_iter().peekable();
        while !things.is_empty() || folders.peek().is_some() {
            let mut synced = Vec::new();
            for folder in folders.by_ref().take(AT_ONCE) {
                match File::open(&folder) {
                    Ok(file) => {
                        synced.push((folder.clone(), known.version(&folder)));
                        things.push((file, folder));
                    }
                    // Nothing of ours is in it: what is, keeps it.
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(error).at("open", folder),
                }
            }
            self.durable.disk.sync_together(std::mem::take(&mut things))?;
            for (folder, version) in synced {
                known.synced(&folder, version);
            }
        }
        for folder in std::mem::take(&mut self.made) {
            known.made(&folder);
        }
        Ok(())
    }

    /// Gives a file that is on the disk its name, over whatever had that. The name is on the disk when the change has
    /// settled again.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let _coming = self.durable.known.coming(parent(to));
        self.durable.disk.rename(from, to).at("rename to", to)?;
        self.written.retain(|written| written != from);
        self.folders.insert(parent(to).to_owned());
        Ok(())
    }

    /// The same for some, and puts all names on the disk.
    pub(super) fn name(&mut self, moves: &[(&Path, &Path)]) -> Result<(), Error> {
        moves.iter().try_for_each(|(from, to)| self.rename(from, to))?;
        self.settle()
    }

    /// Makes a folder and those above it, down from the root.
    pub(super) fn folder(&mut self, folder: &Path) -> Result<(), Error> {
        let known = &self.durable.known;
        let above = folder
            .ancestors()
            .take_while(|above| *above != self.durable.root && !known.is_there(above))
            .filter(|above| !self.made.iter().any(|made| made == above));
        let missing: Vec<_> = above.map(Path::to_owned).collect();
        for step in missing.into_iter().rev() {
            let coming = known.coming(parent(&step));
            let created = self.durable.disk.create_folder(&step);
            drop(coming);
            match created {
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
