//! One Registry: observe, bring about, tell.
//!
//! Every run looks at everything anew and remembers nothing, so it may end at any point and be repeated.

use std::{sync::Arc, time::Duration};

use channel::policy::{Policy, Visibility};
use crds::{Registry, RegistryStatus};
use k8s_openapi::{
    api::core::v1::PersistentVolumeClaim,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        controller::Action,
        finalizer::{self, finalizer},
    },
};
use serde_json::json;

use crate::{
    apply,
    conditions::Answer,
    context::Context,
    desired::{storage, told::Told},
    fallbacks,
    names::{self, MANAGER},
    node_access::{self, Seen},
    replicas::{self, Replica},
    status::{self, Observed},
    stores, tenancy,
};

mod event;
mod make;
mod policy;
mod token_review;

/// Keeps a deleted Registry until nodes and volume are as its policy says.
const FINALIZER: &str = "berth.dev/registry";
/// How often a Registry is looked at when nothing happens: fill level, certificate, drift that no watch tells of.
const CALM: Duration = Duration::from_secs(120);
/// How soon again while something is on its way that no watch tells of, such as a pod that starts to listen.
const BUSY: Duration = Duration::from_secs(1);
/// A reconciliation takes no longer, whatever hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a deletion waits for nodes that answer but still have their files.
const NODES_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// Why a Registry is not what it should be; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An object can't be read or written.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] crate::authority::Error),
    /// Pods can't be listed.
    #[error("failed to list the registry's pods: {0}")]
    Pods(#[source] kube::Error),
    /// The status can't be written.
    #[error("failed to write the status: {0}")]
    Status(#[source] kube::Error),
    /// Nodes still have the deleted Registry's files.
    #[error("waiting for nodes to remove the registry's files")]
    NodesPending,
    /// Something hangs.
    #[error("not done after {} s", LIMIT.as_secs())]
    TimedOut,
    /// The whole namespace is on its way out, and this Registry with it.
    #[error("the namespace is being deleted")]
    NamespaceTerminating,
    /// A policy now would lack Repositories.
    #[error(transparent)]
    Incomplete(#[from] stores::Incomplete),
    /// The finalizer can't be set or removed.
    #[error("{0}")]
    Finalizer(#[source] Box<finalizer::Error<Error>>),
}

impl Error {
    /// Label of this error in metrics.
    fn kind(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Certificate(_) => "certificate",
            Self::Pods(_) => "pods",
            Self::Status(_) => "status",
            Self::NodesPending => "nodes_pending",
            Self::TimedOut => "timed_out",
            Self::Incomplete(_) => "incomplete",
            Self::NamespaceTerminating => "namespace_terminating",
            Self::Finalizer(_) => "finalizer",
        }
    }
}

/// Brings one Registry about, or takes it down.
pub(crate) async fn reconcile(registry: Arc<Registry>, context: Arc<Context>) -> Result<Action, Error> {
    let limited = tokio::time::timeout(LIMIT, Box::pin(run(registry, &context))).await;
    let result = limited.unwrap_or(Err(Error::TimedOut));
    context.applier.metrics.reconciled("Registry", result.as_ref().err().map_or("ok", Error::kind));
    result
}

async fn run(registry: Arc<Registry>, context: &Context) -> Result<Action, Error> {
    let api = Api::namespaced(context.applier.client.clone(), &names::namespace(&registry));
    finalizer(&api, FINALIZER, registry, |event| async {
        match event {
            finalizer::Event::Apply(registry) => bring_about(&registry, context).await,
            finalizer::Event::Cleanup(registry) => take_down(&registry, context).await,
        }
    })
    .await
    .map_err(|error| match error {
        finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => error,
        other => Error::Finalizer(Box::new(other)),
    })
}

/// What to do after an error: the same again, later and later.
pub(crate) fn on_error(registry: &Registry, error: &Error, context: &Context) -> Action {
    match error {
        Error::NodesPending => return Action::requeue(BUSY),
        Error::NamespaceTerminating => return Action::requeue(CALM),
        _ => {}
    }
    let wait = context.failures.another(registry);
    let (namespace, name) = (names::namespace(registry), registry.name_any());
    tracing::warn!(%error, namespace, name, retry_seconds = wait.as_secs(), "failed to reconcile");
    Action::requeue(wait)
}

async fn bring_about(registry: &Registry, context: &Context) -> Result<Action, Error> {
    let observed = observe(registry, context).await?;
    let status = status::status(registry, &observed, Timestamp::now());
    let ready = status.conditions.first().is_some_and(|ready| ready.status == "True");
    let changed = tell(registry, context, status).await?;
    let settled = observed.problem.is_none() && (ready || registry.spec.replicas == 0);
    if changed || settled {
        context.failures.over(registry);
    }
    // While a pod starts, watches tell of it; that it listens, or that patience with nodes ends, they don't.
    Ok(Action::requeue(if settled { CALM } else { context.failures.another(registry) }))
}

/// Makes every object what it should be, and looks at what came of it. The policy does not wait for objects: it may shut
/// somebody out.
async fn observe(registry: &Registry, context: &Context) -> Result<Observed, Error> {
    let turn = context.turns.acquire().await;
    let (people, policy, told) = policy::policy(registry, context).await?;
    let fallbacks = fallbacks::standing(context, registry)?;
    let mut made = make::Made::default();
    let making = async {
        let result = Box::pin(make::make(registry, context, &mut made)).await;
        // Replicas may take long, and others need not wait for them.
        drop(turn);
        result
    };
    let (result, replicas) = tokio::join!(making, enforce(registry, context, &policy, told));
    let replicas = replicas.map_err(Error::Pods)?;
    let problem = match result {
        Ok(()) => tenancy::unreadable_selector(registry),
        Err(error) => Some(problem_or_retry(registry, context, error)?),
    };
    let granted = &context.config.node_access_namespaces;
    let for_all_pods = policy.repositories.iter().any(|rule| rule.visibility == Visibility::Cluster);
    let turns = context.nodes.turns(&fallbacks.agreeing);
    let seen = Seen { address: made.cluster_ip.clone(), for_all_pods, turns };
    context.nodes.learn_of(registry, seen, granted);
    Ok(Observed {
        problem,
        people: people.answer,
        cluster_ip: made.cluster_ip,
        certificate_expires: made.certificate_expires,
        volume_size: made.volume_size,
        storage: made.storage,
        policy_revision: policy.revision(),
        replicas,
        nodes_granted: node_access::is_granted(&names::namespace(registry), granted),
        nodes: context.nodes.view(&names::endpoint(registry)),
        fallbacks,
    })
}

/// Brings the policy to every replica. Once all have it, those Repositories are looked at of which they do something else
/// than before.
async fn enforce(
    registry: &Registry,
    context: &Context,
    policy: &Policy,
    told: Vec<Arc<Told>>,
) -> Result<Vec<Replica>, kube::Error> {
    let replicas = replicas::sync(context, registry, policy).await?;
    if replicas::all_have(registry, &replicas, policy) {
        let told = told.into_iter().map(|told| (told.path().to_owned(), told));
        let paths = context.enforced.learn(registry, told);
        context.triggers.paths(&names::reference(registry), &paths);
    }
    Ok(replicas)
}

/// What people should hear of an error; where it is likely to pass, the error again.
fn problem_or_retry(registry: &Registry, context: &Context, error: Error) -> Result<Answer, Error> {
    let problem = match &error {
        Error::Apply(error) if is_namespace_terminating(error) => return Err(Error::NamespaceTerminating),
        Error::Apply(error) => problem(error),
        _ => None,
    };
    match problem {
        None if context.failures.are_many(registry) => Ok(Answer::no("Failing", error.to_string())),
        None => Err(error),
        Some(problem) => Ok(problem),
    }
}

/// What a person has to mend; none where trying again may help by itself.
pub(crate) fn problem(error: &apply::Error) -> Option<Answer> {
    match error {
        apply::Error::Foreign { .. } | apply::Error::Taken { .. } => {
            Some(Answer::no("NameTaken", error.to_string()))
        }
        apply::Error::Terminating { .. } => Some(Answer::no("Terminating", error.to_string())),
        apply::Error::Apply { what, source: kube::Error::Api(status) }
        | apply::Error::Read { what, source: kube::Error::Api(status) }
            if matches!(status.code, 400..=499) && ![404, 409, 429].contains(&status.code) =>
        {
            Some(Answer::no("Refused", format!("the API server refused {what}: {}", status.message)))
        }
        _ => None,
    }
}

/// Nothing can be made in a namespace that goes, and nobody needs to hear of it.
pub(crate) fn is_namespace_terminating(error: &apply::Error) -> bool {
    let apply::Error::Apply { source: kube::Error::Api(status), .. } = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// Writes the status where it differs, with an Event where readiness does; true where it did.
async fn tell(registry: &Registry, context: &Context, status: RegistryStatus) -> Result<bool, Error> {
    let former = registry.status.as_ref();
    if former == Some(&status) {
        return Ok(false);
    }
    let api = Api::<Registry>::namespaced(context.applier.client.clone(), &names::namespace(registry));
    context.applier.metrics.wrote("Registry/status");
    let patch = json!({
        "apiVersion": Registry::api_version(&()),
        "kind": Registry::kind(&()),
        "metadata": {"name": registry.name_any()},
        "status": status,
    });
    api.patch_status(&registry.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch))
        .await
        .map_err(Error::Status)?;
    if let Some(event) = event::event(former, &status) {
        context.applier.metrics.wrote("Event");
        if let Err(error) = context.events.publish(&event, &registry.object_ref(&())).await {
            tracing::warn!(%error, "failed to publish an Event");
        }
    }
    Ok(true)
}

/// Nodes first, then the volume as the policy says; what has an owner reference, the cluster removes.
async fn take_down(registry: &Registry, context: &Context) -> Result<Action, Error> {
    context.nodes.forget(registry);
    context.enforced.forget(registry);
    context.usage.forget(registry);
    let since = registry.metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    if context.nodes.mention(&names::host(registry)) && Timestamp::now() < since + NODES_PATIENCE {
        return Err(Error::NodesPending);
    }
    if registry.spec.deletion_policy == crds::registry::DeletionPolicy::Delete {
        let claim = storage::claim_name(registry);
        context.applier.delete::<PersistentVolumeClaim>(&names::namespace(registry), &claim).await?;
    }
    token_review::revoke(registry, context).await?;
    context.failures.over(registry);
    Ok(Action::await_change())
}

#[cfg(test)]
mod tests;
