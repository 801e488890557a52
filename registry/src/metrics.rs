//! Numbers for Prometheus. Labels come from fixed lists, so that no client can make more of them.

use std::{fmt::Write as _, sync::atomic::AtomicU64, time::Duration};

use http::StatusCode;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::api::Operation;

/// Seconds; pulls of large blobs take minutes.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: Operation,
    status: StatusClass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: Operation,
}

/// The first digit of a status; `Aborted` where the client was gone before there was an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum StatusClass {
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
    Aborted,
}

impl From<Option<StatusCode>> for StatusClass {
    fn from(status: Option<StatusCode>) -> Self {
        match status.map(|status| status.as_u16() / 100) {
            None => Self::Aborted,
            Some(1) => Self::Informational,
            Some(2) => Self::Success,
            Some(3) => Self::Redirection,
            Some(4) => Self::ClientError,
            Some(_) => Self::ServerError,
        }
    }
}

/// Whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Done,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    duration: Family<OperationLabel, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    received: Counter,
    sent: Counter,
    damaged: Counter,
    collections: Family<OutcomeLabel, Counter>,
    collected: Counter,
    collected_bytes: Counter,
    scrubs: Counter,
    storage_used: Gauge<u64, AtomicU64>,
    storage_size: Gauge<u64, AtomicU64>,
    feed: Gauge<u64, AtomicU64>,
    read_only: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("berth_registry");
        let requests = Family::default();
        let duration: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let (in_flight, received, sent, damaged) =
            (Gauge::default(), Counter::default(), Counter::default(), Counter::default());
        let (storage_used, storage_size, feed) = (Gauge::default(), Gauge::default(), Gauge::default());
        let read_only = Gauge::default();
        registry.register("requests", "Requests that have ended", requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from a request's headers to the last byte of its answer",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register("requests_in_flight", "Requests that have not ended", in_flight.clone());
        registry.register_with_unit("received", "Bytes of request bodies", Unit::Bytes, received.clone());
        registry.register_with_unit("sent", "Bytes of response bodies", Unit::Bytes, sent.clone());
        registry.register("damaged", "Times that content was found damaged or lost", damaged.clone());
        let collections = Family::default();
        let (collected, collected_bytes, scrubs) =
            (Counter::default(), Counter::default(), Counter::default());
        registry.register("collections", "Collections that have ended", collections.clone());
        registry.register("collected", "Things that collections took away", collected.clone());
        registry.register_with_unit(
            "collected",
            "Room that collections gave back",
            Unit::Bytes,
            collected_bytes.clone(),
        );
        registry.register("scrubs", "Times that all content was compared with its digests", scrubs.clone());
        registry.register_with_unit(
            "storage_used",
            "Taken on the storage's file system",
            Unit::Bytes,
            storage_used.clone(),
        );
        registry.register_with_unit(
            "storage_size",
            "Size of the storage's file system",
            Unit::Bytes,
            storage_size.clone(),
        );
        registry.register_with_unit(
            "feed",
            "What the feed of pushes and deletions holds",
            Unit::Bytes,
            feed.clone(),
        );
        registry.register(
            "read_only",
            "1 where nothing can be changed: the disk could not be synced, or had no room for what a start had to do again",
            read_only.clone(),
        );
        Self {
            registry,
            requests,
            duration,
            in_flight,
            received,
            sent,
            damaged,
            collections,
            collected,
            collected_bytes,
            scrubs,
            storage_used,
            storage_size,
            feed,
            read_only,
        }
    }

    /// How many things a collection took away and how many bytes it gave back; none where it failed.
    pub(crate) fn collection_ended(&self, done: Option<(u64, u64)>) {
        let outcome = if done.is_some() { Outcome::Done } else { Outcome::Failed };
        self.collections.get_or_create(&OutcomeLabel { outcome }).inc();
        let (collected, bytes) = done.unwrap_or_default();
        self.collected.inc_by(collected);
        self.collected_bytes.inc_by(bytes);
    }

    pub(crate) fn scrub_ended(&self) {
        self.scrubs.inc();
    }

    pub(crate) fn request_started(&self) {
        self.in_flight.inc();
    }

    /// `status` is none where the client was gone before there was an answer.
    pub(crate) fn request_ended(
        &self,
        operation: Operation,
        status: Option<StatusCode>,
        duration: Duration,
        (received, sent): (u64, u64),
    ) {
        self.in_flight.dec();
        self.requests.get_or_create(&Labels { operation, status: status.into() }).inc();
        self.duration.get_or_create(&OperationLabel { operation }).observe(duration.as_secs_f64());
        self.received.inc_by(received);
        self.sent.inc_by(sent);
    }

    /// The exposition format.
    pub(crate) fn render(
        &self,
        usage: Option<crate::storage::Usage>,
        damaged: u64,
        feed_bytes: u64,
        read_only: bool,
    ) -> String {
        self.feed.set(feed_bytes);
        self.read_only.set(read_only.into());
        if let Some(usage) = usage {
            self.storage_used.set(usage.used_bytes);
            self.storage_size.set(usage.total_bytes);
        }
        self.damaged.inc_by(damaged.saturating_sub(self.damaged.get()));
        let mut page = String::new();
        if let Err(error) = text::encode(&mut page, &self.registry) {
            let _ = write!(page, "# failed: {error}");
        }
        page
    }
}
