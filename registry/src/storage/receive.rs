//! From a request's body into an upload: hashing and writing run beside receiving, and neither holds more than a
//! buffer's worth of memory.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use tokio::{task::JoinHandle, time::Instant};

use super::{Error, Upload};

/// Gathered before it is written, for all senders together; as much again is being written meanwhile. Each time another
/// thread is woken, so it should be much.
const GATHERED: usize = 2 << 20;
/// For one sender, however few or many there are.
const LARGEST_BUFFER: usize = 1 << 20;
const SMALLEST_BUFFER: usize = 64 << 10;
/// Pieces of this size, a frame of HTTP/2, and larger are not copied.
const WHOLE: usize = 16 << 10;
/// A client that sends less than [`LEAST`] in so long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes. Each body keeps a place that others may wait for.
const LEAST: usize = 64 << 10;
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
    let mut gathered = Gathered::default();
    let (mut due, mut lately) = (Instant::now() + IDLE, 0);
    let end = loop {
        match tokio::time::timeout_at(due, body.next()).await {
            Ok(Some(Ok(piece))) if piece.len() as u64 > left => break Received::TooLarge,
            Ok(Some(Ok(piece))) => {
                left -= piece.len() as u64;
                lately += piece.len();
                gathered.push(piece);
            }
            Ok(Some(Err(_))) => break Received::Cut,
            Ok(None) => break Received::Whole,
            Err(_) => break Received::Idle,
        }
        if gathered.size >= receiving.buffer() {
            writer = writer.append(std::mem::take(&mut gathered).pieces(), append.clone()).await?;
        }
        // After what was written: that a disk is slow is not the client's fault.
        if lately >= LEAST {
            (due, lately) = (Instant::now() + IDLE, 0);
        }
    };
    if gathered.size > 0 {
        writer = writer.append(gathered.pieces(), append).await?;
    }
    let upload = writer.wait().await?;
    Ok((upload, end))
}

/// What is to be written next. Clients may send a body byte by byte; each piece costs a system call and holds the
/// buffer that it was read into, so small ones are put together.
#[derive(Default)]
struct Gathered {
    whole: Vec<Bytes>,
    /// Comes after them.
    small: BytesMut,
    size: usize,
}

impl Gathered {
    fn push(&mut self, piece: Bytes) {
        self.size += piece.len();
        if piece.len() < WHOLE {
            self.small.extend_from_slice(&piece);
        } else {
            self.put_small_away();
            self.whole.push(piece);
        }
    }

    fn put_small_away(&mut self) {
        if !self.small.is_empty() {
            self.whole.push(self.small.split().freeze());
        }
    }

    fn pieces(mut self) -> Vec<Bytes> {
        self.put_small_away();
        self.whole
    }
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
        (GATHERED / RECEIVING.load(Ordering::Relaxed)).clamp(SMALLEST_BUFFER, LARGEST_BUFFER)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_byte_by_byte_is_written_at_once() {
        let content: Vec<u8> = (0..LARGEST_BUFFER).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut gathered = Gathered::default();
        for byte in content.chunks(1) {
            gathered.push(Bytes::copy_from_slice(byte));
        }
        assert_eq!(gathered.size, LARGEST_BUFFER);
        assert_eq!(gathered.pieces(), [content]);
    }

    #[test]
    fn large_pieces_stay_what_they_are_and_the_order_too() {
        let large = Bytes::from(vec![7; WHOLE]);
        let mut gathered = Gathered::default();
        for piece in [Bytes::from_static(b"a"), Bytes::from_static(b"b"), large.clone(), large.clone()] {
            gathered.push(piece);
        }
        gathered.push(Bytes::from_static(b"c"));
        let pieces = gathered.pieces();
        assert_eq!(pieces, [&b"ab"[..], &large, &large, b"c"]);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
    }
}
