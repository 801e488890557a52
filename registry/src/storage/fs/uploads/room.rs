//! That there are not too many sessions.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{
    super::{Store, folder},
    data,
    held::Held,
    owners::Owners,
};
use crate::storage::{Error, UploadId};

/// Sessions at the same time, in all repositories: each takes three files' room.
pub(super) const MAX_UPLOADS: usize = 10_000;
/// Of them make room for others at once where there are too many: one in so many.
const MAKES_ROOM: usize = 10;
/// How often it is tried to make room for more.
pub(super) const MAKE_ROOM: Duration = Duration::from_secs(10);
/// Folders that are kept for the next sessions.
const SPARES: usize = 16;

/// How many sessions there are.
#[derive(Debug)]
pub(in super::super) struct Count {
    /// Never too few for long: what is not counted is found when there seem to be too many.
    now: AtomicUsize,
    made_room: Mutex<Option<Instant>>,
    /// Folders of sessions that have ended, without data. Taking one is cheaper than making one.
    spares: Mutex<Vec<PathBuf>>,
    pub(super) held: Held,
    pub(super) owners: Owners,
}

impl Count {
    pub(in super::super) fn new(now: usize) -> Self {
        Self {
            now: now.into(),
            made_room: Mutex::default(),
            spares: Mutex::default(),
            held: Held::default(),
            owners: Owners::default(),
        }
    }

    pub(super) fn take_spare(&self) -> Option<PathBuf> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) fn add(&self) {
        self.now.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, id: UploadId) {
        self.held.forget(id);
        self.owners.forget(id);
        let fewer = |now: usize| Some(now.saturating_sub(1));
        let _ = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }
}

impl Store {
    /// Refuses more than `most` sessions.
    pub(in super::super) fn make_room_for_upload(&self, most: usize) -> Result<(), Error> {
        if self.uploads.now.load(Ordering::Relaxed) < most {
            return Ok(());
        }
        let mut made_room = self.uploads.made_room.lock().unwrap_or_else(PoisonError::into_inner);
        if made_room.is_none_or(|last| last.elapsed() > MAKE_ROOM) {
            self.end_old_uploads(most.div_ceil(MAKES_ROOM))?;
            let left = folder::names(&self.layout.uploads())?.len();
            self.uploads.now.store(left, Ordering::Relaxed);
            *made_room = Some(Instant::now());
        }
        match self.uploads.now.load(Ordering::Relaxed) {
            now if now < most => Ok(()),
            now => Err(Error::TooManyUploads(now)),
        }
    }

    /// Whether a session has received nothing, and when it last received something.
    pub(in super::super) fn upload_touched(&self, id: UploadId) -> Option<(bool, SystemTime)> {
        let data = fs::metadata(data(&self.layout.upload(id))).ok()?;
        Some((data.len() == 0, data.modified().ok()?))
    }

    /// Takes a session away with what it received.
    pub(in super::super) fn remove_upload(&self, id: UploadId) -> io::Result<()> {
        // Of several who do this one succeeds, and nobody comes upon what the folder is used for next.
        let gone = self.durable.tmp_name();
        self.durable.disk.rename(&self.layout.upload(id), &gone)?;
        self.uploads.remove(id);
        // What is left goes with a collection.
        let _ = self.durable.disk.remove_tree(&gone);
        Ok(())
    }

    /// Ends a session whose data has gone elsewhere.
    pub(super) fn recycle_upload(&self, id: UploadId) -> io::Result<()> {
        let mut spares = self.uploads.spares.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() >= SPARES {
            drop(spares);
            return self.remove_upload(id);
        }
        let spare = self.durable.spare_name();
        self.durable.disk.rename(&self.layout.upload(id), &spare)?;
        spares.push(spare);
        drop(spares);
        self.uploads.remove(id);
        Ok(())
    }
}
