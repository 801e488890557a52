//! The body of a request: counted, and at hand after whoever read it has given up.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::storage;

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
