//! Lets a deleted Repository go: first no replica decides by it any more, then its images go where it says so.
//!
//! Never for ever: a Registry that is gone, stopped or away for long is not waited for, and its images stay. And only for whom the path belongs to: what the Registry has not accepted can't
//! delete anything.

use channel::{client, usage::Purged};
use crds::{Registry, Repository, registry::DeletionPolicy};
use http::StatusCode;
use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    ResourceExt as _,
    runtime::{
        controller::Action,
        events::{Event, EventType},
    },
};

use super::{Error, publish};
use crate::{context::Context, delivery, heard::Heard, names, replicas};

/// How long a deletion waits for replicas to apply the policy without the Repository.
const POLICY_PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// How long a deletion tries to delete images.
const IMAGES_PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// How long a deletion tries to take Secrets away.
const SECRETS_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

pub(super) async fn take_down(repository: &Repository, context: &Context) -> Result<Action, Error> {
    if let Some(registry) = owner(repository, context) {
        let path = repository.path();
        let lost = context.enforced.of(&registry, &path) == Heard::NotOfIt;
        if !lost && waits(repository, &registry, POLICY_PATIENCE) {
            return Err(Error::PolicyPending);
        }
        if repository.spec.deletion_policy == DeletionPolicy::Delete {
            delete_images(repository, &registry, context, lost).await?;
        }
    }
    withdraw(repository, context).await?;
    context.failures.over(repository);
    Ok(Action::await_change())
}

/// Takes the Secrets away; what they opened has been shut already.
async fn withdraw(repository: &Repository, context: &Context) -> Result<(), Error> {
    let has_secrets = delivery::declares_any(repository)
        || repository.status.as_ref().is_some_and(|status| !status.secrets.is_empty());
    if context.watched.is_blind() && !has_secrets {
        return Ok(());
    }
    let Err(error) = delivery::withdraw(context, repository).await else { return Ok(()) };
    if Timestamp::now() < since(repository) + SECRETS_PATIENCE {
        return Err(error.into());
    }
    let (namespace, name) = (repository.namespace(), repository.name_any());
    tracing::warn!(%error, namespace, name, "Secrets of a deleted Repository stay");
    tell(repository, context, "SecretsKept", format!("Secrets stay that open nothing any more: {error}"))
        .await;
    Ok(())
}

/// The Registry, if the path in it is this Repository's.
fn owner(repository: &Repository, context: &Context) -> Option<Registry> {
    let registry = context.stores.registry_of(repository)?;
    let owns = context.stores.tenants(&registry, |tenants| tenants.holds_its_path(repository));
    owns.then_some(registry)
}

/// Whether there is something to wait for.
fn waits(repository: &Repository, registry: &Registry, patience: SignedDuration) -> bool {
    let serves = registry.metadata.deletion_timestamp.is_none() && registry.spec.replicas > 0;
    serves && Timestamp::now() < since(repository) + patience
}

/// When it was deleted.
fn since(repository: &Repository) -> Timestamp {
    repository.metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0)
}

async fn delete_images(
    repository: &Repository,
    registry: &Registry,
    context: &Context,
    lost: bool,
) -> Result<(), Error> {
    // By another policy than ours the path may govern what is somebody else's by now.
    let asked = if lost { ask(repository, registry, context).await } else { Err(Failure::Stale) };
    let problem = match asked {
        Ok(()) => return Ok(()),
        Err(Failure::Going) => return Err(Error::ImagesGoing),
        Err(Failure::Stale) => "not every replica of the registry has the current policy".to_owned(),
        Err(Failure::TooOld) => "the registry is too old to delete a repository's images".to_owned(),
        Err(Failure::Away(reason)) if waits(repository, registry, IMAGES_PATIENCE) => {
            return Err(Error::Images(reason));
        }
        Err(Failure::Away(reason)) => reason,
    };
    let (namespace, name, path) = (repository.namespace(), repository.name_any(), repository.path());
    tracing::warn!(problem, namespace, name, path, "the images of a deleted Repository stay");
    let note = format!(
        "the images below {path} stay; the registry's administrator and reader reach them, and whom a Repository for all above or undeclared lets in: {problem}"
    );
    tell(repository, context, "ImagesKept", note).await;
    Ok(())
}

/// Tells people that something stays.
async fn tell(repository: &Repository, context: &Context, reason: &str, note: String) {
    let event = Event {
        type_: EventType::Warning,
        reason: reason.into(),
        note: Some(note),
        action: "Delete".into(),
        secondary: None,
    };
    publish(repository, context, &event).await;
}

/// Why images are still there.
enum Failure {
    /// Some of them went, and there are more.
    Going,
    /// Replicas may still decide by a former policy.
    Stale,
    /// The registry does not know the request.
    TooOld,
    /// It may work later.
    Away(String),
}

async fn ask(repository: &Repository, registry: &Registry, context: &Context) -> Result<(), Failure> {
    let away = |error: &dyn std::fmt::Display| Failure::Away(error.to_string());
    let pod = names::with_suffix(registry, "0");
    let pod =
        context.applier.get::<Pod>(&names::namespace(registry), &pod).await.map_err(|error| away(&error))?;
    let address = pod.as_ref().and_then(replicas::address);
    let address = address.ok_or_else(|| Failure::Away("the registry's pod has no address".into()))?;
    let client = context.channel().map_err(|error| away(&error))?;
    // No character of a path means anything in a query.
    let path = format!("/v1/repositories?path={}", repository.path());
    match client.delete::<Purged>(address, &names::channel(registry), &path).await {
        Err(client::Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Err(Failure::TooOld),
        Ok(Purged { done: false, removed: 1.. }) => Err(Failure::Going),
        Ok(Purged { done: false, .. }) => Err(Failure::Away("the registry is still deleting them".into())),
        answer => answer.map(|_| ()).map_err(|error| away(&error)),
    }
}
