//! What belongs to one request: everything is made first, written to the journal, and named then, so that it waits for
//! the disk once however many files it has.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::RwLockReadGuard,
    time::SystemTime,
};

use super::{
    durable::{Durable, parent},
    journal::{Record, Step},
};
use crate::storage::{Error, IoContext as _};

/// Something that is about to be done. What has no name yet when it goes is removed.
#[derive(Debug)]
pub(super) struct Change<'a> {
    durable: &'a Durable,
    record: Record,
    /// Files that are there, and the names that they get, in this order.
    moves: Vec<(PathBuf, PathBuf)>,
    /// Names that go after that.
    removes: Vec<PathBuf>,
    _folders_stay: RwLockReadGuard<'a, ()>,
}

impl<'a> Change<'a> {
    /// Where folders stay as long as it is under way.
    pub(super) fn new(durable: &'a Durable, folders_stay: RwLockReadGuard<'a, ()>) -> Self {
        let record = Record::default();
        Self { durable, record, moves: Vec::new(), removes: Vec::new(), _folders_stay: folders_stay }
    }

    /// Makes empty files, where they are not there.
    pub(super) fn mark<'p>(&mut self, paths: impl IntoIterator<Item = &'p PathBuf>) -> Result<(), Error> {
        for path in paths {
            self.durable.mark_now(path)?;
            self.record.add(&Step::Mark(self.durable.below_root(path)));
        }
        Ok(())
    }

    /// Writes what shall be at `path`.
    pub(super) fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.durable.folder(parent(path))?;
        let tmp = self.durable.tmp_name();
        let disk = &self.durable.disk;
        let mut file = disk.create_new(&tmp).at("create", &tmp)?;
        self.moves.push((tmp.clone(), path.to_owned()));
        disk.write(&mut file, bytes).at("write", &tmp)?;
        // Times say when something was pushed.
        let time = file.metadata().and_then(|metadata| metadata.modified()).at("look at", &tmp)?;
        self.record.add(&Step::Write { path: self.durable.below_root(path), time, bytes });
        Ok(())
    }

    /// As [`Self::write`], unless that is there already; says whether it was not. Each file that goes makes the next ones
    /// dearer: file systems take their time before they use its place again.
    pub(super) fn write_if_new(&mut self, path: &Path, bytes: &[u8]) -> Result<bool, Error> {
        let length = bytes.len() as u64;
        let is_there = fs::metadata(path).is_ok_and(|found| found.len() == length)
            && fs::read(path).is_ok_and(|found| found == bytes);
        if !is_there {
            self.write(path, bytes)?;
        }
        Ok(!is_there)
    }

    /// Takes a file along that holds these bytes and shall be at `path`.
    pub(super) fn adopt(&mut self, from: &Path, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.durable.folder(parent(path))?;
        let tmp = self.durable.tmp_name();
        self.durable.disk.rename(from, &tmp).at("rename", from)?;
        self.moves.push((tmp, path.to_owned()));
        self.record.add(&Step::Write { path: self.durable.below_root(path), time: SystemTime::now(), bytes });
        Ok(())
    }

    /// Takes a name away; false where it is not there.
    pub(super) fn remove(&mut self, path: &Path) -> Result<bool, Error> {
        let is_there = fs::exists(path).at("look at", path)?;
        if is_there {
            self.record.add(&Step::Remove(self.durable.below_root(path)));
            self.removes.push(path.to_owned());
        }
        Ok(is_there)
    }

    /// Says what will be taken away after it, so that it does not come back when the change is done again.
    pub(super) fn forget(&mut self, paths: &[PathBuf]) {
        for path in paths {
            self.record.add(&Step::Remove(self.durable.below_root(path)));
        }
    }

    /// Does it all, for good.
    pub(super) fn commit(self) -> Result<(), Error> {
        self.commit_with(|| ())
    }

    /// The same with what is taken when nothing is left to wait for, and handed back.
    pub(super) fn commit_with<G>(mut self, take: impl FnOnce() -> G) -> Result<G, Error> {
        if self.record.is_empty() {
            return Ok(take());
        }
        let applying = self.durable.journal.append(std::mem::take(&mut self.record))?;
        let taken = take();
        for (done, (from, to)) in self.moves.iter().enumerate() {
            if let Err(error) = self.durable.disk.rename(from, to) {
                let to = to.clone();
                self.moves.drain(..done);
                return Err(error).at("rename to", to);
            }
        }
        self.moves.clear();
        for path in &self.removes {
            self.durable.forget(path)?;
        }
        applying.done();
        Ok(taken)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        for (tmp, _) in &self.moves {
            // What is left would go with a collection anyway.
            let _ = fs::remove_file(tmp);
        }
    }
}
