//! What goes wrong with storage, each with what was being done to which file.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why storage can't do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the storage is full: failed to {action} {}", path.display())]
    Full { action: &'static str, path: PathBuf },
    #[error("the blob is larger than the disk on which it would lie")]
    LargerThanDisk,
    #[error("failed to {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("{}", over_quota(path, *needed, *used, *quota))]
    OverQuota { path: String, needed: u64, used: Option<u64>, quota: u64 },
    #[error("the uploads under way in `{path}` may hold as much as its quota, {most} bytes together")]
    UploadsOverQuota { path: String, most: u64 },
    #[error("there are {0} uploads under way, and no more are begun")]
    TooManyUploads(usize),
    #[error("{0} uploads of this login or address are under way, and no more are begun")]
    TooManyOwnUploads(usize),
    #[error("failed to {action} {key} in the bucket: {source}")]
    Object { action: &'static str, key: String, source: Box<object_store::Error> },
    #[error("{key} was changed by others again and again")]
    Contended { key: String },
    #[error("the bucket is too slow: the request was given up before others stop counting with it")]
    TooSlow,
    #[error("the upload session was cancelled, or taken over by another request")]
    SessionLost,
    #[error("a bucket can't be checked yet: only a folder can")]
    NoCheck,
    #[error("a bucket keeps neither stamps nor a feed yet: only a folder does")]
    NoStamps,
    #[error("failed to write JSON: {0}")]
    Encode(serde_json::Error),
    #[error("a storage task ended early: {0}")]
    Task(tokio::task::JoinError),
}

/// Without `used` it would be too much for an empty path.
fn over_quota(path: &str, needed: u64, used: Option<u64>, quota: u64) -> String {
    let used = used.map(|used| format!("{used} are taken and ")).unwrap_or_default();
    format!("the quota of `{path}` is {quota} bytes: {used}this push would take {needed} more")
}

/// Why a root can't be opened. Each is a sentence for who started the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Storage(#[from] Error),
    #[error("{} is in use by another berth-registry: a root has one server at a time", root.display())]
    Locked { root: PathBuf },
    #[error(
        "{} has layout version {found}, this berth-registry knows version {}: use the one that made it",
        root.display(), super::LAYOUT_VERSION
    )]
    Version { root: PathBuf, found: u64 },
    #[error("{} is not empty (it holds `{found}`) and no root of a registry: give an empty folder", root.display())]
    NotEmpty { root: PathBuf, found: String },
}

/// Says what was being done to which file when a system call failed.
pub(super) trait IoContext<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| {
            let path = path.as_ref().to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { action, path },
                _ => Error::Io { action, path, source },
            }
        })
    }
}
