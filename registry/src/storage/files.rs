//! Storage in a folder, for who must not block: every step on the disk runs where it may, and what was read lately is
//! answered from memory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use oci::{Algorithm, Digest, Manifest, Reference, RepoName};

use super::{
    Blob, Collected, Collecting, Deleted, Error, Finished, Holding, Limits, NewTag, NotOpened, OpenError,
    Problem, Put, ReferrersPage, StatePage, Stays, StoredManifest, UploadId, Usage,
    blob::OpenFile,
    cache::{self, Found, Key, Subject, Ticket},
    error::IoContext as _,
    fs,
    stamp::{Origin, Stamp},
};

/// An open folder. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Files(Arc<fs::Store>, Limits);

/// Bytes of the longest tag.
const LONGEST_TAG: usize = 128;
/// Bytes of the longest digest.
const LONGEST_DIGEST: usize = 135;
/// Free bytes that are always enough to delete, collect and end in order.
pub(super) const LARGEST_RESERVE: u64 = 1 << 30;

impl Files {
    /// Opens a root, making it where it is empty.
    pub(super) fn open(root: &Path, limits: Limits) -> Result<Self, OpenError> {
        let store = fs::Store::open(root)?.taking(limits.sparse).with_journal_of(limits.journal);
        let store = Arc::new(store);
        store.await_room()?;
        Ok(Self(store, limits))
    }

    /// Whether there is room for so many bytes more.
    pub(super) async fn check_room_for(&self, bytes: u64) -> Result<(), Error> {
        let reserve = self.1.reserve;
        self.run(move |store| check_room(store, reserve, bytes)).await
    }

    /// Appends to an upload, as far as there is room; blocks.
    pub(super) fn append(&self, mut upload: fs::Upload, pieces: &[Bytes]) -> Result<fs::Upload, Error> {
        let more = pieces.iter().map(|piece| piece.len() as u64).sum();
        let room = check_room(&self.0, self.1.reserve, 0).and_then(|()| self.0.hold(&upload, more));
        match room {
            Ok(()) => upload.append(pieces)?,
            Err(full) => {
                upload.roll_back()?;
                return Err(full);
            }
        }
        Ok(upload)
    }

    pub(super) fn store(&self) -> &Arc<fs::Store> {
        &self.0
    }

    /// Runs what blocks where it may.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&fs::Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.0);
        let span = tracing::Span::current();
        let work = move || {
            let _nothing_comes_later = store.settled();
            span.in_scope(|| work(&store))
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::Task)?
    }

    /// When what is found from here on is known. None while the repository is being changed.
    fn ticket(&self, repository: &RepoName) -> Option<Ticket> {
        self.0.cache.ticket(repository, self.0.damaged())
    }

    /// What is known of it already.
    fn known(&self, key: &Key, now: Option<Ticket>) -> Option<Found> {
        let found = self.0.cache.get(key, now?)?;
        match &found {
            Found::File(file) if !file.is_as_it_was() => {
                self.0.cache.forget(key);
                None
            }
            _ => Some(found),
        }
    }

    /// Looks something up, which blocks, and keeps what is found in memory, unless that is not possible or not wise.
    async fn learn<T: Send + 'static>(
        &self,
        key: Key,
        ticket: Option<Ticket>,
        look: impl FnOnce(&Arc<fs::Store>, &RepoName) -> Result<Option<(T, Option<Found>)>, Error>
        + Send
        + 'static,
    ) -> Result<Option<T>, Error> {
        let this = Arc::clone(&self.0);
        self.run(move |store| {
            let Some((value, found)) = look(&this, &key.repository)? else {
                return Ok(None);
            };
            if let Some((ticket, found)) = ticket.zip(found) {
                store.cache.keep(key, ticket, found);
            }
            Ok(Some(value))
        })
        .await
    }

    pub(super) async fn blob_size(&self, repository: RepoName, digest: Digest) -> Result<Option<u64>, Error> {
        self.run(move |store| store.check_blob(&repository, &digest)).await
    }

    pub(super) async fn open_blob(
        &self,
        repository: RepoName,
        digest: Digest,
    ) -> Result<Option<Blob>, Error> {
        let ticket = self.ticket(&repository);
        let key = Key { repository, subject: Subject::Blob(digest.clone()) };
        match self.known(&key, ticket) {
            Some(Found::Small(bytes)) => return Ok(Some(Blob::held(bytes))),
            Some(Found::File(file)) => return Ok(Some(Blob::file(file))),
            _ => {}
        }
        self.learn(key, ticket, move |store, repository| {
            let Some((file, size)) = store.open_blob(repository, &digest)? else {
                return Ok(None);
            };
            if size <= cache::LARGEST {
                let bytes = store.read_blob(&digest, &file)?;
                return Ok(bytes.map(|bytes| (Blob::held(bytes.clone()), Some(Found::Small(bytes)))));
            }
            let file = OpenFile::new(file, digest, store).at("look at", "a blob")?;
            let file = Arc::new(file);
            Ok(Some((Blob::file(Arc::clone(&file)), Some(Found::File(file)))))
        })
        .await
    }

    /// False where `from` has no such blob.
    pub(super) async fn mount_blob(
        &self,
        from: RepoName,
        to: RepoName,
        digest: Digest,
    ) -> Result<bool, Error> {
        self.run(move |store| store.mount_blob(&from, &to, &digest)).await
    }

    /// A repository that has the blob, among those that `wanted` accepts.
    pub(super) async fn find_blob(
        &self,
        digest: Digest,
        wanted: impl Fn(&RepoName) -> bool + Send + 'static,
    ) -> Result<Option<RepoName>, Error> {
        self.run(move |store| store.find_blob(&digest, wanted)).await
    }

    pub(super) async fn delete_blob(&self, repository: RepoName, digest: Digest) -> Result<Deleted, Error> {
        self.run(move |store| store.delete_blob(&repository, &digest)).await
    }

    pub(super) async fn begin_upload(
        &self,
        owner: Arc<str>,
        repository: RepoName,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        let reserve = self.1.reserve;
        self.run(move |store| {
            check_room(store, reserve, 0)?;
            store.begin_upload(&owner, repository, algorithm)
        })
        .await
    }

    /// Bytes that a session has received.
    pub(super) async fn upload_received(
        &self,
        repository: RepoName,
        id: UploadId,
    ) -> Result<Option<u64>, Error> {
        self.run(move |store| store.upload_received(&repository, id)).await
    }

    /// Takes a session up; no other request can until the [`Upload`] is gone.
    pub(super) async fn open_upload(
        &self,
        repository: RepoName,
        id: UploadId,
    ) -> Result<fs::Upload, NotOpened> {
        let busy = self.0.busy.take(id).await.ok_or(NotOpened::Busy)?;
        let opened = self.run(move |store| store.open_upload(&repository, id, busy)).await;
        opened.map_err(NotOpened::Storage)?.ok_or(NotOpened::Unknown)
    }

    /// Puts a session aside for the next request.
    pub(super) async fn suspend_upload(&self, upload: fs::Upload) -> Result<(), Error> {
        self.run(|_| upload.suspend()).await
    }

    /// Undoes what this request appended.
    pub(super) async fn roll_back_upload(&self, upload: fs::Upload) -> Result<(), Error> {
        self.run(move |_| upload.roll_back()).await
    }

    pub(super) async fn finish_upload(&self, upload: fs::Upload, digest: Digest) -> Result<Finished, Error> {
        self.run(move |store| {
            // What can't be kept is not put on the disk first.
            store.must_take()?;
            store.finish_upload(upload, &digest)
        })
        .await
    }

    /// False where there is no such session.
    pub(super) async fn cancel_upload(&self, repository: RepoName, id: UploadId) -> Result<bool, Error> {
        self.run(move |store| store.cancel_upload(&repository, id)).await
    }

    /// The id by which other registries know this one.
    pub(super) fn id(&self) -> &Origin {
        self.0.id()
    }

    pub(super) async fn put_manifest(
        &self,
        repository: RepoName,
        manifest: Manifest,
        digest: Digest,
        bytes: Bytes,
        tags: Vec<NewTag>,
        stamp: Option<Stamp>,
    ) -> Result<Put, Error> {
        let reserve = self.1.reserve;
        self.run(move |store| {
            check_room(store, reserve, 0)?;
            store.put_manifest(&repository, manifest, &digest, &bytes, &tags, stamp.as_ref())
        })
        .await
    }

    pub(super) async fn find_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Option<StoredManifest>, Error> {
        let key = Key { repository: repository.clone(), subject: reference.clone().into() };
        if let Some(Found::Manifest(manifest, _)) = self.known(&key, self.ticket(&repository)) {
            return Ok(Some(manifest));
        }
        self.run(move |store| store.find_manifest(&repository, &reference)).await
    }

    /// A manifest, and its content to be read. One that is too large to be kept in memory is compared with its digest while
    /// it is sent, as blobs are.
    pub(super) async fn open_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Option<(StoredManifest, Blob)>, Error> {
        let ticket = self.ticket(&repository);
        let key = Key { repository, subject: reference.clone().into() };
        if let Some(Found::Manifest(manifest, bytes)) = self.known(&key, ticket) {
            return Ok(Some((manifest, Blob::held(bytes))));
        }
        self.learn(key, ticket, move |store, repository| {
            let Some((manifest, file)) = store.open_manifest(repository, &reference)? else {
                return Ok(None);
            };
            if manifest.size > cache::LARGEST {
                let file = OpenFile::new(file, manifest.digest.clone(), store).at("look at", "a manifest")?;
                return Ok(Some(((manifest, Blob::file(Arc::new(file))), None)));
            }
            let bytes = store.read_manifest(&manifest, file)?;
            Ok(bytes.map(|bytes| {
                let found = Found::Manifest(manifest.clone(), bytes.clone());
                ((manifest, Blob::held(bytes)), Some(found))
            }))
        })
        .await
    }

    /// By tag takes the tag alone, by digest the manifest and its tags.
    pub(super) async fn delete_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
        stamp: Option<Stamp>,
        stays: Stays,
    ) -> Result<Deleted, Error> {
        self.run(move |store| match reference {
            Reference::Tag(tag) => store.delete_tag(&repository, &tag, stamp.as_ref()),
            Reference::Digest(digest) => {
                store.delete_manifest_unless(&repository, &digest, stamp.as_ref(), &*stays)
            }
        })
        .await
    }

    /// At most `n` tags after `last` and whether there are more; none where there is no such repository.
    pub(super) async fn tags(
        &self,
        repository: RepoName,
        last: Option<String>,
        n: usize,
    ) -> Result<Option<Arc<(Vec<String>, bool)>>, Error> {
        // What no tag can be is not worth remembering, and could be long.
        let is_tag = last.as_ref().is_none_or(|last| last.len() <= LONGEST_TAG);
        let ticket = self.ticket(&repository).filter(|_| is_tag);
        let key = Key { repository, subject: Subject::Tags { last: last.clone(), n } };
        if let Some(Found::Tags(page)) = self.known(&key, ticket) {
            return Ok(Some(page));
        }
        self.learn(key, ticket, move |store, repository| {
            let page = store.tags(repository, last.as_deref(), n)?.map(Arc::new);
            Ok(page.map(|page| (Arc::clone(&page), Some(Found::Tags(page)))))
        })
        .await
    }

    /// At most `n` tags and records of deletions after `last`; none where there is no such repository.
    pub(super) async fn state(
        &self,
        repository: RepoName,
        last: Option<String>,
        n: usize,
    ) -> Result<Option<Arc<StatePage>>, Error> {
        let is_name = last.as_ref().is_none_or(|last| last.len() <= LONGEST_DIGEST);
        let ticket = self.ticket(&repository).filter(|_| is_name);
        let key = Key { repository, subject: Subject::State { last: last.clone(), n } };
        if let Some(Found::State(page)) = self.known(&key, ticket) {
            return Ok(Some(page));
        }
        self.learn(key, ticket, move |store, repository| {
            let page = store.state(repository, last.as_deref(), n)?.map(Arc::new);
            Ok(page.map(|page| (Arc::clone(&page), Some(Found::State(page)))))
        })
        .await
    }

    /// At most `n` referrers after `last`, fewer where they are heavier than `weight` bytes together.
    pub(super) async fn referrers(
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

    pub(super) async fn repositories(
        &self,
        holding: Holding,
        last: Option<String>,
        n: usize,
        next: impl Fn(&str) -> Option<String> + Send + 'static,
    ) -> Result<(Vec<RepoName>, bool), Error> {
        self.run(move |store| store.repositories(holding, last.as_deref(), n, next)).await
    }

    pub(super) async fn count_repositories(&self) -> Result<u64, Error> {
        self.run(fs::Store::count_repositories).await
    }

    pub(super) async fn usage(&self) -> Result<Usage, Error> {
        self.run(fs::Store::usage).await
    }

    /// False where nothing can be changed.
    pub(super) fn takes_changes(&self) -> bool {
        self.0.takes_changes()
    }

    /// How often content was found damaged or lost since the start.
    pub(super) fn damaged(&self) -> u64 {
        self.0.damaged()
    }

    pub(super) async fn token_key(&self) -> Result<Vec<u8>, Error> {
        self.run(fs::Store::token_key).await
    }

    /// Lets steps on the disk fail.
    #[cfg(test)]
    pub(super) fn faults(&self) -> &fs::Faults {
        self.0.faults()
    }

    /// Where the server of this root takes orders.
    pub(super) fn control(&self) -> PathBuf {
        self.0.control()
    }

    /// Takes away what nothing references; blocks. `report` hears of each thing, `go_on` is asked often, may wait, and
    /// ends it by saying no.
    pub(super) fn collect(
        &self,
        how: Collecting,
        report: &mut dyn FnMut(Collected),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        self.0.collect(how, report, go_on)
    }

    /// Looks at everything; blocks. As for [`Self::collect`].
    pub(super) fn verify(
        &self,
        repair: bool,
        report: &mut dyn FnMut(Problem),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        self.0.verify(repair, report, go_on)
    }

    /// Compares all content with its digests; blocks. As for [`Self::collect`].
    pub(super) fn scrub(
        &self,
        report: &mut dyn FnMut(Problem),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        self.0.scrub(report, go_on)
    }

    pub(super) fn last_scrub(&self) -> Option<SystemTime> {
        self.0.last_scrub()
    }

    pub(super) fn scrubbed(&self) -> Result<(), Error> {
        self.0.scrubbed()
    }

    pub(super) async fn load_policy(&self) -> Result<Option<Vec<u8>>, Error> {
        self.run(fs::Store::load_policy).await
    }

    pub(super) async fn save_policy(&self, policy: Vec<u8>) -> Result<(), Error> {
        self.run(move |store| store.save_policy(&policy)).await
    }
}

/// Refuses to write before the disk is full to the last byte.
fn check_room(store: &fs::Store, reserve: Option<u64>, bytes: u64) -> Result<(), Error> {
    store.must_take()?;
    let (free, total) = store.room()?;
    if bytes > total {
        return Err(Error::LargerThanDisk);
    }
    let reserve = reserve.unwrap_or_else(|| (total / 100).min(LARGEST_RESERVE));
    if free > reserve.saturating_add(bytes) { Ok(()) } else { Err(store.is_full()) }
}

#[cfg(test)]
mod tests;
