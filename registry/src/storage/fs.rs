//! Storage in a folder: plain files that a person can read, one server that writes them.
//!
//! What is acknowledged is on the disk ([`durable`]); what a crash leaves unfinished is invisible. All functions
//! block and are called off the runtime's threads.

mod blobs;
mod change;
mod check;
mod collect;
mod disk;
mod durable;
mod folder;
mod index;
mod known;
mod layout;
mod listing;
mod locks;
mod manifests;
mod referrers;
mod repositories;
mod serving;
mod together;
mod uploads;

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::{
        Arc, Mutex, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use oci::RepoName;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use self::disk::faults::Faults;
pub(crate) use self::{
    check::{Problem, Severity},
    collect::{Collected, Collecting, Kind as CollectedKind},
    layout::VERSION as LAYOUT_VERSION,
    uploads::Upload,
};
use self::{durable::Durable, layout::Layout, listing::Listings, locks::Locks};
use super::{
    Error, IoContext as _, OpenError, Sparse, Usage,
    busy::Busy,
    cache::{Cache, Change},
};

/// Bytes of the key that signs tokens.
const TOKEN_KEY: usize = 32;

/// A repository that may be changed: nothing is answered from memory meanwhile.
struct Locked<G> {
    _change: Change,
    _lock: G,
}

/// An open root. There is at most one at a time for each, on the whole machine.
#[derive(Debug)]
pub(crate) struct Store {
    layout: Layout,
    durable: Durable,
    pub(super) busy: Busy,
    locks: Locks,
    listings: Listings,
    /// What was read; good until the repository's lock is taken.
    pub(super) cache: Arc<Cache>,
    damaged: AtomicU64,
    changes: AtomicU64,
    counted: Mutex<Option<(u64, u64)>>,
    uploads: uploads::Count,
    sparse: Sparse,
    /// Locked as long as it is open.
    _lock: File,
}

/// `berth.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    layout: u64,
}

impl Store {
    /// Opens a root, making it where it is empty.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        create_root(root).at("create", root)?;
        let layout = Layout::new(root);
        let lock = take_lock(&layout)?;
        check_version(&layout)?;
        let durable = Durable::new(root, layout.tmp(), layout.empty());
        for folder in layout.folders() {
            durable.ensure_folder(&folder)?;
        }
        if !fs::exists(layout.version()).at("look at", layout.version())? {
            let version = serde_json::to_vec(&Version { layout: layout::VERSION }).map_err(Error::Encode)?;
            durable.write(&layout.version(), &version)?;
        }
        for name in folder::names(&layout.tmp())? {
            let leftover = layout.tmp().join(name);
            let removed =
                if leftover.is_dir() { fs::remove_dir_all(&leftover) } else { fs::remove_file(&leftover) };
            removed.at("remove", leftover)?;
        }
        let uploads = uploads::Count::new(folder::names(&layout.uploads())?.len());
        Ok(Self {
            layout,
            durable,
            busy: Busy::default(),
            locks: Locks::default(),
            listings: Listings::default(),
            cache: Arc::default(),
            damaged: AtomicU64::default(),
            changes: AtomicU64::default(),
            counted: Mutex::default(),
            uploads,
            sparse: Sparse::default(),
            _lock: lock,
        })
    }

    /// Takes manifests although something that they need is missing.
    pub(crate) fn taking(self, sparse: Sparse) -> Self {
        Self { sparse, ..self }
    }

    pub(crate) fn load_policy(&self) -> Result<Option<Vec<u8>>, Error> {
        read_if_there(&self.layout.policy())
    }

    pub(crate) fn save_policy(&self, policy: &[u8]) -> Result<(), Error> {
        // Hashes of passwords are in it.
        self.durable.write_secret(&self.layout.policy(), policy)
    }

    /// Makes the key where there is none yet.
    pub(crate) fn token_key(&self) -> Result<Vec<u8>, Error> {
        let path = self.layout.token_key();
        if let Some(key) = read_if_there(&path)? {
            let what = "it should hold a key of 32 bytes: remove it, and a new one is made";
            return if key.len() == TOKEN_KEY { Ok(key) } else { Err(Error::Damaged { path, what }) };
        }
        let mut key = vec![0; TOKEN_KEY];
        getrandom::fill(&mut key).map_err(io::Error::from).at("make a key for", &path)?;
        self.durable.write_secret(&path, &key)?;
        Ok(key)
    }

    #[cfg(test)]
    pub(crate) fn faults(&self) -> &Faults {
        &self.durable.disk.faults
    }

    /// Where the process that has this root takes orders.
    pub(crate) fn control(&self) -> std::path::PathBuf {
        self.layout.control()
    }

    /// How full the file system is.
    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        let root = self.layout.root();
        let stat = rustix::fs::statvfs(root).map_err(io::Error::from).at("look at", root)?;
        let total_bytes = stat.f_blocks * stat.f_frsize;
        Ok(Usage { used_bytes: total_bytes.saturating_sub(stat.f_bfree * stat.f_frsize), total_bytes })
    }

    /// How often content was found damaged or lost since the start.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Pushes to a repository run beside each other, never beside a delete.
    fn lock_for_push(&self, repository: &RepoName) -> Locked<RwLockReadGuard<'_, ()>> {
        let lock = self.locks.push(repository);
        Locked { _change: self.cache.change(repository), _lock: lock }
    }

    fn lock_for_delete(&self, repository: &RepoName) -> Locked<RwLockWriteGuard<'_, ()>> {
        let lock = self.locks.delete(repository);
        Locked { _change: self.cache.change(repository), _lock: lock }
    }

    /// None where a request has it.
    fn try_lock_for_delete(&self, repository: &RepoName) -> Option<Locked<RwLockWriteGuard<'_, ()>>> {
        let lock = self.locks.try_delete(repository)?;
        Some(Locked { _change: self.cache.change(repository), _lock: lock })
    }

    fn count_damage(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes a folder and those above it that are not there, all of them on the disk.
fn create_root(root: &Path) -> io::Result<()> {
    let parent =
        root.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    let Some(parent) = parent.filter(|_| !root.exists()) else {
        return Ok(());
    };
    create_root(parent)?;
    match fs::create_dir(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(parent)?.sync_all(),
    }
}

fn take_lock(layout: &Layout) -> Result<File, OpenError> {
    let path = layout.lock();
    let file = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { root: layout.root().to_owned() }),
        Err(error) => Err(Error::Io { action: "lock", path, source: error.into() }.into()),
    }
}

/// An empty folder becomes a root; anything else must already be one, of a version that is known here.
fn check_version(layout: &Layout) -> Result<(), OpenError> {
    let path = layout.version();
    if let Some(json) = read_if_there(&path)? {
        let version: Version = serde_json::from_slice(&json)
            .map_err(|_| Error::Damaged { path, what: "it should hold the layout's version" })?;
        return if version.layout == layout::VERSION {
            Ok(())
        } else {
            Err(OpenError::Version { root: layout.root().to_owned(), found: version.layout })
        };
    }
    // Folders of ours may be there when the first start was cut short.
    let ours = |name: &str| {
        matches!(
            name,
            "lock"
                | "lost+found"
                | "empty"
                | "control.sock"
                | "tmp"
                | "uploads"
                | "quarantine"
                | "blobs"
                | "holders"
                | "repositories"
        )
    };
    match folder::names(layout.root())?.into_iter().find(|name| !ours(name)) {
        None => Ok(()),
        Some(found) => Err(OpenError::NotEmpty { root: layout.root().to_owned(), found }),
    }
}

/// For who can do without what is damaged.
fn ignoring_damage<T>(found: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match found {
        Err(Error::Damaged { .. }) => Ok(None),
        found => found,
    }
}

/// A small file's bytes; none where it is not there.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", path),
    }
}

#[cfg(test)]
mod tests;
