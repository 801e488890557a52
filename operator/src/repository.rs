//! One Repository: decide whether its Registry has it, and tell how it is.
//!
//! What registries do is brought about by their policy; here everything is looked at anew, in memory, so that a
//! Repository that is as it should be costs no request.

use std::{sync::Arc, time::Duration};

use crds::{Registry, Repository, RepositoryStatus};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        controller::Action,
        events::Event,
        finalizer::{self, finalizer},
    },
};
use serde_json::json;

use crate::{
    context::Context,
    delivery::{self, Delivered},
    heard::Heard,
    names::MANAGER,
    stores, tenancy,
};

mod event;
mod status;
mod take_down;

/// Keeps a deleted Repository until no replica decides by it any more, and its images are as its policy says.
const FINALIZER: &str = "berth.dev/repository";
/// How often a Repository is looked at when nothing happens.
const CALM: Duration = Duration::from_secs(300);
/// How soon again while the policy is on its way.
const BUSY: Duration = Duration::from_secs(1);
/// A reconciliation takes no longer, whatever hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Why a Repository is not what it should be; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What is known of the cluster is not enough to decide.
    #[error(transparent)]
    Incomplete(#[from] stores::Incomplete),
    /// Its Secrets are not where they should be.
    #[error(transparent)]
    Delivery(#[from] delivery::Error),
    /// The status can't be written.
    #[error("failed to write the status: {0}")]
    Status(#[source] kube::Error),
    /// Replicas still decide by the deleted Repository.
    #[error("waiting for the registry's replicas to let go of the path")]
    PolicyPending,
    /// The deleted Repository's images are on their way out.
    #[error("the registry is deleting the images")]
    ImagesGoing,
    /// The deleted Repository's images are still there.
    #[error("failed to delete the images: {0}")]
    Images(String),
    /// Something hangs.
    #[error("not done after {} s", LIMIT.as_secs())]
    TimedOut,
    /// The finalizer can't be set or removed.
    #[error("{0}")]
    Finalizer(#[source] Box<finalizer::Error<Error>>),
}

impl Error {
    /// Label of this error in metrics.
    fn kind(&self) -> &'static str {
        match self {
            Self::Incomplete(_) => "incomplete",
            Self::Delivery(_) => "delivery",
            Self::Status(_) => "status",
            Self::PolicyPending => "policy_pending",
            Self::ImagesGoing => "images_going",
            Self::Images(_) => "images",
            Self::TimedOut => "timed_out",
            Self::Finalizer(_) => "finalizer",
        }
    }
}

/// Brings one Repository about, or takes it down.
pub(crate) async fn reconcile(repository: Arc<Repository>, context: Arc<Context>) -> Result<Action, Error> {
    let limited = tokio::time::timeout(LIMIT, Box::pin(run(repository, &context))).await;
    let result = limited.unwrap_or(Err(Error::TimedOut));
    context.applier.metrics.reconciled("Repository", result.as_ref().err().map_or("ok", Error::kind));
    result
}

async fn run(repository: Arc<Repository>, context: &Context) -> Result<Action, Error> {
    context.stores.complete().await?;
    if context.stores.is_unreadable(&repository) {
        return Err(stores::Incomplete.into());
    }
    finalizer(&api(&repository, context), FINALIZER, repository, |event| async {
        match event {
            finalizer::Event::Apply(repository) => bring_about(&repository, context).await,
            finalizer::Event::Cleanup(repository) => take_down::take_down(&repository, context).await,
        }
    })
    .await
    .map_err(|error| match error {
        finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => error,
        other => Error::Finalizer(Box::new(other)),
    })
}

/// What to do after an error: the same again, later and later.
pub(crate) fn on_error(repository: &Repository, error: &Error, context: &Context) -> Action {
    let going = matches!(
        error,
        Error::PolicyPending | Error::ImagesGoing | Error::Delivery(delivery::Error::NotReady)
    );
    if going {
        return Action::requeue(BUSY);
    }
    let wait = context.failures.another(repository);
    let (namespace, name) = (repository.namespace(), repository.name_any());
    tracing::warn!(%error, namespace, name, retry_seconds = wait.as_secs(), "failed to reconcile a Repository");
    Action::requeue(wait)
}

async fn bring_about(repository: &Repository, context: &Context) -> Result<Action, Error> {
    let registry = context.stores.registry_of(repository);
    let accepted = match &registry {
        Some(registry) => context.stores.tenants(registry, |tenants| tenants.verdict(repository)),
        None => tenancy::no_such_registry(repository),
    };
    let registry = registry.filter(|_| accepted.yes);
    let now = Timestamp::now();
    let mut delivered = Delivered::default();
    if let Some(registry) = &registry {
        delivered = deliver(repository, registry, context, now).await?;
    } else if delivery::is_anywhere(context, repository) {
        delivered.failed = delivery::withdraw(context, repository).await.err();
    }
    let Delivered { logins, statuses: secrets, next, failed } = delivered;
    let path = repository.path();
    let observed = status::Observed {
        accepted,
        told: registry.as_ref().map_or(Heard::Nothing, |registry| context.enforced.of(registry, &path)),
        usage: registry.as_ref().map_or(Heard::Nothing, |registry| context.usage.of(registry, &path)),
        registry,
        logins,
        secrets,
        refused: context.watched.refused(),
    };
    let status = status::status(repository, &observed, now);
    tell(repository, context, status).await?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    context.failures.over(repository);
    Ok(Action::requeue(next.map_or(CALM, |next| next.min(CALM))))
}

/// Brings the Secrets to all that should have them, where the operator may see what is there; the status tells where it may
/// not. What declares none waits for nothing.
async fn deliver(
    repository: &Repository,
    registry: &Registry,
    context: &Context,
    now: Timestamp,
) -> Result<Delivered, Error> {
    let watched = &context.watched;
    let is_optional = watched.is_blind() || !delivery::declares_any(repository);
    if is_optional && !watched.is_ready() {
        return Ok(Delivered::default());
    }
    Ok(delivery::deliver(context, repository, registry, now).await?)
}

/// Writes the status where it differs, with Events of what people would ask about later.
async fn tell(repository: &Repository, context: &Context, status: RepositoryStatus) -> Result<(), Error> {
    let former = repository.status.as_ref();
    if former == Some(&status) {
        return Ok(());
    }
    context.applier.metrics.wrote("Repository/status");
    let patch = json!({
        "apiVersion": Repository::api_version(&()),
        "kind": Repository::kind(&()),
        "metadata": {"name": repository.name_any()},
        "status": status,
    });
    api(repository, context)
        .patch_status(&repository.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch))
        .await
        .map_err(Error::Status)?;
    if let Some(event) = event::event(former, &status) {
        publish(repository, context, &event).await;
    }
    Ok(())
}

/// An Event that can't be published is no reason to stop.
async fn publish(repository: &Repository, context: &Context, event: &Event) {
    context.applier.metrics.wrote("Event");
    if let Err(error) = context.events.publish(event, &repository.object_ref(&())).await {
        tracing::warn!(%error, "failed to publish an Event");
    }
}

fn api(repository: &Repository, context: &Context) -> Api<Repository> {
    Api::namespaced(context.applier.client.clone(), &repository.namespace().unwrap_or_default())
}

#[cfg(test)]
mod tests;
