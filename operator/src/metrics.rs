//! The operator's metrics, in Prometheus' text format at `/metrics`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, routing::get};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

mod replications;

/// What is counted. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    requests: Family<Method, Counter>,
    writes: Family<Kind, Counter>,
    reconciles: Family<Outcome, Counter>,
    /// How far Replications are.
    pub(crate) replications: replications::Replications,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    outcome: &'static str,
}

impl Metrics {
    /// A request is about to be sent to the API server, of whatever kind.
    pub(crate) fn asked(&self, method: &http::Method) {
        self.requests.get_or_create(&Method { method: method.to_string() }).inc();
    }

    /// A mutating request for an object of this kind is about to be sent.
    pub(crate) fn wrote(&self, kind: &str) {
        self.writes.get_or_create(&Kind { kind: kind.into() }).inc();
    }

    /// An object of this kind was reconciled; `outcome` is `ok` or the name of an error.
    pub(crate) fn reconciled(&self, kind: &'static str, outcome: &'static str) {
        self.reconciles.get_or_create(&Outcome { kind, outcome }).inc();
    }

    /// Serves `/metrics`.
    pub(crate) fn router(&self) -> Router {
        let mut registry = Registry::with_prefix("berth_operator");
        registry.register("requests", "Requests to the API server, watches included", self.requests.clone());
        registry.register("writes", "Mutating requests to the API server", self.writes.clone());
        registry.register("reconciles", "Reconciliations by kind and outcome", self.reconciles.clone());
        self.replications.register(&mut registry);
        let registry = Arc::new(Mutex::new(registry));
        Router::new().route(
            "/metrics",
            get(move || async move {
                let mut text = String::new();
                let encoded = encode(&mut text, &registry.lock().unwrap_or_else(PoisonError::into_inner));
                encoded.map(|()| text).map_err(|_| axum::http::StatusCode::INTERNAL_SERVER_ERROR)
            }),
        )
    }
}
