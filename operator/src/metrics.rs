//! The operator's metrics, in Prometheus' text format at `/metrics`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, routing::get};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What is counted. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    writes: Family<Kind, Counter>,
    reconciles: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl Metrics {
    /// A mutating request for an object of this kind is about to be sent.
    pub(crate) fn wrote(&self, kind: &str) {
        self.writes.get_or_create(&Kind { kind: kind.into() }).inc();
    }

    /// A Registry was reconciled; `outcome` is `ok` or the name of an error.
    pub(crate) fn reconciled(&self, outcome: &'static str) {
        self.reconciles.get_or_create(&Outcome { outcome }).inc();
    }

    /// Serves `/metrics`.
    pub(crate) fn router(&self) -> Router {
        let mut registry = Registry::with_prefix("berth_operator");
        registry.register("writes", "Mutating requests to the API server", self.writes.clone());
        registry.register("reconciles", "Reconciliations of Registries by outcome", self.reconciles.clone());
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
