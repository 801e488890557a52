//! From a request's body into an upload: hashing and writing run beside receiving, and neither holds more than a
//! buffer's worth of memory.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::task::JoinHandle;

use super::{Error, Upload};

/// Gathered before it is written; as much again is being written meanwhile.
const BUFFER: usize = 256 << 10;
/// The same where there are many senders.
const SMALL_BUFFER: usize = 64 << 10;
const MANY: usize = 8;
/// A client that sends nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// How much more is read of a body that can't be kept, and for how long.
const DISCARD: usize = 256 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// How a body ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// All of it is in.
    Whole,
    /// The connection broke; what had arrived is in.
    Cut,
    /// The client fell silent; what had arrived is in.
    Idle,
    /// The blob would be larger than allowed; some of what arrived is in.
    TooLarge,
}

/// Appends a body to an upload. Everything that arrived is in, whichever way the body ends; nothing of it is where
/// storage fails. `append` blocks.
pub(super) async fn receive<E>(
    upload: Upload,
    body: &mut (impl Stream<Item = Result<Bytes, E>> + Send + Unpin),
    largest: u64,
    append: impl Fn(Upload, Vec<Bytes>) -> Result<Upload, Error> + Clone + Send + 'static,
) -> Result<(Upload, Received), Error> {
    let receiving = Receiving::start();
    let mut left = largest.saturating_sub(upload.received());
    let mut writer = Writer::Idle(Box::new(upload));
    let mut gathered = Vec::new();
    let mut size = 0;
    let end = loop {
        match tokio::time::timeout(IDLE, body.next()).await {
            Ok(Some(Ok(piece))) if piece.len() as u64 > left => break Received::TooLarge,
            Ok(Some(Ok(piece))) => {
                left -= piece.len() as u64;
                size += piece.len();
                gathered.push(piece);
            }
            Ok(Some(Err(_))) => break Received::Cut,
            Ok(None) => break Received::Whole,
            Err(_) => break Received::Idle,
        }
        if size >= receiving.buffer() {
            writer = writer.append(std::mem::take(&mut gathered), append.clone()).await?;
            size = 0;
        }
    };
    if !gathered.is_empty() {
        writer = writer.append(gathered, append).await?;
    }
    let upload = writer.wait().await?;
    Ok((upload, end))
}

/// A body is being received.
struct Receiving;

static RECEIVING: AtomicUsize = AtomicUsize::new(0);

impl Receiving {
    fn start() -> Self {
        RECEIVING.fetch_add(1, Ordering::Relaxed);
        Self
    }

    #[expect(clippy::unused_self, reason = "there is at least this one")]
    fn buffer(&self) -> usize {
        if RECEIVING.load(Ordering::Relaxed) > MANY { SMALL_BUFFER } else { BUFFER }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        RECEIVING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads on for a while without keeping anything. A client that is still sending does not see an answer that comes
/// before it has finished, but only a connection that breaks.
pub(crate) async fn discard<E>(body: &mut (impl Stream<Item = Result<Bytes, E>> + Send + Unpin)) {
    let mut left = DISCARD;
    let read = async {
        while let Some(Ok(piece)) = body.next().await
            && left > piece.len()
        {
            left -= piece.len();
        }
    };
    // Whether it comes to an end or not, the answer is sent.
    let _ = tokio::time::timeout(DISCARD_TIME, read).await;
}

/// The upload is either here or with the task that writes.
enum Writer {
    Idle(Box<Upload>),
    Busy(JoinHandle<Result<Upload, Error>>),
}

impl Writer {
    async fn wait(self) -> Result<Upload, Error> {
        match self {
            Self::Idle(upload) => Ok(*upload),
            Self::Busy(task) => task.await.map_err(Error::Task)?,
        }
    }

    /// Waits for the former pieces and starts to write these.
    async fn append(
        self,
        pieces: Vec<Bytes>,
        append: impl FnOnce(Upload, Vec<Bytes>) -> Result<Upload, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let upload = self.wait().await?;
        Ok(Self::Busy(tokio::task::spawn_blocking(move || append(upload, pieces))))
    }
}
