//! The journal: what changes are about to do, synced before they do it, so that each waits for the disk once.
//!
//! A change makes its files under names that nobody looks at, appends a record of all that it does, waits until that is
//! on the disk, and then gives its files their names without syncing anything. Records that come while others are being
//! written share the next write and the next sync. By and by a checkpoint puts everything on the disk and begins the
//! journal anew; a start does everything that is in the journal again, in its order, before anything else.
//!
//! What holds:
//!
//! - What anybody can see of a change is on the disk, in its folder or as a record.
//! - Two changes of one path are done in the order of their records: who changes a path holds a lock for both.
//! - Files that records write are changed by records alone. Content is the exception: it is right under its name
//!   whoever puts it there, so that no record ever removes it, and it may come back without anybody having it.
//! - Records lie in two files in turn. A checkpoint sends what comes to the other one, waits for the changes that have
//!   records in the first, syncs the file system, and gives the file a new number then: what it held counts no more.
//! - A record is bound to its file's nonce, so that bytes of former ones, which clients choose, are never taken for one. The
//!   first that is torn ends its file: nothing behind it was acknowledged. It may be whole, though, so that each start
//!   begins both files anew before the first record.
//! - When a record can't be written, or a change can't do what its record says, the journal is in doubt: nothing more is
//!   taken until a checkpoint has begun both files anew, so that a change that failed is done later only if nothing
//!   came after it.
//! - When a checkpoint can't sync, the system may have dropped what it could not write, and says so once. Nothing is
//!   taken any more then; the next start does everything again. Nor is anything taken where a start has no room for what it
//!   has to do again, until that was done. Nothing is collected then, for what is in the journal alone may be what keeps
//!   something.

mod lane;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub(super) use self::record::{Record, Step};
use self::{
    lane::{Lane, MOST, Records, begin_both},
    state::{Batch, Obstacle, State, Trust, again},
};
use super::{disk::Disk, locks::lock};
use crate::storage::{Error, IoContext as _};

#[derive(Debug)]
pub(super) struct Journal {
    disk: Disk,
    folder: PathBuf,
    /// Open from the start, so that the system tells of all that it could not write since.
    root: File,
    state: Mutex<State>,
    /// A write ended, or the last change that a checkpoint waits for.
    changed: Condvar,
    /// There may be something to do for who keeps the journal short.
    due: Condvar,
    checkpointing: Mutex<()>,
}

/// What a journal holds that is opened, in its order. No more than one record is in memory.
#[derive(Debug)]
pub(super) struct Left {
    files: [Records<BufReader<File>>; 2],
    folder: PathBuf,
    first: Option<Vec<u8>>,
}

impl Left {
    fn of(files: [Records<BufReader<File>>; 2], folder: PathBuf) -> Result<Self, Error> {
        let mut this = Self { files, folder, first: None };
        this.first = this.take()?;
        Ok(this)
    }

    /// The next record.
    pub(super) fn take(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.first.is_some() {
            return Ok(self.first.take());
        }
        for file in &mut self.files {
            if let Some(record) = file.next().at("read", &self.folder)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

/// A change whose record is on the disk, and that has to be done now.
#[derive(Debug)]
pub(super) struct Applying<'a> {
    journal: &'a Journal,
    lane: usize,
    is_done: bool,
}

impl Journal {
    /// Opens what is in a folder below the root, and what it holds. That has to be done again, and a checkpoint made, before
    /// anything else is appended.
    pub(super) fn open(disk: Disk, root: &Path, folder: PathBuf) -> Result<(Self, Left), Error> {
        let (mut lanes, left) = open_both(&disk, &folder)?;
        let begun = if left.first.is_none() {
            // Behind a torn record others may lie whole, which the next one would make valid again. Who made the files
            // may have been cut short before it synced their names.
            begin_both(&disk, &mut lanes).and_then(|()| disk.sync_folder(&folder))
        } else {
            Err(io::Error::other("what the journal holds has to be done again first"))
        };
        let trust = begun.map_or_else(Trust::Doubtful, |()| Trust::Good);
        let current = usize::from(lanes[1].number() < lanes[0].number());
        let state = State {
            lanes,
            current,
            most: MOST,
            waiting: Batch::default(),
            is_writing: false,
            trust,
            since: None,
            is_closing: false,
        };
        let this = Self {
            root: File::open(root).at("open", root)?,
            disk,
            folder,
            state: Mutex::new(state),
            changed: Condvar::new(),
            due: Condvar::new(),
            checkpointing: Mutex::default(),
        };
        Ok((this, left))
    }

    /// Changes wait for a checkpoint where one file has so many bytes; it begins at half of them.
    pub(super) fn limit(&self, bytes: u64) {
        self.state().most = bytes.min(MOST);
    }

    /// Returns when the record is on the disk. What it says is to be done then. Refuses one that is too long
    /// for a start to have it in memory.
    pub(super) fn append(&self, record: Record) -> Result<Applying<'_>, Error> {
        let too_long =
            || io::Error::new(io::ErrorKind::InvalidInput, "a change is too large for the journal");
        let sealed = record.seal().ok_or_else(too_long).at("write to", &self.folder)?;
        let mut state = self.with_room()?;
        let outcome = state.waiting.add(sealed);
        loop {
            match outcome.get() {
                Some(Ok(lane)) => return Ok(Applying { journal: self, lane: *lane, is_done: false }),
                Some(Err(error)) => return Err(again(error)).at("write to", &self.folder),
                None if state.is_writing => state = wait(&self.changed, state),
                None => state = self.write(state),
            }
        }
    }

    /// Makes everything that is done durable, and what is in the journal worthless.
    pub(super) fn checkpoint(&self) -> Result<(), Error> {
        self.checkpoint_alone(&lock(&self.checkpointing))
    }

    fn checkpoint_alone(&self, _one_at_a_time: &MutexGuard<'_, ()>) -> Result<(), Error> {
        let Some(old) = self.turn()? else { return Ok(()) };
        if let Err(error) = self.disk.sync_everything(&self.root) {
            tracing::error!(%error, "the disk could not be synced: nothing more is taken until the next start");
            self.state().trust = Trust::Lost(again(&error));
            return Err(error).at("sync what is listed in", &self.folder);
        }
        let begun = old.iter().try_for_each(|lane| self.begin_anew(*lane));
        let mut state = self.state();
        match &begun {
            Err(error) => state.doubt(error),
            Ok(()) if old.len() == state.lanes.len() => {
                state.trust = Trust::Good;
                state.current = old[0];
            }
            Ok(()) => {}
        }
        drop(state);
        self.due.notify_one();
        begun.at("begin anew", &self.folder)
    }

    /// Makes checkpoints when they are due, until the journal is closed.
    pub(super) fn keep_short(&self) {
        let mut state = self.state();
        while !state.is_closing {
            state = match state.due_in() {
                None => wait(&self.due, state),
                Some(Duration::ZERO) => {
                    drop(state);
                    if let Err(error) = self.checkpoint()
                        && self.is_taking()
                    {
                        tracing::error!(%error, "what was taken stays in the journal, and more may be refused for a while");
                    }
                    self.state()
                }
                Some(left) => self.due.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// False where nothing is taken.
    pub(super) fn is_taking(&self) -> bool {
        self.state().trust.lasting().is_none()
    }

    /// The same as an error.
    pub(super) fn must_take(&self) -> Result<(), Error> {
        let lasting = self.state().trust.lasting();
        lasting.map_or(Ok(()), Err).at("write to", &self.folder)
    }

    /// Takes nothing until [`Self::caught_up`], or the next start.
    pub(super) fn fall_behind(&self, error: io::Error) {
        self.state().trust = Trust::Behind(error);
    }

    pub(super) fn is_behind(&self) -> bool {
        matches!(self.state().trust, Trust::Behind(_))
    }

    /// What is here and was not done again yet.
    pub(super) fn left(&self) -> Result<Left, Error> {
        open_both(&self.disk, &self.folder).map(|(_, left)| left)
    }

    /// All of that was done: from now on changes are taken.
    pub(super) fn caught_up(&self) -> Result<(), Error> {
        self.state().trust = Trust::Doubtful(io::Error::other("the journal has to be begun anew"));
        self.checkpoint()
    }

    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.due.notify_one();
    }

    /// Whether all that is in the journal is somewhere else too.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.state().lanes.iter().all(Lane::is_empty)
    }

    /// Waits until a record can go to the current file.
    fn with_room(&self) -> Result<MutexGuard<'_, State>, Error> {
        let mut turn = None;
        loop {
            let state = self.state();
            match state.obstacle() {
                None => return Ok(state),
                Some(Obstacle::Lasting(error)) => return Err(error).at("write to", &self.folder),
                Some(Obstacle::Passing) => drop(state),
            }
            match &turn {
                // Who had the turn before may have made room for all.
                None => turn = Some(lock(&self.checkpointing)),
                Some(turn) => self.checkpoint_alone(turn)?,
            }
        }
    }

    /// Writes all that waits, for everybody.
    fn write<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let batch = std::mem::take(&mut state.waiting);
        let (current, was_idle) = (state.current, state.since.is_none());
        let outcome = if let Trust::Good = state.trust {
            let mut lane = state.lanes[current].writer();
            state.is_writing = true;
            drop(state);
            let written = lane.write(&self.disk, &batch.records);
            state = self.state();
            state.is_writing = false;
            state.lanes[current].wrote(lane);
            state.wrote(current, batch.records.len(), written)
        } else {
            Err(state.trust.error())
        };
        let _ = batch.outcome.set(outcome);
        if was_idle || state.is_due_now() {
            self.due.notify_one();
        }
        self.changed.notify_all();
        state
    }

    /// Sends what comes to the other file, and waits for what has come to this one; both where they are in doubt. Says
    /// which ones can be begun anew when all is synced, oldest first.
    fn turn(&self) -> Result<Option<Vec<usize>>, Error> {
        let mut state = self.state();
        while state.is_writing {
            state = wait(&self.changed, state);
        }
        state.since = None;
        let current = state.current;
        let old = match &state.trust {
            Trust::Behind(error) | Trust::Lost(error) => {
                return Err(again(error)).at("write to", &self.folder);
            }
            Trust::Good if state.lanes[current].is_empty() => return Ok(None),
            Trust::Good => vec![current],
            Trust::Doubtful(_) if state.lanes[0].number() <= state.lanes[1].number() => vec![0, 1],
            Trust::Doubtful(_) => vec![1, 0],
        };
        if old.len() == 1 {
            state.current = 1 - current;
        }
        while old.iter().any(|lane| state.lanes[*lane].applying > 0) {
            state = wait(&self.changed, state);
        }
        Ok(Some(old))
    }

    /// Only one checkpoint at a time does this, and nobody writes to the file meanwhile.
    fn begin_anew(&self, lane: usize) -> io::Result<()> {
        let state = self.state();
        let number = 1 + state.lanes.iter().map(Lane::number).max().unwrap_or_default();
        let mut writer = state.lanes[lane].writer();
        drop(state);
        writer.begin(&self.disk, number)?;
        self.state().lanes[lane].wrote(writer);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Applying<'_> {
    /// All that the record says is done.
    pub(super) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Applying<'_> {
    fn drop(&mut self) {
        let mut state = self.journal.state();
        if !self.is_done {
            state.doubt(&io::Error::other("a change could not do what its record says"));
            self.journal.due.notify_one();
        }
        state.lanes[self.lane].applying -= 1;
        if state.lanes[self.lane].applying == 0 {
            self.journal.changed.notify_all();
        }
    }
}

/// Both files, and what they hold, oldest first.
fn open_both(disk: &Disk, folder: &Path) -> Result<([Lane; 2], Left), Error> {
    let (first, of_first) = Lane::open(disk, &folder.join("0"))?;
    let (second, of_second) = Lane::open(disk, &folder.join("1"))?;
    let is_in_order = first.number() <= second.number();
    let files = if is_in_order { [of_first, of_second] } else { [of_second, of_first] };
    Ok(([first, second], Left::of(files, folder.to_owned())?))
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition.wait(state).unwrap_or_else(PoisonError::into_inner)
}
