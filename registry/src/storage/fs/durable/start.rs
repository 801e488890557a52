//! Opening what may have been left at any moment.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, RwLock},
    thread,
    time::SystemTime,
};

use super::{Durable, parent};
use crate::storage::{
    Error, IoContext as _,
    fs::{
        disk::Disk,
        folder,
        journal::{Journal, Left, Record, Step},
        layout::Layout,
    },
};

impl Durable {
    /// Makes the folders that are missing, and does again what the journal holds. Where there is no room for that, nothing
    /// is taken until [`Self::catch_up`] has done all of it; what is there can be read.
    pub(in super::super) fn open(layout: &Layout, disk: Disk) -> Result<Self, Error> {
        for folder in layout.folders() {
            make_from_root(&disk, layout.root(), &folder)?;
        }
        empty(&layout.tmp())?;
        let (journal, mut left) = Journal::open(disk.clone(), layout.root(), layout.journal())?;
        let journal = Arc::new(journal);
        let mut this = Self {
            disk,
            root: layout.root().to_owned(),
            tmp: layout.tmp(),
            empty: layout.empty(),
            journal,
            keeper: None,
            filling: RwLock::default(),
        };
        match this.replay_all(&mut left) {
            Err(error @ Error::Full { .. }) => {
                tracing::error!(
                    %error,
                    "there is no room to do again what the journal holds: some of it is missing, and nothing is taken, \
                     until there is room"
                );
                this.journal.fall_behind(io::ErrorKind::StorageFull.into());
            }
            done => done?,
        }
        let journal = Arc::clone(&this.journal);
        let keeper = thread::Builder::new().name("journal".into()).spawn(move || journal.keep_short());
        this.keeper = Some(keeper.at("start a thread for", layout.journal())?);
        Ok(this)
    }

    /// Does everything again and has it on the disk. On a full disk all for which there is room, so that nothing stays at
    /// what it was in between.
    fn replay_all(&self, left: &mut Left) -> Result<(), Error> {
        let (mut changes, mut full) = (0_u64, None);
        while let Some(record) = left.take()? {
            let damaged = Error::Damaged { path: self.root.clone(), what: "its journal should hold changes" };
            for step in Record::steps(&record).ok_or(damaged)? {
                match self.replay(step) {
                    Err(error @ Error::Full { .. }) => full = full.or(Some(error)),
                    done => done?,
                }
            }
            changes += 1;
        }
        if let Some(full) = full {
            return Err(full);
        }
        if changes > 0 {
            tracing::info!(changes, "what the journal held was done again");
            self.journal.caught_up()?;
        }
        Ok(())
    }

    /// Does again what there was no room for, where nobody looks meanwhile.
    pub(in super::super) fn catch_up(&self) -> Result<(), Error> {
        self.replay_all(&mut self.journal.left()?)
    }

    /// Does again what a change did, or was about to do.
    fn replay(&self, step: Step<'_>) -> Result<(), Error> {
        match step {
            Step::Mark(path) => self.mark_now(&self.root.join(path)),
            Step::Remove(path) => self.forget(&self.root.join(path)).map(drop),
            Step::Write { path, time, bytes } => {
                let path = self.root.join(path);
                match self.write_again(&path, time, bytes) {
                    // A full disk takes what is there already, in its own place.
                    Err(Error::Full { .. }) if fs::read(&path).is_ok_and(|found| found == bytes) => {
                        self.write_over(&path, time, bytes)
                    }
                    written => written,
                }
            }
        }
    }

    fn write_again(&self, path: &Path, time: SystemTime, bytes: &[u8]) -> Result<(), Error> {
        let tmp = self.tmp_name();
        let write = || {
            self.folder(parent(path))?;
            let mut file = self.disk.create_new(&tmp).at("create", &tmp)?;
            self.disk.write(&mut file, bytes).at("write", &tmp)?;
            file.set_modified(time).at("set the time of", &tmp)?;
            self.disk.rename(&tmp, path).at("rename to", path)
        };
        write().inspect_err(|_| {
            // Its room is wanted.
            let _ = fs::remove_file(&tmp);
        })
    }

    /// Writes what a file says once more: only what is written is synced, also where a former sync has failed.
    fn write_over(&self, path: &Path, time: SystemTime, bytes: &[u8]) -> Result<(), Error> {
        let file = self.disk.open_or_create(path).at("open", path)?;
        self.disk.write_at(&file, 0, bytes).at("write", path)?;
        file.set_modified(time).at("set the time of", path)
    }
}

/// Makes one of the folders that are there from the start, for good.
fn make_from_root(disk: &Disk, root: &Path, folder: &Path) -> Result<(), Error> {
    if folder == root {
        return Ok(());
    }
    make_from_root(disk, root, parent(folder))?;
    match disk.create_folder(folder) {
        // Also where it was there: who made it may have been cut short.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at("create", folder),
        _ => disk.sync_folder(parent(folder)).at("sync", parent(folder)),
    }
}

/// Takes away all that is in a folder.
fn empty(folder: &Path) -> Result<(), Error> {
    for name in folder::names(folder)? {
        let leftover = folder.join(name);
        let removed =
            if leftover.is_dir() { fs::remove_dir_all(&leftover) } else { fs::remove_file(&leftover) };
        removed.at("remove", leftover)?;
    }
    Ok(())
}
