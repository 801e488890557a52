//! What is read again and again, kept in memory: manifests, pages of tags and of states, small blobs, and larger blobs'
//! open files. Bounded in bytes. The files stay the only truth: nothing is answered from here that they would not answer.
//!
//! Flow: who reads takes a [`Ticket`] of the repository before looking at files, and keeps what was found under that
//! ticket. Who changes a repository holds a [`Change`] meanwhile. A ticket is good as long as no change has begun
//! since it was taken; none is given while a change runs.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use oci::{Digest, Reference, RepoName, Tag};

use super::{StatePage, StoredManifest, blob::OpenFile};

/// Bytes that everything here takes, about.
const CAPACITY: usize = 8 << 20;
const SHARDS: usize = 8;
/// Nothing larger is kept.
pub(super) const LARGEST: u64 = 64 << 10;
/// What an entry costs beside its content.
const ENTRY: usize = 512;
/// An open file costs no memory of ours to speak of, but there must not be thousands.
const OPEN_FILE: usize = 16 << 10;
/// Repositories share this many versions.
const VERSIONS: usize = 256;
/// Files of which is remembered that their content was right.
const TRUSTED: usize = 64 << 10;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Tagged(Tag),
    Manifest(Digest),
    Blob(Digest),
    Tags { last: Option<String>, n: usize },
    State { last: Option<String>, n: usize },
}

impl From<Reference> for Subject {
    fn from(reference: Reference) -> Self {
        match reference {
            Reference::Tag(tag) => Self::Tagged(tag),
            Reference::Digest(digest) => Self::Manifest(digest),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) repository: RepoName,
    pub(super) subject: Subject,
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Manifest(StoredManifest, Bytes),
    Small(Bytes),
    File(Arc<OpenFile>),
    Tags(Arc<(Vec<String>, bool)>),
    State(Arc<StatePage>),
}

impl Found {
    fn weight(&self) -> usize {
        ENTRY
            + match self {
                Self::Manifest(_, bytes) | Self::Small(bytes) => bytes.len(),
                Self::File(_) => OPEN_FILE,
                Self::State(page) => page.weight(),
                Self::Tags(page) => page.0.iter().map(|tag| tag.len() + size_of::<String>()).sum(),
            }
    }
}

/// What the files were when somebody began to look at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    version: u64,
    damaged: u64,
}

#[derive(Debug)]
struct Entry {
    ticket: Ticket,
    found: Found,
    /// Asked for since it was last thought of being dropped.
    used: bool,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Arc<Key>, Entry>,
    /// In the order in which they are thought of being dropped.
    queue: VecDeque<Arc<Key>>,
    weight: usize,
}

#[derive(Debug)]
pub(super) struct Cache {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// Low 16 bits: changes under way. The rest: changes that have ended.
    versions: [AtomicU64; VERSIONS],
    trusted: Mutex<HashSet<u64>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: Default::default(),
            versions: [const { AtomicU64::new(0) }; VERSIONS],
            trusted: Mutex::default(),
        }
    }
}

const ONE_ENDED: u64 = 1 << 16;
const UNDER_WAY: u64 = ONE_ENDED - 1;

impl Cache {
    /// None while the repository is being changed. `damaged` counts finds of damage, each of which makes everything
    /// doubtful.
    pub(super) fn ticket(&self, repository: &RepoName, damaged: u64) -> Option<Ticket> {
        let version = self.versions[self.slot(repository)].load(Ordering::SeqCst);
        (version & UNDER_WAY == 0).then_some(Ticket { version, damaged })
    }

    /// Whatever `now` is good for.
    pub(super) fn get(&self, key: &Key, now: Ticket) -> Option<Found> {
        let mut shard = self.shard(key);
        let entry = shard.entries.get_mut(key)?;
        if entry.ticket == now {
            entry.used = true;
            return Some(entry.found.clone());
        }
        None
    }

    /// Keeps what was found in files that were looked at after the ticket was taken.
    pub(super) fn keep(&self, key: Key, ticket: Ticket, found: Found) {
        let weight = found.weight();
        if weight as u64 > LARGEST + ENTRY as u64 {
            return;
        }
        let mut dropped = Vec::new();
        let mut shard = self.shard(&key);
        let key = Arc::new(key);
        let entry = Entry { ticket, found, used: false };
        if let Some(former) = shard.entries.insert(Arc::clone(&key), entry) {
            shard.weight -= former.found.weight();
            dropped.push(former);
        } else {
            shard.queue.push_back(key);
        }
        shard.weight += weight;
        while shard.weight > CAPACITY / SHARDS
            && let Some(key) = shard.queue.pop_front()
        {
            match shard.entries.get_mut(&key) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    shard.queue.push_back(key);
                }
                _ => dropped.extend(shard.take(&key)),
            }
        }
        // Files are closed without the lock.
        drop(shard);
        drop(dropped);
    }

    /// Forgets one thing.
    pub(super) fn forget(&self, key: &Key) {
        let mut shard = self.shard(key);
        let taken = shard.take(key);
        shard.queue.retain(|known| **known != *key);
        drop(shard);
        drop(taken);
    }

    /// To be held from before the first file is touched until after the last one.
    pub(super) fn change(self: &Arc<Self>, repository: &RepoName) -> Change {
        self.change_slot(self.slot(repository))
    }

    fn change_slot(self: &Arc<Self>, slot: usize) -> Change {
        self.versions[slot].fetch_add(1, Ordering::SeqCst);
        Change { cache: Arc::clone(self), slot }
    }

    /// The same for all repositories.
    pub(super) fn change_all(self: &Arc<Self>) -> Vec<Change> {
        (0..VERSIONS).map(|slot| self.change_slot(slot)).collect()
    }

    /// Whether the content of this file, as it is now, was compared with its digest since the start.
    pub(super) fn is_trusted(&self, file: &impl Hash) -> bool {
        let hash = self.hasher.hash_one(file);
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash)
    }

    pub(super) fn trust(&self, file: &impl Hash) {
        let hash = self.hasher.hash_one(file);
        let mut trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        if trusted.len() >= TRUSTED {
            trusted.clear();
        }
        trusted.insert(hash);
    }

    fn slot(&self, repository: &RepoName) -> usize {
        usize::try_from(self.hasher.hash_one(repository) % VERSIONS as u64).unwrap_or_default()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn take(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.weight -= entry.found.weight();
        Some(entry)
    }
}

/// A repository's files are being changed.
#[derive(Debug)]
pub(super) struct Change {
    cache: Arc<Cache>,
    slot: usize,
}

impl Drop for Change {
    fn drop(&mut self) {
        self.cache.versions[self.slot].fetch_add(ONE_ENDED - 1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(repository: &str, tag: &str) -> Key {
        Key { repository: repository.parse().unwrap(), subject: Subject::Tagged(tag.parse().unwrap()) }
    }

    fn small(length: usize) -> Found {
        Found::Small(vec![0; length].into())
    }

    #[test]
    fn what_was_read_before_a_change_is_not_answered_after_it() {
        let cache = Arc::new(Cache::default());
        let key = key("a", "v1");
        let before = cache.ticket(&key.repository, 0).unwrap();
        cache.keep(key.clone(), before, small(1));
        assert!(cache.get(&key, before).is_some());

        let (one, other) = (cache.change(&key.repository), cache.change(&key.repository));
        assert!(cache.ticket(&key.repository, 0).is_none(), "nothing is answered while something changes");
        drop(one);
        assert!(cache.ticket(&key.repository, 0).is_none());
        drop(other);

        let after = cache.ticket(&key.repository, 0).unwrap();
        assert!(cache.get(&key, after).is_none());
        // Whoever read before the change and comes only now.
        cache.keep(key.clone(), before, small(1));
        assert!(cache.get(&key, after).is_none());
        cache.keep(key.clone(), after, small(1));
        assert!(cache.get(&key, after).is_some());
        let damage_found = cache.ticket(&key.repository, 1).unwrap();
        assert!(cache.get(&key, damage_found).is_none());
        cache.forget(&key);
        assert!(cache.get(&key, after).is_none());
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let cache = Cache::default();
        let wanted = key("a", "wanted");
        let ticket = cache.ticket(&wanted.repository, 0).unwrap();
        cache.keep(wanted.clone(), ticket, small(1000));
        for n in 0..2000 {
            let key = key("a", &format!("v{n}"));
            cache.keep(key, ticket, small(30_000));
            assert!(cache.get(&wanted, ticket).is_some());
        }
        let weights = || cache.shards.iter().map(|shard| shard.lock().unwrap());
        assert!(weights().all(|shard| shard.weight <= CAPACITY / SHARDS));
        assert!(weights().all(|shard| shard.entries.len() == shard.queue.len()));
        assert!(weights().map(|shard| shard.weight).sum::<usize>() > CAPACITY / 2);
        cache.keep(key("a", "large"), ticket, small(1 << 20));
        assert!(cache.get(&key("a", "large"), ticket).is_none());
    }

    #[test]
    fn trust_is_in_one_file_as_it_is() {
        let cache = Cache::default();
        cache.trust(&("digest", 1));
        assert!(cache.is_trusted(&("digest", 1)));
        assert!(!cache.is_trusted(&("digest", 2)));
    }
}
