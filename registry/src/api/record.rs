//! What is logged and counted of a request: exactly one line, when the last byte of its answer is gone or the client
//! is.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use oci::Route;
use uuid::Uuid;

use super::{
    DOCKER_CONTENT_DIGEST, Operation,
    incoming::{Incoming, Rest},
};
use crate::metrics::Metrics;

/// A request under way. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Record {
    metrics: Arc<Metrics>,
    id: String,
    method: Method,
    path: String,
    peer: SocketAddr,
    started: Instant,
    operation: Operation,
    /// Who sends it. Only one that was right: people type passwords where a username should be.
    login: Option<Arc<str>>,
    repository: Option<String>,
    reference: Option<String>,
    status: Option<StatusCode>,
    received: Arc<AtomicU64>,
    sent: u64,
    /// Bytes that the answer has.
    length: Option<u64>,
}

impl Record {
    pub(super) fn start(metrics: Arc<Metrics>, request: &Request, peer: SocketAddr) -> Self {
        metrics.request_started();
        Self {
            metrics,
            id: Uuid::new_v4().to_string(),
            method: request.method().clone(),
            path: request.uri().path().chars().take(1024).collect(),
            peer,
            started: Instant::now(),
            operation: Operation::Other,
            login: None,
            repository: None,
            reference: None,
            status: None,
            received: Arc::default(),
            sent: 0,
            length: None,
        }
    }

    /// Names the request in answers and in the log.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn routed(&mut self, route: &Route) {
        self.repository = route.repository().map(ToString::to_string);
        self.reference = match route {
            Route::Manifest(_, reference) => Some(reference.to_string()),
            Route::Blob(_, digest) | Route::Referrers(_, digest) => Some(digest.to_string()),
            _ => None,
        };
    }

    pub(super) fn operation(&mut self, operation: Operation) {
        self.operation = operation;
    }

    /// Who proved to send it.
    pub(super) fn login(&mut self, login: Option<Arc<str>>) {
        self.login = login;
    }

    /// Counts what comes in.
    pub(super) fn count_received(&self, body: Body) -> (Body, Rest) {
        let (body, rest) = Incoming::new(body, Arc::clone(&self.received));
        (Body::new(body), rest)
    }

    /// Whether anything has come in.
    pub(super) fn has_received(&self) -> bool {
        self.received.load(Ordering::Relaxed) > 0
    }

    /// Counts what goes out, and ends with it.
    pub(super) fn follow(mut self, response: Response) -> Response {
        self.status = Some(response.status());
        let digest = response.headers().get(DOCKER_CONTENT_DIGEST).and_then(|digest| digest.to_str().ok());
        if let Some(digest) = digest {
            self.reference = Some(digest.to_owned());
        }
        self.length = response.body().size_hint().exact().or_else(|| {
            let length = response.headers().get(header::CONTENT_LENGTH)?;
            length.to_str().ok()?.parse().ok()
        });
        response.map(|body| Body::new(Outgoing { body, record: self }))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let received = self.received.load(Ordering::Relaxed);
        self.metrics.request_ended(self.operation, self.status, duration, (received, self.sent));
        tracing::info!(
            request = self.id,
            peer = %self.peer,
            login = self.login.as_deref(),
            method = %self.method,
            path = self.path,
            repository = self.repository,
            digest = self.reference,
            status = self.status.map(|status| status.as_u16()),
            received_bytes = received,
            sent_bytes = self.sent,
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            complete = self.length == Some(self.sent),
            "request"
        );
    }
}

struct Outgoing {
    body: Body,
    record: Record,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.record.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Some(Err(error)) => {
                tracing::error!(request = self.record.id, %error, "an answer was cut short");
            }
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
