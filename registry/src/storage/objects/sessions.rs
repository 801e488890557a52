//! Upload sessions: one value each, with all that it takes to go on on another instance.
//!
//! A request takes a session by a lease in it. Whoever writes a session has read it, so that a request whose lease ran out
//! and was taken over finds out before it is believed. Parts are written by who has the lease only.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{MultipartId, multipart::PartId};
use oci::{Algorithm, Digest, Hasher, RepoName, digest::Paused};
use serde::{Deserialize, Serialize};

use super::{
    Objects, Upload,
    bucket::{Attempts, Slot, Written, failed, nonce},
    keys,
};
use crate::storage::{Error, NotOpened, UploadId};

/// How long a request that is not heard of keeps its session. It renews its lease before a write for which less than
/// half is left: within that time the store's client must have given up.
pub(super) const LEASE: Duration = Duration::from_secs(600);
/// A client that lost its connection may be back before the server has noticed.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// What is kept between requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session {
    pub(super) repository: RepoName,
    /// Bytes that parts and tail have, which `hash` has taken in.
    pub(super) received: u64,
    pub(super) hash: Paused,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) multipart: Option<MultipartId>,
    /// As the store named them, each of the same size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<String>,
    /// Names the object that has the bytes after the last whole part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tail: Option<String>,
    /// When something last came in.
    pub(super) touched: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<Lease>,
    /// Its data is whole and may stand for this digest already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) finishing: Option<Digest>,
}

/// A request has the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lease {
    pub(super) holder: String,
    pub(super) until: u64,
}

impl Session {
    pub(super) fn is_taken(&self, now: u64) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.until > now)
    }

    pub(super) fn part_ids(&self) -> Vec<PartId> {
        self.parts.iter().map(|part| PartId { content_id: part.clone() }).collect()
    }
}

impl Objects {
    pub(super) fn lease(&self, holder: &str) -> Lease {
        Lease { holder: holder.to_owned(), until: self.bucket.clock.now() + LEASE.as_secs() }
    }

    pub(crate) async fn create_upload(
        &self,
        repository: RepoName,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        let id = UploadId::random();
        let key = keys::session(id);
        let session = Session {
            repository,
            received: 0,
            hash: Hasher::new(algorithm).pause(),
            multipart: None,
            parts: Vec::new(),
            tail: None,
            touched: self.bucket.clock.now(),
            lease: None,
            finishing: None,
        };
        match self.bucket.swap_json(&Slot::absent(&key), &session).await? {
            Some(_) => Ok(id),
            None => Err(Error::Contended { key: key.to_string() }),
        }
    }

    async fn session(&self, repository: &RepoName, id: UploadId) -> Result<Option<(Slot, Session)>, Error> {
        let slot = self.bucket.read(&keys::session(id)).await?;
        let session = slot.json::<Session>()?.filter(|session| session.repository == *repository);
        Ok(session.map(|session| (slot, session)))
    }

    pub(crate) async fn upload_received(
        &self,
        repository: RepoName,
        id: UploadId,
    ) -> Result<Option<u64>, Error> {
        let found = self.session(&repository, id).await?;
        Ok(found.filter(|(_, session)| session.finishing.is_none()).map(|(_, session)| session.received))
    }

    pub(crate) async fn open_upload(&self, repository: RepoName, id: UploadId) -> Result<Upload, NotOpened> {
        let busy = self.shared.busy.take(id).await.ok_or(NotOpened::Busy)?;
        let holder = nonce();
        let opening = async {
            loop {
                let found = self.session(&repository, id).await.map_err(NotOpened::Storage)?;
                let (slot, session) = found.ok_or(NotOpened::Unknown)?;
                if !session.is_taken(self.bucket.clock.now()) {
                    if session.finishing.is_some() {
                        return Err(NotOpened::Unknown);
                    }
                    let leased = Session { lease: Some(self.lease(&holder)), ..session.clone() };
                    let swapped = self.bucket.swap_json(&slot, &leased).await.map_err(NotOpened::Storage)?;
                    if let Some(written) = swapped {
                        return Ok((written, leased, session));
                    }
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        let (written, leased, session) = opened.map_err(|_| NotOpened::Busy)??;
        let gathered = match self.read_tail(id, &session).await {
            Ok(gathered) => gathered,
            Err(error) => {
                // Free again, or when the lease is over.
                let _ = self.bucket.swap_json(written.slot(), &session).await;
                return Err(NotOpened::Storage(error));
            }
        };
        Upload::open(self.clone(), id, busy, written, (leased, session), gathered).map_err(NotOpened::Storage)
    }

    pub(crate) async fn cancel_upload(&self, repository: RepoName, id: UploadId) -> Result<bool, Error> {
        let mut attempts = Attempts::default();
        loop {
            let Some((slot, session)) = self.session(&repository, id).await? else {
                return Ok(false);
            };
            // A request that is about to have stored it may not be told otherwise.
            let is_ending = session.finishing.is_some();
            if !is_ending && self.bucket.bury(&slot).await? {
                self.clean_up(id, Some(&session)).await?;
                return Ok(true);
            }
            if is_ending && !session.is_taken(self.bucket.clock.now()) {
                return Ok(false);
            }
            attempts.again(&keys::session(id)).await?;
        }
    }

    /// Deletes what a session had whose value is buried: nobody can add to it, for long at least.
    pub(super) async fn clean_up(&self, id: UploadId, session: Option<&Session>) -> Result<(), Error> {
        let data = keys::data(&id.to_string());
        if let Some(multipart) = session.and_then(|session| session.multipart.as_ref())
            && let Err(error) = self.bucket.store.abort_multipart(&data, multipart).await
        {
            // Completed, or aborted already.
            tracing::debug!(upload = %id, %error, "a multipart upload can't be aborted");
        }
        self.bucket.delete(&data).await?;
        self.forget_tails(id).await
    }

    pub(super) async fn forget_tails(&self, id: UploadId) -> Result<(), Error> {
        let session = keys::session(id);
        let below = self.bucket.list(&keys::upload(id)).map_ok(|found| found.location);
        let below: Vec<_> = below.try_collect().await?;
        self.bucket.forget(below.into_iter().filter(|key| *key != session)).await;
        Ok(())
    }

    /// The bytes that are in no part yet.
    async fn read_tail(&self, id: UploadId, session: &Session) -> Result<Vec<u8>, Error> {
        let Some(tail) = &session.tail else { return Ok(Vec::new()) };
        let key = keys::tail(id, tail);
        let tail = self.bucket.get(&key).await?.map(Vec::from);
        tail.ok_or(Error::Damaged {
            path: key.to_string().into(),
            what: "what a session received last is lost",
        })
    }

    /// Puts a session's bytes aside that are less than a part.
    pub(super) async fn write_tail(&self, id: UploadId, bytes: Vec<u8>) -> Result<String, Error> {
        let nonce = nonce();
        self.bucket.write(&keys::tail(id, &nonce), bytes.into()).await?;
        Ok(nonce)
    }

    pub(super) async fn write_part(
        &self,
        id: UploadId,
        multipart: &MultipartId,
        index: usize,
        bytes: Vec<u8>,
    ) -> Result<String, Error> {
        let key = keys::data(&id.to_string());
        let part = self.bucket.store.put_part(&key, multipart, index, bytes.into()).await;
        part.map(|part| part.content_id).map_err(|error| failed("write a part of", &key, error))
    }

    /// Replaces a session; fails where it is somebody else's now.
    pub(super) async fn put_session(&self, slot: &Slot, session: &Session) -> Result<Written, Error> {
        self.bucket.swap_json(slot, session).await?.ok_or(Error::SessionLost)
    }

    /// The digest of data that is in the bucket.
    pub(super) async fn hash_data(&self, id: UploadId, algorithm: Algorithm) -> Result<Digest, Error> {
        use object_store::ObjectStoreExt as _;
        let key = keys::data(&id.to_string());
        let read = |error| failed("read", &key, error);
        let mut pieces = self.bucket.store.get(&key).await.map_err(read)?.into_stream();
        let mut hasher = Hasher::new(algorithm);
        while let Some(piece) = pieces.next().await {
            hasher.update(&piece.map_err(read)?);
        }
        Ok(hasher.finish())
    }
}
