//! The channel's server: an operator puts the policy here and asks how this replica is doing. Who gets this far has
//! proved by certificate to be the operator.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use bytes::Bytes;
use channel::policy::{Policy, ReplicaStatus};
use http::StatusCode;
use tokio::sync::Mutex;

use crate::{
    access::{Access, InvalidPolicy, Rules},
    storage::{self, Storage},
};

/// Largest policy.
const MAX_POLICY: usize = 16 << 20;

/// What the channel reaches.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    access: Access,
    storage: Storage,
    /// One policy after the other, so that the one on the disk is the one that decides.
    applying: Arc<Mutex<()>>,
}

/// Why a message gets no success.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Invalid(#[from] InvalidPolicy),
    #[error("failed to keep the policy, the former one stays: {0}")]
    Storage(#[from] storage::Error),
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        tracing::error!(error = %self, "a message on the channel was refused");
        (status, self.to_string()).into_response()
    }
}

impl Control {
    pub(crate) fn new(access: Access, storage: Storage) -> Self {
        Self { access, storage, applying: Arc::default() }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/v1/policy", put(put_policy))
            .route("/v1/status", get(status))
            .layer(DefaultBodyLimit::max(MAX_POLICY))
            .with_state(self)
    }

    /// Lets the policy that was kept decide again. One that can't be used leaves nobody in, until the next comes.
    pub(crate) async fn load(&self) -> Result<(), storage::Error> {
        let Some(json) = self.storage.load_policy().await? else {
            return Ok(());
        };
        match parse(&json).and_then(|policy| Rules::new(&policy)) {
            Ok(rules) => {
                tracing::info!("going on with the policy that was kept");
                self.access.install(rules);
            }
            Err(error) => tracing::error!(%error, "the kept policy can't be used, waiting for a new one"),
        }
        Ok(())
    }

    /// Checks, keeps, applies: a policy that is acknowledged decides after every restart.
    async fn apply(&self, json: &[u8]) -> Result<(), Error> {
        let policy = parse(json)?;
        let rules = Rules::new(&policy)?;
        let _one_at_a_time = self.applying.lock().await;
        if self.access.policy_revision().as_deref() == Some(rules.revision()) {
            return Ok(());
        }
        let json = serde_json::to_vec(&policy).map_err(storage::Error::Encode)?;
        self.storage.save_policy(json).await?;
        self.access.install(rules);
        Ok(())
    }

    async fn report(&self) -> Result<ReplicaStatus, storage::Error> {
        let usage = self.storage.usage().await?;
        Ok(ReplicaStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy_revision: self.access.policy_revision(),
            // Zero of zero where nobody knows.
            used_bytes: usage.map_or(0, |usage| usage.used_bytes),
            total_bytes: usage.map_or(0, |usage| usage.total_bytes),
            repositories: self.storage.count_repositories().await?,
        })
    }
}

fn parse(json: &[u8]) -> Result<Policy, InvalidPolicy> {
    serde_json::from_slice(json).map_err(|error| InvalidPolicy::Syntax(error.to_string()))
}

async fn put_policy(State(control): State<Control>, json: Bytes) -> Result<Json<ReplicaStatus>, Error> {
    control.apply(&json).await?;
    Ok(Json(control.report().await?))
}

async fn status(State(control): State<Control>) -> Result<Json<ReplicaStatus>, Error> {
    Ok(Json(control.report().await?))
}
