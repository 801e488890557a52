//! Storage in a folder: plain files that a person can read, one server that writes them.
//!
//! What is acknowledged is on the disk ([`durable`]); what a crash leaves unfinished is invisible. All functions
//! block and are called off the runtime's threads.

mod behind;
mod blobs;
mod change;
mod check;
mod collect;
mod counting;
mod deleting;
mod disk;
mod durable;
mod events;
mod feed;
mod filled;
mod folder;
mod id;
mod index;
mod journal;
mod layout;
mod listing;
mod locks;
mod manifests;
mod moves;
mod referrers;
mod repositories;
mod serving;
mod state;
mod tags;
mod uploads;

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::{
        Arc, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use oci::RepoName;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use self::disk::faults::Faults;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::feed::fuzz_cursor;
pub(crate) use self::{
    check::{Problem, Severity},
    collect::{Collected, Collecting, Kind as CollectedKind},
    feed::{Piece, Position},
    layout::VERSION as LAYOUT_VERSION,
    uploads::Upload,
};
use self::{
    deleting::Deleting,
    disk::Disk,
    durable::Durable,
    feed::Feed,
    filled::Filled,
    layout::Layout,
    listing::{Listings, Steady},
    locks::Locks,
};
use super::{
    Error, IoContext as _, OpenError, Sparse, Usage,
    busy::Busy,
    cache::{Cache, Change},
    ledger::Ledger,
    stamp::Origin,
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
    id: Origin,
    pub(super) feed: Feed,
    durable: Durable,
    pub(super) busy: Busy,
    locks: Locks,
    deleting: Deleting,
    listings: Listings,
    steady: Steady,
    /// What was read; good until the repository's lock is taken.
    pub(super) cache: Arc<Cache>,
    damaged: AtomicU64,
    filled: Filled,
    uploads: uploads::Count,
    sparse: Sparse,
    /// Read by all who look, before they take any lock.
    settled: RwLock<()>,
    /// Taken after the locks of a repository and of content, before those of tags and places.
    pub(super) ledger: Ledger,
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
        Self::open_on(Disk::default(), root, feed::boot_id())
    }

    /// The same in this run of the machine.
    fn open_on(disk: Disk, root: &Path, boot: String) -> Result<Self, OpenError> {
        create_root(root).at("create", root)?;
        let layout = Layout::new(root);
        let lock = take_lock(&layout)?;
        let is_current = check_version(&layout)?;
        let durable = Durable::open(&layout, disk)?;
        if !is_current {
            let version = serde_json::to_vec(&Version { layout: layout::VERSION }).map_err(Error::Encode)?;
            durable.write_at_once(&layout.version(), &version)?;
        }
        let id = id::own_id(&layout, &durable)?;
        let feed = Feed::open(&layout.feed(), &durable, boot)?;
        let uploads = uploads::Count::new(folder::names(&layout.uploads())?.len());
        let deleting = Deleting::load(&layout)?;
        let this = Self {
            layout,
            id,
            feed,
            durable,
            busy: Busy::default(),
            locks: Locks::default(),
            deleting,
            listings: Listings::default(),
            steady: Steady::default(),
            cache: Arc::default(),
            damaged: AtomicU64::default(),
            filled: Filled::default(),
            uploads,
            sparse: Sparse::default(),
            settled: RwLock::default(),
            ledger: Ledger::default(),
            _lock: lock,
        };
        this.know_owners()?;
        this.end_deletions();
        Ok(this)
    }

    /// Puts on the disk what did not have to be there yet, before the process ends.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.feed.close(&self.durable)
    }

    /// Takes manifests although something that they need is missing.
    pub(crate) fn taking(self, sparse: Sparse) -> Self {
        Self { sparse, ..self }
    }

    /// Begins the journal anew when it has so many bytes, where that is sooner than usual.
    pub(crate) fn with_journal_of(self, bytes: Option<u64>) -> Self {
        if let Some(bytes) = bytes {
            self.durable.journal.limit(bytes);
        }
        self
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

    /// False where nothing can be changed: until the next start, or until there is room for what this one had to do.
    pub(crate) fn takes_changes(&self) -> bool {
        self.durable.journal.is_taking()
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

/// An empty folder becomes a root; anything else must already be one, of a version that is known here. Whether that is the
/// present one.
fn check_version(layout: &Layout) -> Result<bool, OpenError> {
    let path = layout.version();
    if let Some(json) = read_if_there(&path)? {
        let version: Version = serde_json::from_slice(&json)
            .map_err(|_| Error::Damaged { path, what: "it should hold the layout's version" })?;
        return match version.layout {
            layout::VERSION => Ok(true),
            layout::FORMER => Ok(false),
            found => Err(OpenError::Version { root: layout.root().to_owned(), found }),
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
                | "journal"
                | "feed"
                | "tmp"
                | "uploads"
                | "quarantine"
                | "blobs"
                | "holders"
                | "repositories"
        )
    };
    match folder::names(layout.root())?.into_iter().find(|name| !ours(name)) {
        None => Ok(false),
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
