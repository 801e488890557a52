//! What is known to be on the disk, so that folders need not be synced again and again.
//!
//! Who is about to put a name into a folder says so first, and again when it is there. A folder is settled when it was
//! synced after the last of these.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Folders that are remembered.
const MOST: usize = 32 << 10;

/// Folders by the hash of their path: two of one hash are not to be expected in the life of a registry.
#[derive(Debug, Default)]
pub(super) struct Known {
    hasher: RandomState,
    folders: Mutex<HashMap<u64, Folder>>,
    /// Never the same again, also for folders that were forgotten meanwhile.
    versions: AtomicU64,
}

#[derive(Debug, Default)]
struct Folder {
    /// It and those above it are on the disk.
    is_there: bool,
    /// Another one with each name that comes.
    version: u64,
    /// The version when it was synced last.
    synced: Option<u64>,
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
        let settled = |folder: &Folder| folder.coming == 0 && folder.synced == Some(folder.version);
        self.folders().get(&self.hash(folder)).is_some_and(settled)
    }

    pub(super) fn coming(&self, folder: &Path) -> Coming<'_> {
        let folder = self.hash(folder);
        self.folders().entry(folder).or_insert_with(|| self.unknown()).coming += 1;
        Coming { known: self, folder }
    }

    /// To be asked before a folder is synced, and told afterwards.
    pub(super) fn version(&self, folder: &Path) -> u64 {
        self.folders().entry(self.hash(folder)).or_insert_with(|| self.unknown()).version
    }

    pub(super) fn synced(&self, folder: &Path, version: u64) {
        if let Some(folder) = self.folders().get_mut(&self.hash(folder)) {
            folder.synced = folder.synced.max(Some(version));
        }
    }

    /// The folder is on the disk.
    pub(super) fn made(&self, folder: &Path) {
        let mut folders = self.folders();
        if folders.len() >= MOST {
            folders.retain(|_, folder| folder.coming > 0);
        }
        folders.entry(self.hash(folder)).or_insert_with(|| self.unknown()).is_there = true;
    }

    /// The folder is gone.
    pub(super) fn forget(&self, folder: &Path) {
        self.folders().remove(&self.hash(folder));
    }

    fn unknown(&self) -> Folder {
        Folder { version: self.next(), ..Folder::default() }
    }

    fn next(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed)
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
        folder.version = self.known.next();
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
            let version = known.version(folder);
            known.synced(folder, version);
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
        let version = known.version(folder);
        drop(known.coming(folder));
        known.synced(folder, version);
        assert!(!known.is_settled(folder));
        sync();
        assert!(known.is_settled(folder));
        // Forgotten while it is being synced.
        let version = known.version(folder);
        known.forget(folder);
        drop(known.coming(folder));
        known.synced(folder, version);
        assert!(!known.is_settled(folder));
        known.forget(folder);
        assert!(!known.is_settled(folder) && !known.is_there(folder));
    }
}
