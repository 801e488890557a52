//! The channel's server: an operator puts the policy here and asks how this replica is doing. Who gets this far has
//! proved by certificate to be the operator.
//!
//! Logins that can't be used are left out, and the status says why: one of them must not hold up that another goes.
//! A policy decides at once, whatever state the storage is in: a full or slow disk must not keep anybody in who was
//! shut out. That it could not be kept for the next start is an error, so that the operator sends it again.

mod feed;
mod latest;
mod repositories;
mod usage;

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::{delete, get, put},
};
use bytes::Bytes;
use channel::policy::{Policy, ReplicaStatus};
use http::StatusCode;
use tokio_util::sync::CancellationToken;

use self::latest::Latest;
use crate::{
    access::{Access, InvalidPolicy, Rules},
    storage::{self, Storage, Usage},
};

/// Largest policy.
const MAX_POLICY: usize = 16 << 20;
/// Logins of which the status says why they do not count.
const MAX_REASONS: usize = 20;

/// What the channel reaches.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    access: Access,
    storage: Storage,
    /// When it is cancelled nobody waits any longer.
    end: CancellationToken,
    policy: Arc<Keeping>,
    usage: Arc<Latest<Option<Usage>>>,
    repositories: Arc<Latest<u64>>,
}

/// The policy on its way to the disk.
#[derive(Debug, Default)]
struct Keeping {
    /// The one that decides. Held while another takes its place, so that both agree.
    deciding: Mutex<Option<Arc<Deciding>>>,
    /// Revision of the one on the disk.
    kept: Mutex<Option<String>>,
    /// One after the other, so that the newest is the last one.
    saving: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Deciding {
    revision: String,
    json: Vec<u8>,
}

/// Why a message gets no success.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Invalid(#[from] InvalidPolicy),
    #[error("the policy decides, but it can't be kept for the next start: {0}")]
    NotKept(#[from] storage::Error),
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::NotKept(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        tracing::error!(error = %self, "a policy is not in order");
        (status, self.to_string()).into_response()
    }
}

impl Control {
    pub(crate) fn new(access: Access, storage: Storage, end: CancellationToken) -> Self {
        let (usage, repositories) = (Latest::new(), Latest::new());
        Self { access, storage, end, policy: Arc::default(), usage, repositories }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/v1/policy", put(put_policy))
            .route("/v1/status", get(status))
            .route("/v1/usage", get(usage::get))
            .route("/v1/feed", get(feed::get))
            .route("/v1/repositories", delete(repositories::delete))
            .layer(DefaultBodyLimit::max(MAX_POLICY))
            .with_state(self)
    }

    /// Lets the policy that was kept decide again. One that can't be used leaves nobody in, until the next comes.
    pub(crate) async fn load(&self) -> Result<(), storage::Error> {
        let Some(json) = self.storage.load_policy().await? else {
            return Ok(());
        };
        match parse(&json).and_then(|policy| Rules::without_bad_logins(&policy)) {
            Ok(rules) => {
                tracing::info!("going on with the policy that was kept");
                self.policy.is_kept(rules.revision().to_owned());
                self.policy.decide(&self.access, &self.storage, rules, json);
            }
            Err(error) => tracing::error!(%error, "the kept policy can't be used, waiting for a new one"),
        }
        Ok(())
    }

    /// Checks, applies, keeps: a policy that is acknowledged decides after every restart.
    async fn apply(&self, json: &[u8]) -> Result<(), Error> {
        let policy = parse(json)?;
        let rules = Rules::without_bad_logins(&policy)?;
        let json = serde_json::to_vec(&policy).map_err(storage::Error::Encode)?;
        self.policy.decide(&self.access, &self.storage, rules, json);
        // Goes on when the operator is gone, or a slow write could end after that of the next policy.
        let keeping = tokio::spawn(Arc::clone(&self.policy).keep(self.storage.clone()));
        Ok(keeping.await.map_err(storage::Error::Task)??)
    }

    /// What has to be looked for on the disk holds up no answer.
    async fn report(&self) -> ReplicaStatus {
        let (usage, counting) = (self.storage.clone(), self.storage.clone());
        let (usage, repositories) = tokio::join!(
            self.usage.get(async move { usage.usage().await }),
            self.repositories.get(async move { counting.count_repositories().await }),
        );
        // Zero of zero where nobody knows.
        let usage = usage.flatten().unwrap_or(Usage { used_bytes: 0, total_bytes: 0 });
        ReplicaStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy_revision: self.access.policy_revision(),
            left_out: self.access.left_out(MAX_REASONS),
            policy_unsaved: self.policy.unsaved().is_some(),
            used_bytes: usage.used_bytes,
            total_bytes: usage.total_bytes,
            repositories,
        }
    }
}

impl Keeping {
    /// Lets a policy decide from now on.
    fn decide(&self, access: &Access, storage: &Storage, rules: Rules, json: Vec<u8>) {
        let mut deciding = lock(&self.deciding);
        if deciding.as_ref().is_none_or(|deciding| deciding.revision != rules.revision()) {
            *deciding = Some(Arc::new(Deciding { revision: rules.revision().to_owned(), json }));
            storage.govern(rules.governing());
            access.install(rules);
        }
    }

    /// Writes down what decides, unless that is done.
    async fn keep(self: Arc<Self>, storage: Storage) -> Result<(), storage::Error> {
        let _one_at_a_time = self.saving.lock().await;
        let Some(deciding) = self.unsaved() else {
            return Ok(());
        };
        // What fails may have replaced the former one all the same.
        *lock(&self.kept) = None;
        storage.save_policy(deciding.json.clone()).await?;
        self.is_kept(deciding.revision.clone());
        Ok(())
    }

    fn is_kept(&self, revision: String) {
        *lock(&self.kept) = Some(revision);
    }

    /// What decides, unless it is on the disk.
    fn unsaved(&self) -> Option<Arc<Deciding>> {
        let deciding = lock(&self.deciding).clone()?;
        (lock(&self.kept).as_ref() != Some(&deciding.revision)).then_some(deciding)
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(json: &[u8]) -> Result<Policy, InvalidPolicy> {
    serde_json::from_slice(json).map_err(|error| InvalidPolicy::Syntax(error.to_string()))
}

async fn put_policy(State(control): State<Control>, json: Bytes) -> Result<Json<ReplicaStatus>, Error> {
    control.apply(&json).await?;
    Ok(Json(control.report().await))
}

async fn status(State(control): State<Control>) -> Json<ReplicaStatus> {
    Json(control.report().await)
}

#[cfg(test)]
mod tests;
