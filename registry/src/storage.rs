//! Where content lives. The seam between the API and what keeps its data: everything above knows repositories,
//! digests, tags and upload sessions, everything below knows files, or objects.
//!
//! Guarantees:
//! - What a function reports as stored survives kill -9 and power loss.
//! - A manifest is stored only when all that it needs is there, but for what [`Sparse`] allows, and that is not taken
//!   away while the manifest stays.
//! - Content that is cut short is never handed out.
//! - Memory does not grow with the size of a blob.
//!
//! Nothing here assumes appending to objects, renaming them or listing them in an order: [`files`] and [`objects`] stand
//! behind the same functions.

mod accounts;
mod blob;
pub(crate) mod busy;
mod cache;
mod error;
mod files;
mod follow;
mod fs;
mod governing;
mod ledger;
mod model;
#[cfg_attr(
    not(feature = "testing"),
    expect(dead_code, reason = "no option of the command line leads here yet")
)]
pub(crate) mod objects;
mod purge;
mod receive;
mod sparse;
mod stamp;
mod walk;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use channel::feed::FeedPage;
use futures::Stream;
use oci::{Algorithm, Digest, Manifest, Reference, RepoName};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::fs::fuzz_cursor;
pub(crate) use self::{
    blob::Blob,
    error::{Error, OpenError},
    fs::{Collected, Collecting, LAYOUT_VERSION, Problem, Severity},
    governing::Governing,
    ledger::{LastPush, Tally},
    model::{
        Deleted, Finished, Holding, NewTag, NotOpened, Put, ReferrersPage, StatePage, Stays, StoredManifest,
        UploadId, Usage,
    },
    receive::{Received, discard},
    sparse::Sparse,
    stamp::{InvalidStamp, Origin, Stamp},
};
use self::{error::IoContext, files::Files, objects::Objects};

/// The open storage of one registry. Clones are the same storage.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    backend: Backend,
    limits: Limits,
}

#[derive(Clone, Debug)]
enum Backend {
    Files(Files),
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "as above"))]
    Objects(Objects),
}

/// A session that one request has for itself.
#[derive(Debug)]
pub(crate) enum Upload {
    File(Files, Box<fs::Upload>),
    Object(Box<objects::Upload>),
}

/// What is refused although it could be stored, or the other way round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Bytes that stay free on the disk, for what has to go on when it is full; none: a hundredth of it, at most
    /// [`files::LARGEST_RESERVE`].
    pub(crate) reserve: Option<u64>,
    /// Bytes of the largest blob.
    pub(crate) largest_blob: Option<u64>,
    /// What may be pushed although some of it is missing.
    pub(crate) sparse: Sparse,
    /// Bytes of the journal at which changes wait for it to be begun anew, where that is sooner than usual.
    pub(crate) journal: Option<u64>,
}

impl Upload {
    pub(crate) fn id(&self) -> UploadId {
        match self {
            Self::File(_, upload) => upload.id(),
            Self::Object(upload) => upload.id(),
        }
    }

    /// Bytes received so far, in all requests.
    pub(crate) fn received(&self) -> u64 {
        match self {
            Self::File(_, upload) => upload.received(),
            Self::Object(upload) => upload.received(),
        }
    }

    /// Bytes received in this request.
    pub(crate) fn appended(&self) -> u64 {
        match self {
            Self::File(_, upload) => upload.appended(),
            Self::Object(upload) => upload.appended(),
        }
    }

    /// Takes in the next bytes; blocks. After an error it is as if this request had never been.
    fn append(self, pieces: Vec<Bytes>) -> Result<Self, Error> {
        match self {
            Self::File(files, upload) => {
                let upload = files.append(*upload, &pieces)?;
                Ok(Self::File(files, Box::new(upload)))
            }
            Self::Object(upload) => Ok(Self::Object(Box::new(upload.append(pieces)?))),
        }
    }
}

impl Storage {
    /// Opens a folder, making it where it is empty.
    pub(crate) fn open(root: &Path, limits: Limits) -> Result<Self, OpenError> {
        Ok(Self { backend: Backend::Files(Files::open(root, limits)?), limits })
    }

    /// Storage in a bucket that others may serve at the same time.
    #[cfg(feature = "testing")]
    pub(crate) fn over(objects: Objects, limits: Limits) -> Self {
        Self { backend: Backend::Objects(objects.taking(limits.sparse)), limits }
    }

    /// Bytes that a blob may have.
    pub(crate) fn largest_blob(&self) -> u64 {
        let possible = match &self.backend {
            Backend::Files(_) => u64::MAX,
            Backend::Objects(_) => objects::LARGEST_BLOB,
        };
        self.limits.largest_blob.unwrap_or(possible).min(possible)
    }

    /// Whether there is room for so many bytes more.
    pub(crate) async fn check_room_for(&self, bytes: u64) -> Result<(), Error> {
        match &self.backend {
            Backend::Files(files) => files.check_room_for(bytes).await,
            Backend::Objects(_) => Ok(()),
        }
    }

    /// Appends a body to an upload, as far as there is room.
    pub(crate) async fn receive<E>(
        &self,
        upload: Upload,
        body: &mut (impl Stream<Item = Result<Bytes, E>> + Send + Unpin),
    ) -> Result<(Upload, Received), Error> {
        receive::receive(upload, body, self.largest_blob(), Upload::append).await
    }

    /// Size of a blob for a client that may count on it from now on.
    pub(crate) async fn blob_size(&self, repository: RepoName, digest: Digest) -> Result<Option<u64>, Error> {
        match &self.backend {
            Backend::Files(files) => files.blob_size(repository, digest).await,
            Backend::Objects(objects) => objects.blob_size(repository, digest).await,
        }
    }

    pub(crate) async fn open_blob(
        &self,
        repository: RepoName,
        digest: Digest,
    ) -> Result<Option<Blob>, Error> {
        match &self.backend {
            Backend::Files(files) => files.open_blob(repository, digest).await,
            Backend::Objects(objects) => objects.open_blob(repository, digest).await,
        }
    }

    /// False where `from` has no such blob.
    pub(crate) async fn mount_blob(
        &self,
        from: RepoName,
        to: RepoName,
        digest: Digest,
    ) -> Result<bool, Error> {
        match &self.backend {
            Backend::Files(files) => files.mount_blob(from, to, digest).await,
            Backend::Objects(objects) => objects.mount_blob(from, to, digest).await,
        }
    }

    /// A repository that has the blob, among those that `wanted` accepts.
    pub(crate) async fn find_blob(
        &self,
        digest: Digest,
        wanted: impl Fn(&RepoName) -> bool + Send + 'static,
    ) -> Result<Option<RepoName>, Error> {
        match &self.backend {
            Backend::Files(files) => files.find_blob(digest, wanted).await,
            Backend::Objects(objects) => objects.find_blob(digest, wanted).await,
        }
    }

    pub(crate) async fn delete_blob(&self, repository: RepoName, digest: Digest) -> Result<Deleted, Error> {
        match &self.backend {
            Backend::Files(files) => files.delete_blob(repository, digest).await,
            Backend::Objects(objects) => objects.delete_blob(repository, digest).await,
        }
    }

    /// Begins a session for somebody, who gets half of all that there may be at most.
    pub(crate) async fn begin_upload(
        &self,
        owner: Arc<str>,
        repository: RepoName,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        match &self.backend {
            Backend::Files(files) => files.begin_upload(owner, repository, algorithm).await,
            Backend::Objects(objects) => objects.create_upload(repository, algorithm).await,
        }
    }

    /// Bytes that a session has received.
    pub(crate) async fn upload_received(
        &self,
        repository: RepoName,
        id: UploadId,
    ) -> Result<Option<u64>, Error> {
        match &self.backend {
            Backend::Files(files) => files.upload_received(repository, id).await,
            Backend::Objects(objects) => objects.upload_received(repository, id).await,
        }
    }

    /// Takes a session up; no other request can until the [`Upload`] is gone.
    pub(crate) async fn open_upload(&self, repository: RepoName, id: UploadId) -> Result<Upload, NotOpened> {
        match &self.backend {
            Backend::Files(files) => {
                let upload = files.open_upload(repository, id).await?;
                Ok(Upload::File(files.clone(), Box::new(upload)))
            }
            Backend::Objects(objects) => {
                Ok(Upload::Object(Box::new(objects.open_upload(repository, id).await?)))
            }
        }
    }

    /// Puts a session aside for the next request.
    pub(crate) async fn suspend_upload(&self, upload: Upload) -> Result<(), Error> {
        match upload {
            Upload::File(files, upload) => files.suspend_upload(*upload).await,
            Upload::Object(upload) => upload.suspend().await,
        }
    }

    /// Undoes what this request appended.
    pub(crate) async fn roll_back_upload(&self, upload: Upload) -> Result<(), Error> {
        match upload {
            Upload::File(files, upload) => files.roll_back_upload(*upload).await,
            Upload::Object(upload) => upload.roll_back().await,
        }
    }

    pub(crate) async fn finish_upload(&self, upload: Upload, digest: Digest) -> Result<Finished, Error> {
        match upload {
            Upload::File(files, upload) => files.finish_upload(*upload, digest).await,
            Upload::Object(upload) => upload.finish(digest).await,
        }
    }

    /// False where there is no such session.
    pub(crate) async fn cancel_upload(&self, repository: RepoName, id: UploadId) -> Result<bool, Error> {
        match &self.backend {
            Backend::Files(files) => files.cancel_upload(repository, id).await,
            Backend::Objects(objects) => objects.cancel_upload(repository, id).await,
        }
    }

    /// The id by which other registries know this one; none where stamps are not kept.
    pub(crate) fn id(&self) -> Option<&Origin> {
        match &self.backend {
            Backend::Files(files) => Some(files.id()),
            Backend::Objects(_) => None,
        }
    }

    /// Stores a manifest under its digest and these tags, if all that it needs is there. With a stamp of another
    /// registry the tags keep that.
    pub(crate) async fn put_manifest(
        &self,
        repository: RepoName,
        manifest: Manifest,
        digest: Digest,
        bytes: Bytes,
        tags: Vec<NewTag>,
        stamp: Option<Stamp>,
    ) -> Result<Put, Error> {
        match &self.backend {
            Backend::Files(files) => {
                files.put_manifest(repository, manifest, digest, bytes, tags, stamp).await
            }
            Backend::Objects(_) if stamp.is_some() => Err(Error::NoStamps),
            Backend::Objects(objects) => {
                objects.put_manifest(repository, manifest, digest, bytes, tags).await
            }
        }
    }

    /// Looks a manifest up without its content.
    pub(crate) async fn find_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Option<StoredManifest>, Error> {
        match &self.backend {
            Backend::Files(files) => files.find_manifest(repository, reference).await,
            Backend::Objects(objects) => objects.find_manifest(repository, reference).await,
        }
    }

    /// A manifest and its bytes, which match its digest.
    pub(crate) async fn open_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Option<(StoredManifest, Blob)>, Error> {
        match &self.backend {
            Backend::Files(files) => files.open_manifest(repository, reference).await,
            Backend::Objects(objects) => {
                let read = objects.read_manifest(repository, reference).await?;
                Ok(read.map(|(manifest, bytes)| (manifest, Blob::held(bytes))))
            }
        }
    }

    /// By tag takes the tag alone, by digest the manifest and its tags. The stamp of another registry is kept in the
    /// records of that.
    pub(crate) async fn delete_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
        stamp: Option<Stamp>,
    ) -> Result<Deleted, Error> {
        self.delete_manifest_unless(repository, reference, stamp, Arc::new(|_| false)).await
    }

    /// The same, but where a tag that stays points to it.
    pub(crate) async fn delete_manifest_unless(
        &self,
        repository: RepoName,
        reference: Reference,
        stamp: Option<Stamp>,
        stays: Stays,
    ) -> Result<Deleted, Error> {
        match (&self.backend, &reference) {
            (_, Reference::Tag(tag)) if stays(tag) => Ok(Deleted::Fixed(tag.clone())),
            (Backend::Files(files), _) => files.delete_manifest(repository, reference, stamp, stays).await,
            (Backend::Objects(_), _) if stamp.is_some() => Err(Error::NoStamps),
            (Backend::Objects(objects), _) => {
                objects.delete_manifest_unless(repository, reference, stays).await
            }
        }
    }

    /// At most `n` tags after `last` and whether there are more; none where there is no such repository.
    pub(crate) async fn tags(
        &self,
        repository: RepoName,
        last: Option<String>,
        n: usize,
    ) -> Result<Option<Arc<(Vec<String>, bool)>>, Error> {
        match &self.backend {
            Backend::Files(files) => files.tags(repository, last, n).await,
            Backend::Objects(objects) => objects.tags(repository, last, n).await,
        }
    }

    /// At most `n` tags and records of deletions after `last`; none where there is no such repository.
    pub(crate) async fn state(
        &self,
        repository: RepoName,
        last: Option<String>,
        n: usize,
    ) -> Result<Option<Arc<StatePage>>, Error> {
        match &self.backend {
            Backend::Files(files) => files.state(repository, last, n).await,
            Backend::Objects(_) => Err(Error::NoStamps),
        }
    }

    /// At most `n` entries of the feed after a cursor, of repositories that `wanted` accepts; without one none, and the
    /// present cursor. Where there is no entry yet it waits for one, until `end`. None where the cursor is not known any
    /// more.
    pub(crate) async fn follow(
        &self,
        after: Option<String>,
        n: usize,
        wanted: impl Fn(&RepoName) -> bool + Send + Sync + 'static,
        end: impl Future<Output = ()>,
    ) -> Result<Option<FeedPage>, Error> {
        match &self.backend {
            Backend::Files(files) => files.follow(after, n, wanted, end).await,
            Backend::Objects(_) => Err(Error::NoStamps),
        }
    }

    /// Bytes of the feed.
    pub(crate) fn feed_bytes(&self) -> u64 {
        match &self.backend {
            Backend::Files(files) => files.store().feed.bytes(),
            Backend::Objects(_) => 0,
        }
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
        match &self.backend {
            Backend::Files(files) => files.referrers(repository, subject, artifact_type, last, limits).await,
            Backend::Objects(objects) => {
                objects.referrers(repository, subject, artifact_type, last, limits).await
            }
        }
    }

    /// At most `n` repositories after `last`, and whether there are more. `next` says of any text which one, from there on,
    /// is the first that may be among them, whether it is there or not.
    pub(crate) async fn repositories(
        &self,
        holding: Holding,
        last: Option<String>,
        n: usize,
        next: impl Fn(&str) -> Option<String> + Send + 'static,
    ) -> Result<(Vec<RepoName>, bool), Error> {
        match &self.backend {
            Backend::Files(files) => files.repositories(holding, last, n, next).await,
            // No records are kept there.
            Backend::Objects(_) if holding == Holding::Records => Ok(Default::default()),
            Backend::Objects(objects) => objects.repositories(last, n, next).await,
        }
    }

    pub(crate) async fn count_repositories(&self) -> Result<u64, Error> {
        match &self.backend {
            Backend::Files(files) => files.count_repositories().await,
            Backend::Objects(objects) => objects.count_repositories().await,
        }
    }

    /// None where nothing says how much room there is.
    pub(crate) async fn usage(&self) -> Result<Option<Usage>, Error> {
        match &self.backend {
            Backend::Files(files) => files.usage().await.map(Some),
            Backend::Objects(_) => Ok(None),
        }
    }

    /// False where nothing can be changed.
    pub(crate) fn takes_changes(&self) -> bool {
        match &self.backend {
            Backend::Files(files) => files.takes_changes(),
            Backend::Objects(_) => true,
        }
    }

    /// How often content was found damaged or lost since the start.
    pub(crate) fn damaged(&self) -> u64 {
        match &self.backend {
            Backend::Files(files) => files.damaged(),
            Backend::Objects(objects) => objects.damaged(),
        }
    }

    /// The key that signs tokens, shared by all who serve this storage.
    pub(crate) async fn token_key(&self) -> Result<Vec<u8>, Error> {
        match &self.backend {
            Backend::Files(files) => files.token_key().await,
            Backend::Objects(objects) => objects.token_key().await,
        }
    }

    /// Lets steps on the disk fail.
    #[cfg(test)]
    pub(crate) fn faults(&self) -> &fs::Faults {
        match &self.backend {
            Backend::Files(files) => files.faults(),
            Backend::Objects(_) => panic!("objects fail in another way"),
        }
    }

    /// Puts on the disk what did not have to be there yet, before the process ends.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Files(files) => files.run(fs::Store::close).await,
            Backend::Objects(_) => Ok(()),
        }
    }

    /// Where the one server of this storage takes orders; none where there may be several.
    pub(crate) fn control(&self) -> Option<PathBuf> {
        match &self.backend {
            Backend::Files(files) => Some(files.control()),
            Backend::Objects(_) => None,
        }
    }

    /// Takes away what nothing references; blocks. `report` hears of each thing, `go_on` is asked often, may wait, and
    /// ends it by saying no.
    pub(crate) fn collect(
        &self,
        how: Collecting,
        report: &mut dyn FnMut(Collected),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        match &self.backend {
            Backend::Files(files) => files.collect(how, report, go_on),
            Backend::Objects(objects) => objects.collect(how, report, go_on),
        }
    }

    /// Looks at everything; blocks. As for [`Self::collect`].
    pub(crate) fn verify(
        &self,
        repair: bool,
        report: &mut dyn FnMut(Problem),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        match &self.backend {
            Backend::Files(files) => files.verify(repair, report, go_on),
            Backend::Objects(objects) => objects.verify(repair, report, go_on),
        }
    }

    /// Compares all content with its digests; blocks. As for [`Self::collect`].
    pub(crate) fn scrub(
        &self,
        report: &mut dyn FnMut(Problem),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        match &self.backend {
            Backend::Files(files) => files.scrub(report, go_on),
            // Nobody asks for it before a bucket can be checked.
            Backend::Objects(_) => Err(Error::NoCheck),
        }
    }

    /// When that was done last; none where it can't be done.
    pub(crate) fn last_scrub(&self) -> Option<SystemTime> {
        match &self.backend {
            Backend::Files(files) => files.last_scrub(),
            Backend::Objects(_) => None,
        }
    }

    /// That it was done now; blocks for a moment.
    pub(crate) fn scrubbed(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Files(files) => files.scrubbed(),
            Backend::Objects(_) => Err(Error::NoCheck),
        }
    }

    /// The last policy that was kept.
    pub(crate) async fn load_policy(&self) -> Result<Option<Vec<u8>>, Error> {
        match &self.backend {
            Backend::Files(files) => files.load_policy().await,
            Backend::Objects(objects) => objects.load_policy().await,
        }
    }

    pub(crate) async fn save_policy(&self, policy: Vec<u8>) -> Result<(), Error> {
        match &self.backend {
            Backend::Files(files) => files.save_policy(policy).await,
            Backend::Objects(objects) => objects.save_policy(policy).await,
        }
    }
}
