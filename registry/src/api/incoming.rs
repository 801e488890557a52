//! The body of a request: counted, and at hand after whoever read it has given up.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::shares::Memory;
use crate::{error::Error, storage};

/// Counts what comes in.
pub(super) struct Incoming {
    /// None once it has broken.
    body: Option<Body>,
    received: Arc<AtomicU64>,
    rest: Rest,
}

/// What nobody wanted of a body.
#[derive(Clone, Default)]
pub(super) struct Rest(Arc<Mutex<Option<Body>>>);

impl Incoming {
    pub(super) fn new(body: Body, received: Arc<AtomicU64>) -> (Self, Rest) {
        let rest = Rest::default();
        (Self { body: Some(body), received, rest: rest.clone() }, rest)
    }
}

impl Rest {
    /// Reads on for a while without keeping anything. A client that is still sending does not see an answer that
    /// comes before it has finished, but only a connection that breaks.
    pub(super) async fn discard(&self) {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(rest) = rest {
            storage::discard(&mut rest.into_data_stream()).await;
        }
    }
}

/// All of a body that has at most so many bytes and comes in that time; none where it has more. It takes no more memory
/// than it has bytes, in however small pieces it comes, and waits until there is that.
pub(super) async fn whole(
    body: Body,
    most: usize,
    memory: &mut Memory,
    patience: Duration,
) -> Result<Option<Bytes>, Error> {
    let mut body = body.into_data_stream();
    let mut whole = BytesMut::new();
    let read = async {
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|_| Error::Cut)?;
            if whole.len() + piece.len() > most {
                return Ok(None);
            }
            memory.hold(whole.len() + piece.len()).await?;
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.freeze()))
    };
    tokio::time::timeout(patience, read).await.unwrap_or(Err(Error::Idle))
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        *self.rest.0.lock().unwrap_or_else(PoisonError::into_inner) = unread;
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.received.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Some(Err(_)) | None => self.body = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::{
        super::shares::{Shares, Who},
        *,
    };

    async fn whole(body: Body, most: usize, patience: Duration) -> Result<Option<Bytes>, Error> {
        let share = Shares::new(100).of(&Who::Login("one".into()));
        super::whole(body, most, &mut Memory::new(share, 1024), patience).await
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    fn body(pieces: impl Iterator<Item = Result<&'static str, &'static str>> + Send + 'static) -> Body {
        Body::from_stream(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_is_whole_or_too_large_or_cut() {
        let pieces = || iter::repeat_n(Ok("x"), 10);
        assert_eq!(whole(body(pieces()), 10, PATIENCE).await.unwrap(), Some(Bytes::from("x".repeat(10))));
        assert_eq!(whole(body(pieces()), 9, PATIENCE).await.unwrap(), None);
        let cut = whole(body(pieces().chain([Err("gone")])), 20, PATIENCE).await;
        assert!(matches!(cut, Err(Error::Cut)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_go_on_is_given_up() {
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>());
        assert!(matches!(whole(silent, 10, PATIENCE).await, Err(Error::Idle)));
    }

    #[tokio::test]
    async fn what_nobody_wanted_is_at_hand() {
        let received = Arc::new(AtomicU64::new(0));
        let (incoming, rest) = Incoming::new(body(iter::repeat_n(Ok("xx"), 10)), Arc::clone(&received));
        assert!(whole(Body::new(incoming), 5, PATIENCE).await.unwrap().is_none());
        assert_eq!(received.load(Ordering::Relaxed), 6);
        let unread = rest.0.lock().unwrap().take().unwrap();
        assert_eq!(whole(unread, 100, PATIENCE).await.unwrap().unwrap().len(), 14);
    }
}
