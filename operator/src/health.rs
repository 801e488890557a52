//! `/healthz` and `/readyz`, plain HTTP, for the kubelet.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, http::StatusCode, routing::get};

/// Whether this process does its work; set once it does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn status(&self) -> StatusCode {
        if self.is_set() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(listen: SocketAddr, readiness: Readiness, more: Router) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { StatusCode::OK }))
        .route("/readyz", get(move || async move { readiness.status() }))
        .merge(more);
    axum::serve(tokio::net::TcpListener::bind(listen).await?, router).await
}
