//! What lies in the paths of the policy, for the operator.

use std::time::SystemTime;

use axum::{Json, extract::State};
use channel::usage::{LastPush, PathUsage};
use http::StatusCode;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Control;
use crate::storage::Tally;

pub(super) async fn get(
    State(control): State<Control>,
) -> Result<Json<Vec<PathUsage>>, (StatusCode, String)> {
    let usage = control.storage.path_usage().await.map_err(|error| {
        tracing::error!(%error, "failed to count what lies in the paths of the policy");
        (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    })?;
    Ok(Json(usage.into_iter().map(message).collect()))
}

fn message((path, tally): (String, Tally)) -> PathUsage {
    let Tally { bytes, tags, last_push } = tally;
    let last_push = last_push.map(|push| LastPush {
        time: rfc3339(push.time),
        tag: push.tag.map(|tag| tag.to_string()),
        digest: push.digest.to_string(),
    });
    PathUsage { path, tags, bytes, last_push }
}

/// Whole seconds.
fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_as_rfc_3339_has_them() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20Z");
    }
}
