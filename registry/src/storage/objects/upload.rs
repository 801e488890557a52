//! A session that one request has for itself: gathers bytes to parts, and in the end makes them a blob.

use bytes::Bytes;
use object_store::MultipartId;
use oci::{Algorithm, Digest, Hasher};

use super::{
    Objects,
    blobs::{Joined, Source},
    bucket::{Written, failed},
    contents::Data,
    keys,
    sessions::{LEASE, Session},
};
use crate::storage::{Error, Finished, UploadId, busy::Guard};

/// Bytes of each part but the last, held in memory until it is full. S3 asks for at least 5 MiB, and some stores that
/// all are as large.
pub(super) const PART: usize = 8 << 20;
/// S3 takes so many parts.
const MOST_PARTS: u64 = 10_000;
/// Bytes of the largest blob.
pub(crate) const LARGEST_BLOB: u64 = MOST_PARTS * PART as u64;

/// A session that a request has taken.
#[derive(Debug)]
pub(crate) struct Upload {
    objects: Objects,
    id: UploadId,
    /// As it is in the bucket.
    written: Written,
    session: Session,
    /// As it was before this request.
    began: Session,
    hasher: Hasher,
    /// Received, and in no part yet.
    gathered: Vec<u8>,
    received: u64,
    /// The session is nobody's again, or no more.
    is_over: bool,
    _busy: Guard,
}

/// A request that ended in whatever way gives its session back as it was.
impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_over {
            let release = self.release();
            self.objects.runtime.spawn(release);
        }
    }
}

impl Upload {
    /// Goes on with a session that has just been taken, with what it was before and the bytes that are in no part.
    pub(super) fn open(
        objects: Objects,
        id: UploadId,
        busy: Guard,
        written: Written,
        (session, began): (Session, Session),
        gathered: Vec<u8>,
    ) -> Result<Self, Error> {
        let hasher = Hasher::resume(&began.hash);
        let hasher = hasher.ok_or_else(|| written.slot().damaged("it should hold a hash"))?;
        if (began.parts.len() * PART + gathered.len()) as u64 != began.received {
            return Err(written.slot().damaged("it does not hold what it received"));
        }
        let received = began.received;
        Ok(Self {
            objects,
            id,
            written,
            session,
            began,
            hasher,
            gathered,
            received,
            is_over: false,
            _busy: busy,
        })
    }

    pub(crate) fn id(&self) -> UploadId {
        self.id
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn appended(&self) -> u64 {
        self.received - self.began.received
    }

    /// Takes in the next bytes; blocks. After an error it is as if this request had never been.
    pub(crate) fn append(self, pieces: Vec<Bytes>) -> Result<Self, Error> {
        let runtime = self.objects.runtime.clone();
        runtime.block_on(async move {
            let mut this = self;
            match this.take_in(pieces).await {
                Ok(()) => Ok(this),
                Err(error) => {
                    this.give_back().await;
                    Err(error)
                }
            }
        })
    }

    async fn take_in(&mut self, pieces: Vec<Bytes>) -> Result<(), Error> {
        for mut piece in pieces {
            while !piece.is_empty() {
                let now = piece.split_to(piece.len().min(PART - self.gathered.len()));
                self.hasher.update(&now);
                self.gathered.extend_from_slice(&now);
                self.received += now.len() as u64;
                if self.gathered.len() == PART {
                    self.write_part().await?;
                    self.session.tail = None;
                    self.put_down().await?;
                }
            }
        }
        // Somebody who sends slowly keeps the session all the same.
        self.renew().await
    }

    /// Sees to it that the lease lasts until the next write is over, whichever way it ends.
    async fn renew(&mut self) -> Result<(), Error> {
        let Some(lease) = &self.session.lease else { return Err(Error::SessionLost) };
        if lease.until < self.objects.bucket.clock.now() + LEASE.as_secs() / 2 {
            self.session.lease = Some(self.objects.lease(&lease.holder));
            self.written = self.objects.put_session(self.written.slot(), &self.session).await?;
        }
        Ok(())
    }

    /// Makes what was gathered the next part.
    async fn write_part(&mut self) -> Result<(), Error> {
        let multipart = if let Some(multipart) = &self.session.multipart {
            multipart.clone()
        } else {
            let key = keys::data(&self.id.to_string());
            let multipart = self.objects.bucket.store.create_multipart(&key).await;
            let multipart = multipart.map_err(|error| failed("begin", &key, error))?;
            self.session.multipart = Some(multipart.clone());
            // Also after a roll-back, so that the session has one at most.
            self.began.multipart = Some(multipart.clone());
            self.written = self.objects.put_session(self.written.slot(), &self.session).await?;
            multipart
        };
        self.renew().await?;
        let (index, bytes) = (self.session.parts.len(), std::mem::take(&mut self.gathered));
        self.session.parts.push(self.objects.write_part(self.id, &multipart, index, bytes).await?);
        Ok(())
    }

    /// Says in the bucket how far it came.
    async fn put_down(&mut self) -> Result<(), Error> {
        self.session.received = self.received;
        self.session.hash = self.hasher.pause();
        self.session.touched = self.objects.bucket.clock.now();
        self.session.lease = self.session.lease.take().map(|lease| self.objects.lease(&lease.holder));
        self.written = self.objects.put_session(self.written.slot(), &self.session).await?;
        Ok(())
    }

    /// Puts it aside for the next request: what it received is in the bucket then.
    pub(crate) async fn suspend(mut self) -> Result<(), Error> {
        let suspended = self.try_suspend().await;
        match suspended {
            Ok(()) => self.is_over = true,
            Err(_) => self.give_back().await,
        }
        suspended
    }

    async fn try_suspend(&mut self) -> Result<(), Error> {
        let mut session = Session { lease: None, ..self.session.clone() };
        if self.appended() > 0 {
            let gathered = std::mem::take(&mut self.gathered);
            let is_empty = gathered.is_empty();
            session.tail =
                if is_empty { None } else { Some(self.objects.write_tail(self.id, gathered).await?) };
            session.received = self.received;
            session.hash = self.hasher.pause();
            session.touched = self.objects.bucket.clock.now();
        }
        self.objects.put_session(self.written.slot(), &session).await?;
        let former = self.began.tail.clone().filter(|former| session.tail.as_ref() != Some(former));
        self.objects.bucket.forget(former.map(|former| keys::tail(self.id, &former))).await;
        Ok(())
    }

    /// Forgets this request.
    pub(crate) async fn roll_back(mut self) -> Result<(), Error> {
        self.is_over = true;
        self.release().await
    }

    /// Where this fails the session is free when its lease is over.
    async fn give_back(&mut self) {
        self.is_over = true;
        if let Err(error) = self.release().await {
            tracing::warn!(upload = %self.id, %error, "a session stays taken for a while");
        }
    }

    /// Makes the session what it was, if it is still this request's: whatever was written last, heard of or not.
    fn release(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let (objects, id, began) = (self.objects.clone(), self.id, self.began.clone());
        let ours = self.session.lease.as_ref().map(|lease| lease.holder.clone());
        async move {
            let slot = objects.bucket.read(&keys::session(id)).await?;
            let lease = slot.json::<Session>()?.and_then(|found| found.lease);
            if lease.is_some_and(|lease| Some(lease.holder) == ours) {
                objects.put_session(&slot, &began).await?;
            }
            Ok(())
        }
    }

    /// Ends the session: its data becomes a blob of the repository if it has this digest, and goes away if not.
    pub(crate) async fn finish(mut self, digest: Digest) -> Result<Finished, Error> {
        let (objects, id) = (self.objects.clone(), self.id);
        let is_same = digest.algorithm() == self.hasher.algorithm();
        if is_same {
            let actual = self.hasher.clone().finish();
            if actual != digest {
                return self.give_up(Finished::Mismatch(actual)).await;
            }
        }
        let is_small = self.session.parts.is_empty();
        let actual = match self.write_data(is_small, (!is_same).then(|| digest.algorithm())).await {
            Ok(actual) => actual,
            Err(error) => {
                self.give_back().await;
                return Err(error);
            }
        };
        if let Some(actual) = actual.filter(|actual| *actual != digest) {
            return self.give_up(Finished::Mismatch(actual)).await;
        }
        let finishing = Session { finishing: Some(digest.clone()), ..self.session.clone() };
        let written = objects.bucket.swap_json(self.written.slot(), &finishing).await?;
        self.is_over = true;
        let Some(written) = written else {
            // Cancelled: its data goes with it. Or taken over: its data is another request's.
            return Ok(Finished::Unknown);
        };
        let size = self.received;
        let data = Data { id: id.to_string(), size };
        let quota = objects.take_in(&finishing.repository, &digest, size).await;
        let _one_at_a_time = match quota {
            Ok(one_at_a_time) => one_at_a_time,
            Err(error) => {
                if objects.bucket.bury(written.slot()).await? {
                    objects.clean_up(id, Some(&finishing)).await?;
                }
                return Err(error);
            }
        };
        let joined = objects.join(&finishing.repository, &digest, Source::New(&data)).await;
        let joined = match joined {
            Ok(joined) => joined,
            Err(error) => {
                // It may stand for the digest, so that collection decides what becomes of it.
                let free = Session { lease: None, ..finishing };
                let _ = objects.bucket.swap_json(written.slot(), &free).await;
                return Err(error);
            }
        };
        let unused = finishing.multipart.filter(|_| is_small);
        objects.end(id, joined, unused, self.began.tail.is_some()).await;
        Ok(Finished::Stored)
    }

    /// Makes all that was received one object; its digest, where that was asked for.
    async fn write_data(
        &mut self,
        is_small: bool,
        algorithm: Option<Algorithm>,
    ) -> Result<Option<Digest>, Error> {
        self.renew().await?;
        self.write_rest(is_small).await?;
        if !is_small {
            self.complete().await?;
        }
        let digest = match algorithm {
            None => None,
            Some(algorithm) => Some(self.objects.hash_data(self.id, algorithm).await?),
        };
        self.renew().await?;
        Ok(digest)
    }

    /// Writes what was gathered: as the last part, or as all there is.
    async fn write_rest(&mut self, is_small: bool) -> Result<(), Error> {
        if is_small {
            let bytes = std::mem::take(&mut self.gathered).into();
            return self.objects.bucket.write(&keys::data(&self.id.to_string()), bytes).await;
        }
        if self.gathered.is_empty() { Ok(()) } else { self.write_part().await }
    }

    async fn complete(&self) -> Result<(), Error> {
        let key = keys::data(&self.id.to_string());
        let Some(multipart) = &self.session.multipart else { return Ok(()) };
        let parts = self.session.part_ids();
        let completed = self.objects.bucket.store.complete_multipart(&key, multipart, parts).await;
        match completed {
            Ok(_) => Ok(()),
            // The answer may be all that was lost.
            Err(_) if self.objects.bucket.size(&key).await? == Some(self.received) => Ok(()),
            Err(error) => Err(failed("complete", &key, error)),
        }
    }

    async fn give_up(mut self, finished: Finished) -> Result<Finished, Error> {
        self.is_over = true;
        if self.objects.bucket.bury(self.written.slot()).await? {
            self.objects.clean_up(self.id, Some(&self.session)).await?;
        }
        Ok(finished)
    }
}

impl Objects {
    /// Forgets a session whose data became a blob. What is left where this fails is collected.
    async fn end(&self, id: UploadId, joined: Joined, unused: Option<MultipartId>, had_tail: bool) {
        let ended = async {
            if let Some(multipart) = unused {
                let key = keys::data(&id.to_string());
                let aborted = self.bucket.store.abort_multipart(&key, &multipart).await;
                aborted.map_err(|error| failed("abort", &key, error))?;
            }
            if joined == Joined::WithOther {
                self.bucket.delete(&keys::data(&id.to_string())).await?;
            }
            if had_tail {
                self.forget_tails(id).await?;
            }
            self.bucket.delete(&keys::session(id)).await
        };
        if let Err(error) = ended.await {
            tracing::warn!(upload = %id, %error, "what is left of a session is collected later");
        }
    }
}
