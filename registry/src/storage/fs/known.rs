//! What is known to be on the disk, so that folders need not be synced again and again.
//!
//! Who is about to put a name into a folder says so first, and again when it is there. A folder is settled when it was
//! synced after the last of these.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Folders that are remembered.
const MOST: usize = 32 << 10;

/// Folders by the hash of their path: two of one hash are not to be expected in the life of a registry.
#[derive(Debug, Default)]
pub(super) struct Known {
    hasher: RandomState,
    folders: Mutex<HashMap<u64, Folder>>,
}

#[derive(Debug, Default)]
struct Folder {
    /// It and those above it are on the disk.
    is_there: bool,
    /// How many names came since it is remembered, from one.
    names: u64,
    /// How many there were before it was synced last.
    synced: u64,
    /// Names that are about to come.
    coming: usize,
}

/// A name is about to come into a folder.
pub(super) struct Coming<'a> {
    known: &'a Known,
    folder: u64,
}

impl Known {
    /// That the folder is on the disk.
    pub(super) fn is_there(&self, folder: &Path) -> bool {
        self.folders().get(&self.hash(folder)).is_some_and(|folder| folder.is_there)
    }

    /// That all names which are in the folder are on the disk.
    pub(super) fn is_settled(&self, folder: &Path) -> bool {
        let settled = |folder: &Folder| folder.coming == 0 && folder.synced == folder.names + 1;
        self.folders().get(&self.hash(folder)).is_some_and(settled)
    }

    pub(super) fn coming(&self, folder: &Path) -> Coming<'_> {
        let folder = self.hash(folder);
        self.folders().entry(folder).or_default().coming += 1;
        Coming { known: self, folder }
    }

    /// To be asked before a folder is synced, and told afterwards.
    pub(super) fn names(&self, folder: &Path) -> u64 {
        self.folders().get(&self.hash(folder)).map_or(0, |folder| folder.names)
    }

    pub(super) fn synced(&self, folder: &Path, names: u64) {
        let mut folders = self.folders();
        let folder = folders.entry(self.hash(folder)).or_default();
        folder.synced = folder.synced.max(names + 1);
    }

    /// The folder is on the disk.
    pub(super) fn made(&self, folder: &Path) {
        let mut folders = self.folders();
        if folders.len() >= MOST {
            folders.retain(|_, folder| folder.coming > 0);
        }
        folders.entry(self.hash(folder)).or_default().is_there = true;
    }

    /// The folder is gone.
    pub(super) fn forget(&self, folder: &Path) {
        self.folders().remove(&self.hash(folder));
    }

    fn hash(&self, folder: &Path) -> u64 {
        self.hasher.hash_one(folder)
    }

    fn folders(&self) -> MutexGuard<'_, HashMap<u64, Folder>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut folders = self.known.folders();
        let folder = folders.entry(self.folder).or_default();
        folder.names += 1;
        folder.coming = folder.coming.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_settled_when_it_was_synced_after_the_last_name() {
        let (known, folder) = (Known::default(), Path::new("folder"));
        assert!(!known.is_settled(folder), "nothing is known of it");
        let sync = || {
            let names = known.names(folder);
            known.synced(folder, names);
        };
        sync();
        assert!(known.is_settled(folder));
        let coming = known.coming(folder);
        assert!(!known.is_settled(folder), "it may be there");
        sync();
        assert!(!known.is_settled(folder), "it may have come after that");
        drop(coming);
        assert!(!known.is_settled(folder));
        // Synced, but before another one came.
        let names = known.names(folder);
        drop(known.coming(folder));
        known.synced(folder, names);
        assert!(!known.is_settled(folder));
        sync();
        assert!(known.is_settled(folder));
        known.forget(folder);
        assert!(!known.is_settled(folder) && !known.is_there(folder));
    }
}
