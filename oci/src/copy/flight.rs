//! One at a time for each digest, and what the last one found out. Bounded: what is forgotten costs a request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::{Digest, RepoName};

/// Digests that are remembered.
const MOST: usize = 20_000;
/// Repositories that are remembered of each.
const MOST_PLACES: usize = 16;

/// Who has what at the target.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<Places>>>>);

/// Repositories of the target that have it for certain.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<RepoName>);

impl Flights {
    /// Waits until nobody else is at work with this digest.
    pub(super) async fn join(&self, digest: &Digest) -> OwnedMutexGuard<Places> {
        let flight = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if flights.len() >= MOST {
                // Those that somebody holds are of use to others.
                flights.retain(|_, flight| Arc::strong_count(flight) > 1);
            }
            Arc::clone(flights.entry(digest.clone()).or_default())
        };
        flight.lock_owned().await
    }
}

impl Places {
    pub(super) fn has(&self, repository: &RepoName) -> bool {
        self.0.contains(repository)
    }

    /// One to mount from.
    pub(super) fn any(&self) -> Option<&RepoName> {
        self.0.last()
    }

    pub(super) fn add(&mut self, repository: &RepoName) {
        if self.0.len() < MOST_PLACES && !self.has(repository) {
            self.0.push(repository.clone());
        }
    }

    /// It turned out not to be there.
    pub(super) fn forget(&mut self, repository: &RepoName) {
        self.0.retain(|known| known != repository);
    }
}
