//! One blob: not at all where it is there, by a mount where the target has it elsewhere, else from the source.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::StatusCode;
use tokio::sync::Mutex;

use super::{Copier, Error, Place, flight::Places, reading::Reading};
use crate::{
    Descriptor, Digest, RepoName,
    client::{self, Session, Started, Stream, backoff},
};

/// Uploads of one blob that fail before anything more has arrived.
const ATTEMPTS: u32 = 5;

/// A blob on its way, shared with the request that sends it.
struct Transfer {
    reading: Reading,
    /// Why the source gives no more.
    failed: Option<Error>,
}

impl Copier {
    /// Brings a blob to the target's repository.
    pub(super) async fn blob(&self, place: &Place, blob: &Descriptor) -> Result<(), Error> {
        let mut places = self.0.blobs.join(&blob.digest).await;
        if places.has(&place.target) {
            return Ok(());
        }
        let _permit = self.permit().await;
        if self.target().has_blob(&place.target, &blob.digest).await.map_err(Error::Target)? {
            self.skip(blob.size);
        } else if let Some(session) = self.begin(&place.target, &blob.digest, &mut places).await? {
            self.send(place, blob, session).await?;
        } else {
            self.skip(blob.size);
        }
        places.add(&place.target);
        Ok(())
    }

    fn skip(&self, bytes: u64) {
        self.0.counters.skipped.fetch_add(bytes, Ordering::Relaxed);
    }

    /// None where the blob was mounted.
    async fn begin(
        &self,
        repository: &RepoName,
        digest: &Digest,
        places: &mut Places,
    ) -> Result<Option<Session>, Error> {
        let from = places.any().cloned();
        if from.is_some() || self.options().mounts_from_anywhere {
            match self.target().start_upload(repository, Some((digest, from.as_ref()))).await {
                Ok(Started::Mounted) => return Ok(None),
                Ok(Started::Session(session)) => {
                    if let Some(from) = from {
                        places.forget(&from);
                    }
                    return Ok(Some(session));
                }
                // Who may not mount may push all the same.
                Err(client::Error::Unauthorized { .. }) => {}
                Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {}
                Err(error) => return Err(Error::Target(error)),
            }
        }
        self.session(repository).await.map(Some)
    }

    async fn session(&self, repository: &RepoName) -> Result<Session, Error> {
        match self.target().start_upload(repository, None).await.map_err(Error::Target)? {
            Started::Session(session) => Ok(session),
            Started::Mounted => Err(Error::Target(client::Error::Answer {
                host: self.target().host(),
                what: format!("POST /v2/{repository}/blobs/uploads/"),
                reason: "it says that it has a blob that nobody named".to_owned(),
            })),
        }
    }

    /// Sends a blob, from where the target has it after each cut. What is damaged is given up.
    async fn send(&self, place: &Place, blob: &Descriptor, session: Session) -> Result<(), Error> {
        let mut reading = Reading::new(self.source(), &place.source, blob, self.0.pace.clone());
        if !self.options().target_verifies {
            reading.verify();
        }
        let transfer = Arc::new(Mutex::new(Transfer { reading, failed: None }));
        let (mut session, mut offset, mut failures) = (session, 0, 0);
        loop {
            let error = match self.try_send(&transfer, blob, &session, offset).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let Error::Target(reason) = &error else {
                self.give_up(&session).await;
                return Err(error);
            };
            if reason.status() == Some(StatusCode::BAD_REQUEST)
                && !transfer.lock().await.reading.is_verified()
            {
                // It is not what it should be, at the source or because of what lies between: looking says which.
                transfer.lock().await.reading.verify();
                self.give_up(&session).await;
                (session, offset) = (self.session(&place.target).await?, 0);
                continue;
            }
            let lost = matches!(
                reason.status(),
                Some(StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::CONFLICT)
            );
            failures += 1;
            if failures >= ATTEMPTS || !(lost || reason.is_temporary()) {
                self.give_up(&session).await;
                return Err(error);
            }
            tracing::debug!(%error, digest = %blob.digest, offset, "an upload was cut");
            tokio::time::sleep(backoff(failures - 1)).await;
            let arrived = if lost { None } else { self.arrived(&mut session).await? };
            match arrived {
                Some(arrived) if arrived <= blob.size => {
                    if arrived > offset {
                        failures = 0;
                    }
                    offset = arrived;
                }
                _ => {
                    self.give_up(&session).await;
                    session = self.session(&place.target).await?;
                    offset = 0;
                }
            }
            transfer.lock().await.reading.rewind(offset);
        }
    }

    async fn arrived(&self, session: &mut Session) -> Result<Option<u64>, Error> {
        self.target().upload_offset(session).await.map_err(Error::Target)
    }

    async fn give_up(&self, session: &Session) {
        if let Err(error) = self.target().cancel_upload(session).await {
            tracing::debug!(%error, "an upload that was given up stays for a while");
        }
    }

    async fn try_send(
        &self,
        transfer: &Arc<Mutex<Transfer>>,
        blob: &Descriptor,
        session: &Session,
        offset: u64,
    ) -> Result<(), Error> {
        if offset == blob.size {
            // A request without a body would not wait for what it should have had.
            let mut transfer = transfer.lock().await;
            while transfer.reading.next().await?.is_some() {}
        }
        let progress = Arc::new(AtomicU64::new(0));
        let bytes = self.stream(Arc::clone(transfer), Arc::clone(&progress));
        let range = (offset, blob.size);
        let sent = self.target().finish_upload(session, &blob.digest, range, bytes, progress).await;
        match (sent, transfer.lock().await.failed.take()) {
            (_, Some(error)) => Err(error),
            (sent, None) => sent.map_err(Error::Target),
        }
    }

    /// Pieces as the target takes them; breaks where the source does.
    fn stream(&self, transfer: Arc<Mutex<Transfer>>, progress: Arc<AtomicU64>) -> Stream {
        let counters = Arc::clone(&self.0.counters);
        futures::stream::unfold(Some(transfer), move |transfer| {
            let (counters, progress) = (Arc::clone(&counters), Arc::clone(&progress));
            async move {
                let transfer = transfer?;
                let next = {
                    let mut transfer = transfer.lock().await;
                    let next = transfer.reading.next().await;
                    next.map_err(|error| transfer.failed = Some(error))
                };
                match next {
                    Ok(None) => None,
                    Ok(Some(piece)) => {
                        count(&counters.moved, &piece);
                        count(&progress, &piece);
                        Some((Ok(piece), Some(transfer)))
                    }
                    Err(()) => Some((Err("the source gives no more".into()), None)),
                }
            }
        })
        .boxed()
    }
}

fn count(counter: &AtomicU64, piece: &Bytes) {
    counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
}
