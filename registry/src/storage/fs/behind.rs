//! A start that had no room for all that the journal holds: what there is can be read, nothing is taken, and the rest is
//! done as soon as there is room.

use std::{
    sync::{Arc, PoisonError, RwLockReadGuard, Weak},
    thread,
    time::{Duration, Instant},
};

use super::Store;
use crate::storage::{Error, IoContext as _};

/// How often is looked whether there is more room.
const PAUSE: Duration = Duration::from_secs(2);
/// So many bytes more are worth an attempt.
const MORE: u64 = 64 << 10;
/// The same for time: a quota of the file system shows in none of its figures.
const LONGEST: Duration = Duration::from_secs(300);

/// What can still be written.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    bytes: u64,
    files: u64,
}

impl Room {
    fn is_worth_an_attempt(self, last: Self) -> bool {
        self.bytes >= last.bytes.saturating_add(MORE) || (last.files == 0 && self.files > 0)
    }
}

impl Store {
    /// Fails where nothing is taken.
    pub(crate) fn must_take(&self) -> Result<(), Error> {
        self.durable.journal.must_take()
    }

    /// As long as it is held, no change of a former run becomes visible.
    pub(crate) fn settled(&self) -> RwLockReadGuard<'_, ()> {
        self.settled.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does again what the start had no room for. Reading waits meanwhile, so that nobody sees what was in between.
    pub(super) fn catch_up(&self) -> Result<(), Error> {
        if !self.durable.journal.is_behind() {
            return Ok(());
        }
        let nobody_reads = self.settled.write().unwrap_or_else(PoisonError::into_inner);
        let nothing_changes = (self.locks.everything(), self.cache.change_all());
        let done = self.durable.catch_up();
        self.listings.forget_all();
        self.ledger.forget();
        self.filled.forget();
        let found = self.deleting.reload(&self.layout);
        drop((nobody_reads, nothing_changes));
        done.and(found)?;
        self.end_deletions();
        Ok(())
    }

    /// Looks for room, where the start had too little, until there is enough.
    pub(crate) fn await_room(self: &Arc<Self>) -> Result<(), Error> {
        if self.durable.journal.is_behind() {
            let this = Arc::downgrade(self);
            let watch = thread::Builder::new().name("room".into()).spawn(move || watch(&this));
            watch.at("start a thread for", self.layout.root())?;
        }
        Ok(())
    }

    fn left(&self) -> Result<Room, Error> {
        let root = self.layout.root();
        let stat = rustix::fs::statvfs(root).map_err(std::io::Error::from).at("look at", root)?;
        Ok(Room { bytes: stat.f_bavail * stat.f_frsize, files: stat.f_favail })
    }
}

fn watch(store: &Weak<Store>) {
    let (mut last, mut tried) = (Room::default(), Instant::now());
    loop {
        thread::sleep(PAUSE);
        let Some(store) = store.upgrade().filter(|store| store.durable.journal.is_behind()) else { return };
        let is_time = tried.elapsed() >= LONGEST;
        if !is_time && !store.left().is_ok_and(|now| now.is_worth_an_attempt(last)) {
            continue;
        }
        match store.catch_up() {
            Ok(()) => {
                tracing::info!("there is room again: nothing is missing any more, and changes are taken");
            }
            Err(error) => tracing::warn!(%error, "what the journal holds can't be done again yet"),
        }
        (last, tried) = (store.left().unwrap_or_default(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_room_is_worth_an_attempt() {
        let room = |bytes, files| Room { bytes, files };
        assert!(room(MORE, 0).is_worth_an_attempt(Room::default()));
        assert!(!room(MORE - 1, 0).is_worth_an_attempt(Room::default()), "that is not more to speak of");
        assert!(!room(MORE, 9).is_worth_an_attempt(room(MORE, 8)));
        assert!(room(MORE, 1).is_worth_an_attempt(room(MORE, 0)), "it were names that lacked");
    }
}
