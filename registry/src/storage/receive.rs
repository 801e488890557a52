//! From a request's body into an upload: hashing and writing run beside receiving, and neither holds more than a
//! buffer's worth of memory.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::task::JoinHandle;

use super::{Error, Upload};

/// Gathered before it is written; as much again is being written meanwhile.
const BUFFER: usize = 256 << 10;
/// A client that sends nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(60);

/// How a body ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// All of it is in.
    Whole,
    /// The connection broke; what had arrived is in.
    Cut,
    /// The client fell silent; what had arrived is in.
    Idle,
}

/// Appends a body to an upload. Everything that arrived is in, whichever way the body ends.
pub(crate) async fn receive<E>(
    upload: Upload,
    body: impl Stream<Item = Result<Bytes, E>> + Send,
) -> Result<(Upload, Received), Error> {
    tokio::pin!(body);
    let mut writer = Writer::Idle(Box::new(upload));
    let mut gathered = Vec::new();
    let mut size = 0;
    let end = loop {
        match tokio::time::timeout(IDLE, body.next()).await {
            Ok(Some(Ok(piece))) => {
                size += piece.len();
                gathered.push(piece);
            }
            Ok(Some(Err(_))) => break Received::Cut,
            Ok(None) => break Received::Whole,
            Err(_) => break Received::Idle,
        }
        if size >= BUFFER {
            writer = writer.append(std::mem::take(&mut gathered)).await?;
            size = 0;
        }
    };
    let upload = writer.append(gathered).await?.wait().await?;
    Ok((upload, end))
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
    async fn append(self, pieces: Vec<Bytes>) -> Result<Self, Error> {
        let mut upload = self.wait().await?;
        Ok(Self::Busy(tokio::task::spawn_blocking(move || {
            upload.append(&pieces)?;
            Ok(upload)
        })))
    }
}
