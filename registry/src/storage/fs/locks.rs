//! What must not happen at the same time. Each lock is one of a few that all names share, by their hash.
//!
//! Taken in this order: a repository's, then content's, then an entry of the ledger, then a tag's, then a place's; the
//! feed's is the last one but that of what is seen, under which nobody waits for any other. Collection only ever tries to take one, holds it for a look and a removal, and goes on without where
//! a request has it.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash},
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError},
};

use oci::{Digest, RepoName, Tag};

const STRIPES: usize = 64;

#[derive(Debug)]
pub(super) struct Locks {
    repositories: [RwLock<()>; STRIPES],
    contents: [RwLock<()>; STRIPES],
    tags: [Mutex<()>; STRIPES],
    places: [Mutex<()>; STRIPES],
    seen: [RwLock<()>; STRIPES],
}

impl Default for Locks {
    fn default() -> Self {
        Self {
            repositories: [const { RwLock::new(()) }; STRIPES],
            contents: [const { RwLock::new(()) }; STRIPES],
            tags: [const { Mutex::new(()) }; STRIPES],
            places: [const { Mutex::new(()) }; STRIPES],
            seen: [const { RwLock::new(()) }; STRIPES],
        }
    }
}

impl Locks {
    /// While a manifest is pushed nothing is taken from its repository. Pushes run beside each other.
    pub(super) fn push(&self, repository: &RepoName) -> RwLockReadGuard<'_, ()> {
        self.repositories[stripe(repository)].read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn delete(&self, repository: &RepoName) -> RwLockWriteGuard<'_, ()> {
        self.repositories[stripe(repository)].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// None where a request has it.
    pub(super) fn try_delete(&self, repository: &RepoName) -> Option<RwLockWriteGuard<'_, ()>> {
        try_write(&self.repositories[stripe(repository)])
    }

    /// While a repository comes to hold content, the content does not go away.
    pub(super) fn hold(&self, digest: &Digest) -> RwLockReadGuard<'_, ()> {
        self.contents[stripe(digest)].read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn release(&self, digest: &Digest) -> RwLockWriteGuard<'_, ()> {
        self.contents[stripe(digest)].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// None where a request has it.
    pub(super) fn try_release(&self, digest: &Digest) -> Option<RwLockWriteGuard<'_, ()>> {
        try_write(&self.contents[stripe(digest)])
    }

    /// One moves a tag at a time, so that what points back from manifests to tags is never behind.
    pub(super) fn tags(&self, repository: &RepoName, tags: &[&Tag]) -> Vec<MutexGuard<'_, ()>> {
        // In one order, whoever takes them, and each once.
        let stripes: BTreeSet<_> = tags.iter().map(|tag| stripe(&(repository, tag))).collect();
        stripes.into_iter().map(|stripe| lock(&self.tags[stripe])).collect()
    }

    /// One brings content, and says who has it, at a time, and nobody judges meanwhile by what lies in its place.
    pub(super) fn place(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        lock(&self.places[stripe(digest)])
    }

    /// Nothing is taken from any repository or comes to one.
    pub(super) fn everything(&self) -> Vec<RwLockWriteGuard<'_, ()>> {
        let all = self.repositories.iter().chain(&self.contents);
        all.map(|lock| lock.write().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// Nobody sees a half of what is taken away: as long as it is looked at, nothing goes.
    pub(super) fn see(&self, repository: &RepoName) -> RwLockReadGuard<'_, ()> {
        self.seen[stripe(repository)].read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken when all that is left to do is to take names away.
    pub(super) fn hide(&self, repository: &RepoName) -> RwLockWriteGuard<'_, ()> {
        self.seen[stripe(repository)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Also where somebody panicked with it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_write(lock: &RwLock<()>) -> Option<RwLockWriteGuard<'_, ()>> {
    match lock.try_write() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn stripe(name: &impl Hash) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
    usize::try_from(hash % STRIPES as u64).unwrap_or_default()
}
