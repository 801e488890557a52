//! Emptying a path of the policy, when the operator says so.

use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::{Query, State},
};
use channel::usage::{Purge, Purged};
use http::StatusCode;

use super::Control;

/// Shorter than the operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) async fn delete(
    State(control): State<Control>,
    Query(Purge { path }): Query<Purge>,
) -> Result<Json<Purged>, (StatusCode, String)> {
    let failed = |error: crate::storage::Error| {
        tracing::error!(path, %error, "failed to empty a path");
        (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    let purged = control.storage.purge(&path, Instant::now() + PATIENCE).await.map_err(failed)?;
    let invalid = || (StatusCode::BAD_REQUEST, "`path` is no path of a policy".to_owned());
    let purged = purged.ok_or_else(invalid)?;
    tracing::info!(path, removed = purged.removed, done = purged.is_done, "a path was emptied");
    Ok(Json(Purged { removed: purged.removed, done: purged.is_done }))
}
