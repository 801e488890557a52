//! The feed of all repositories, for the operator.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State},
};
use channel::feed::FeedPage;
use http::StatusCode;
use serde::Deserialize;

use super::Control;

/// Largest page.
const MAX_PAGE: usize = 1000;
/// Shorter than the operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    after: Option<String>,
    n: Option<usize>,
    /// Seconds.
    wait: Option<u64>,
}

pub(super) async fn get(
    State(control): State<Control>,
    Query(Wanted { after, n, wait }): Query<Wanted>,
) -> Result<Json<FeedPage>, (StatusCode, String)> {
    let n = n.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    let wait = wait.map(Duration::from_secs).unwrap_or_default().min(PATIENCE);
    let end = async {
        control.end.run_until_cancelled(tokio::time::sleep(wait)).await;
    };
    let page = control.storage.follow(after, n, |_| true, end).await.map_err(|error| {
        tracing::error!(%error, "failed to read the feed");
        (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    })?;
    page.map(Json).ok_or_else(|| (StatusCode::GONE, "this cursor is not known any more".to_owned()))
}
