//! Where content lives. The seam between the API and what keeps its data: everything above knows repositories,
//! digests, tags and upload sessions, everything below knows files.
//!
//! Guarantees:
//! - What a function reports as stored survives kill -9 and power loss.
//! - A manifest is stored only when all that it needs is there, and that is not taken away while the manifest stays.
//! - Content that is cut short is never handed out.
//! - Memory does not grow with the size of a blob.
//!
//! Nothing here assumes appending to objects, renaming them or listing them in an order, so that an object store can
//! stand behind the same functions: names are never reused for other content, and a tag is one small value.

mod blob;
pub(crate) mod busy;
mod fs;
mod receive;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use oci::{Algorithm, Descriptor, Digest, Manifest, Reference, RepoName, Tag};
use uuid::Uuid;

pub(crate) use self::{
    blob::Blob,
    fs::Upload,
    receive::{Received, receive},
};

/// A session to which nothing was sent for so long goes away.
pub(crate) const UPLOAD_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The open storage of one registry. Clones are the same storage.
#[derive(Clone, Debug)]
pub(crate) struct Storage(Arc<fs::Store>);

/// Why storage can't do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the storage is full: failed to {action} {}", path.display())]
    Full { action: &'static str, path: PathBuf },
    #[error("failed to {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("failed to write JSON: {0}")]
    Encode(serde_json::Error),
    #[error("a storage task ended early: {0}")]
    Task(tokio::task::JoinError),
}

/// Why a root can't be opened. Each is a sentence for who started the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Storage(#[from] Error),
    #[error("{} is in use by another berth-registry: a root has one server at a time", root.display())]
    Locked { root: PathBuf },
    #[error(
        "{} has layout version {found}, this berth-registry knows version 1: use a newer one",
        root.display()
    )]
    Version { root: PathBuf, found: u64 },
    #[error("{} is not empty (it holds `{found}`) and no root of a registry: give an empty folder", root.display())]
    NotEmpty { root: PathBuf, found: String },
}

/// Says what was being done to which file when a system call failed.
trait IoContext<T> {
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

/// The name of an upload session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(Uuid);

impl UploadId {
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UploadId {
    type Err = ();

    /// Only as it was given out: a UUID can be written in several ways.
    fn from_str(text: &str) -> Result<Self, ()> {
        let id = Uuid::try_parse(text).map_err(|_| ())?;
        if id.to_string() == text { Ok(Self(id)) } else { Err(()) }
    }
}

/// A manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
}

/// What became of a manifest that was pushed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Stored,
    /// Not stored: it needs these first.
    Missing(Vec<Digest>),
}

/// What became of a delete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    Done,
    /// There was nothing.
    Unknown,
    /// Still there: this manifest of the repository needs it.
    Needed(Digest),
}

/// What became of an upload that was closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    Stored,
    /// Not stored: its digest is this one.
    Mismatch(Digest),
    /// Cancelled meanwhile.
    Unknown,
}

/// Some of the referrers of a manifest.
#[derive(Debug, Default)]
pub(crate) struct ReferrersPage {
    pub(crate) manifests: Vec<Descriptor>,
    /// There are more, after this one.
    pub(crate) more_after: Option<Digest>,
}

/// How full the storage is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) used_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// A session that could not be taken up.
#[derive(Debug)]
pub(crate) enum NotOpened {
    Unknown,
    /// Another request is writing to it.
    Busy,
    Storage(Error),
}

impl Storage {
    /// Opens a root, making it where it is empty.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        Ok(Self(Arc::new(fs::Store::open(root)?)))
    }

    /// Runs what blocks where it may.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&fs::Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.0);
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| work(&store))).await.map_err(Error::Task)?
    }

    pub(crate) async fn blob_size(&self, repository: RepoName, digest: Digest) -> Result<Option<u64>, Error> {
        self.run(move |store| store.blob_size(&repository, &digest)).await
    }

    pub(crate) async fn open_blob(
        &self,
        repository: RepoName,
        digest: Digest,
    ) -> Result<Option<Blob>, Error> {
        self.run(move |store| store.open_blob(&repository, &digest)).await
    }

    /// False where `from` has no such blob.
    pub(crate) async fn mount_blob(
        &self,
        from: RepoName,
        to: RepoName,
        digest: Digest,
    ) -> Result<bool, Error> {
        self.run(move |store| store.mount_blob(&from, &to, &digest)).await
    }

    pub(crate) async fn delete_blob(&self, repository: RepoName, digest: Digest) -> Result<Deleted, Error> {
        self.run(move |store| store.delete_blob(&repository, &digest)).await
    }

    pub(crate) async fn create_upload(
        &self,
        repository: RepoName,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        self.run(move |store| store.create_upload(repository, algorithm)).await
    }

    /// Bytes that a session has received.
    pub(crate) async fn upload_received(
        &self,
        repository: RepoName,
        id: UploadId,
    ) -> Result<Option<u64>, Error> {
        self.run(move |store| store.upload_received(&repository, id)).await
    }

    /// Takes a session up; no other request can until the [`Upload`] is gone.
    pub(crate) async fn open_upload(&self, repository: RepoName, id: UploadId) -> Result<Upload, NotOpened> {
        let busy = self.0.busy.take(id).await.ok_or(NotOpened::Busy)?;
        let opened = self.run(move |store| store.open_upload(&repository, id, busy)).await;
        opened.map_err(NotOpened::Storage)?.ok_or(NotOpened::Unknown)
    }

    /// Puts a session aside for the next request.
    pub(crate) async fn suspend_upload(&self, upload: Upload) -> Result<(), Error> {
        self.run(|_| {
            upload.suspend();
            Ok(())
        })
        .await
    }

    /// Undoes what this request appended.
    pub(crate) async fn truncate_upload(&self, upload: Upload, length: u64) -> Result<(), Error> {
        self.run(move |_| upload.truncate(length)).await
    }

    pub(crate) async fn finish_upload(&self, upload: Upload, digest: Digest) -> Result<Finished, Error> {
        self.run(move |store| store.finish_upload(upload, &digest)).await
    }

    /// False where there is no such session.
    pub(crate) async fn cancel_upload(&self, repository: RepoName, id: UploadId) -> Result<bool, Error> {
        self.run(move |store| store.cancel_upload(&repository, id)).await
    }

    /// Takes abandoned sessions away; says how many.
    pub(crate) async fn expire_uploads(&self) -> Result<usize, Error> {
        self.run(|store| store.expire_uploads(UPLOAD_LIFETIME)).await
    }

    pub(crate) async fn put_manifest(
        &self,
        repository: RepoName,
        manifest: Manifest,
        digest: Digest,
        bytes: Bytes,
        tags: Vec<Tag>,
    ) -> Result<Put, Error> {
        self.run(move |store| store.put_manifest(&repository, manifest, &digest, &bytes, &tags)).await
    }

    pub(crate) async fn find_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Option<StoredManifest>, Error> {
        self.run(move |store| store.find_manifest(&repository, &reference)).await
    }

    /// A manifest and its bytes, which match its digest.
    pub(crate) async fn read_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Option<(StoredManifest, Bytes)>, Error> {
        self.run(move |store| {
            let Some(manifest) = store.find_manifest(&repository, &reference)? else {
                return Ok(None);
            };
            let bytes = store.read_manifest(&manifest)?;
            Ok(bytes.map(|bytes| (manifest, bytes)))
        })
        .await
    }

    /// By tag takes the tag alone, by digest the manifest and its tags.
    pub(crate) async fn delete_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Deleted, Error> {
        self.run(move |store| match reference {
            Reference::Tag(tag) => store.delete_tag(&repository, &tag),
            Reference::Digest(digest) => store.delete_manifest(&repository, &digest),
        })
        .await
    }

    /// At most `n` tags after `last` and whether there are more; none where there is no such repository.
    pub(crate) async fn tags(
        &self,
        repository: RepoName,
        last: Option<String>,
        n: usize,
    ) -> Result<Option<(Vec<String>, bool)>, Error> {
        self.run(move |store| store.tags(&repository, last.as_deref(), n)).await
    }

    /// At most `n` referrers after `last`, fewer where they are heavier than `weight` bytes together.
    pub(crate) async fn referrers(
        &self,
        repository: RepoName,
        subject: Digest,
        artifact_type: Option<String>,
        last: Option<Digest>,
        limits: (usize, usize),
    ) -> Result<ReferrersPage, Error> {
        self.run(move |store| {
            store.referrers(&repository, &subject, artifact_type.as_deref(), last.as_ref(), limits)
        })
        .await
    }

    /// At most `n` repositories after `last` that `wanted` accepts, and whether there are more.
    pub(crate) async fn repositories(
        &self,
        last: Option<String>,
        n: usize,
        wanted: impl Fn(&RepoName) -> bool + Send + 'static,
    ) -> Result<(Vec<RepoName>, bool), Error> {
        self.run(move |store| store.repositories(last.as_deref(), n, wanted)).await
    }

    pub(crate) async fn count_repositories(&self) -> Result<u64, Error> {
        self.run(fs::Store::count_repositories).await
    }

    pub(crate) async fn usage(&self) -> Result<Usage, Error> {
        self.run(fs::Store::usage).await
    }

    /// How often content was found damaged or lost since the start.
    pub(crate) fn damaged(&self) -> u64 {
        self.0.damaged()
    }

    /// The last policy that was kept; blocks.
    pub(crate) fn load_policy(&self) -> Result<Option<Vec<u8>>, Error> {
        self.0.load_policy()
    }

    pub(crate) async fn save_policy(&self, policy: Vec<u8>) -> Result<(), Error> {
        self.run(move |store| store.save_policy(&policy)).await
    }
}
