//! What sessions hold that are under way in a path with a quota: at most as much again as the quota, which counts only
//! what was pushed. Without that whoever may push a little could fill the disk.
//!
//! Sessions from before the start count once somebody goes on with them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use oci::RepoName;

use super::{super::Store, Upload, room::MAX_UPLOADS};
use crate::storage::{Error, UploadId};

/// So much they may hold under any quota: what is there already costs nothing, but is known only when it has come.
const LEAST: u64 = 1 << 20;

/// Bytes of each session that received some.
#[derive(Debug, Default)]
pub(in super::super) struct Held(Mutex<HashMap<UploadId, (RepoName, u64)>>);

impl Held {
    pub(super) fn forget(&self, id: UploadId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Takes note of what a session is about to hold, unless that is too much together with others.
    fn set(&self, upload: &Upload, bytes: u64, most: u64, beside: impl Fn(&RepoName) -> bool) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = held.iter().filter(|(id, (repository, _))| **id != upload.id() && beside(repository));
        let others: u64 = others.map(|(_, (_, bytes))| bytes).sum();
        let fits = others.saturating_add(bytes) <= most;
        if fits {
            held.insert(upload.id(), (upload.repository().clone(), bytes));
        }
        fits
    }

    /// Forgets sessions that ended while they received.
    fn retain(&self, is_there: impl Fn(UploadId) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| is_there(*id));
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn of(&self, wanted: impl Fn(&RepoName) -> bool) -> Vec<UploadId> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter(|(_, (repository, _))| wanted(repository)).map(|(id, _)| *id).collect()
    }
}

impl Store {
    /// Fails where a session would hold too much with so many bytes more.
    pub(crate) fn hold(&self, upload: &Upload, more: u64) -> Result<(), Error> {
        let governing = self.ledger.governing();
        let Some(index) = governing.of(upload.repository()) else { return Ok(()) };
        let governed = &governing.all()[index];
        let Some(quota) = governed.quota else { return Ok(()) };
        let most = quota.max(LEAST);
        let beside = |repository: &RepoName| governing.of(repository) == Some(index);
        let bytes = upload.received().saturating_add(more);
        let is_there = |id| self.layout.upload(id).exists();
        if self.uploads.held.len() > 2 * MAX_UPLOADS {
            self.uploads.held.retain(is_there);
        }
        if self.uploads.held.set(upload, bytes, most, beside) {
            return Ok(());
        }
        self.uploads.held.retain(is_there);
        // What nobody goes on with makes room.
        self.end_abandoned_uploads(self.uploads.held.of(beside).into_iter(), usize::MAX)?;
        if self.uploads.held.set(upload, bytes, most, beside) {
            return Ok(());
        }
        Err(Error::UploadsOverQuota { path: governed.path.clone(), most })
    }
}
