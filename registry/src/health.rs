//! What a cluster asks: is it alive, is it ready, how is it doing. Plain HTTP, nothing secret.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use http::{StatusCode, header};

use crate::{access::Access, metrics::Metrics, storage::Storage};

/// What the answers depend on.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) access: Access,
    pub(crate) storage: Storage,
    pub(crate) metrics: Arc<Metrics>,
    /// The end has begun.
    pub(crate) draining: Arc<AtomicBool>,
}

pub(crate) fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    if health.draining.load(Ordering::Acquire) {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else if !health.access.is_ready() {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for a policy\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    let usage =
        health.storage.usage().await.inspect_err(|error| tracing::error!(%error, "failed to look at usage"));
    let storage = &health.storage;
    let page = health.metrics.render(
        usage.ok().flatten(),
        storage.damaged(),
        storage.feed_bytes(),
        !storage.takes_changes(),
    );
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], page)
}
