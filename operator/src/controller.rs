//! Wires the reconciliation of Registries, Repositories and Replications to what triggers it.

use std::{sync::Arc, time::Duration};

use crds::{Registry, Replication, Repository};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        batch::v1::Job,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    client::ClientBuilder,
    core::{DeserializeGuard, PartialObjectMeta, error_boundary::InvalidObject},
    runtime::{
        Controller, Predicate as _, PredicateConfig, WatchStreamExt as _,
        controller::{Action, Config},
        predicates,
        reflector::ObjectRef,
        watcher,
    },
};
use tower::util::MapRequestLayer;

use crate::{
    admission, bootstrap,
    config::Run,
    context::Context,
    delivery,
    health::{self, Readiness},
    lease,
    metrics::Metrics,
    names, node_access,
    pace::pace,
    reconcile,
    replication::{self, ReplicationRefs},
    repository,
    triggers::{RegistryRefs, RepositoryRefs},
    usage,
};

mod watches;

use watches::Watches;

/// A Registry, or what is wrong with it: one that can't be read (written for a newer operator) holds up no other.
pub(crate) type Guarded = DeserializeGuard<Registry>;

/// The same of a Repository.
pub(crate) type GuardedRepository = DeserializeGuard<Repository>;

/// The same of a Replication.
pub(crate) type GuardedReplication = DeserializeGuard<Replication>;

/// How often changes of Repositories may bring about a new policy of the same Registry.
const POLICY_PAUSE: Duration = Duration::from_millis(500);
/// Objects in one answer of the API server: anybody can label some of a megabyte each.
const LABELLED: u32 = 20;
/// Objects of a kind reconciled at once.
const CONCURRENCY: u16 = 8;

/// How long new pods are still asked about here after the pod was told to stop: the Service leads to it for a moment.
const LINGER: Duration = Duration::from_secs(3);

/// Why the operator ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to find the cluster: {0}")]
    Client(#[from] kube::Error),
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::Error),
    #[error("failed to serve health and metrics: {0}")]
    Health(#[from] std::io::Error),
    #[error(transparent)]
    Lease(#[from] lease::Error),
    #[error("another operator has taken the Lease over")]
    LeaseLost,
}

/// Runs until told to stop, or until another operator leads.
pub(crate) async fn run(config: Run) -> Result<(), Error> {
    let metrics = Metrics::default();
    let client = counted(&metrics).await?;
    let readiness = Readiness::default();
    let health = tokio::spawn(health::serve(config.health_listen, readiness.clone(), metrics.router()));
    let mut health = std::pin::pin!(async { health.await.unwrap_or(Ok(())).map_err(Error::Health) });
    let mut terminated = std::pin::pin!(terminated());

    let (context, mut watches) = watches::begin(client.clone(), config, metrics).await?;
    // Ready before it leads: a second operator answers about new pods, waits for its turn, and is well.
    let mut admission = std::pin::pin!(admission::run(Arc::clone(&context), readiness));
    let Run { namespace, pod, .. } = &context.config;
    let mut leadership = tokio::select! {
        leadership = lease::acquire(client, namespace, names::MANAGER, pod) => leadership?,
        () = watches.keep_up() => return Ok(()),
        () = &mut admission => return Ok(()),
        ended = &mut health => return ended,
        () = &mut terminated => {
            let _ = tokio::time::timeout(LINGER, admission).await;
            return Ok(());
        }
    };
    let result = tokio::select! {
        () = lead(Arc::clone(&context), watches) => Ok(()),
        () = &mut admission => Ok(()),
        () = leadership.lost() => return Err(Error::LeaseLost),
        () = terminated => Ok(()),
        ended = health => ended,
    };
    leadership.release().await;
    let _ = tokio::time::timeout(LINGER, admission).await;
    result
}

/// Speaks to the API server, and counts what it asks.
async fn counted(metrics: &Metrics) -> Result<Client, Error> {
    let config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    let metrics = metrics.clone();
    let counting = MapRequestLayer::new(move |request: http::Request<kube::client::Body>| {
        metrics.asked(request.method());
        request
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&counting).build())
}

/// Never ends.
async fn lead(context: Arc<Context>, watches: Watches) {
    let Watches {
        registries,
        repositories,
        replications,
        others,
        node_changes,
        policy_refs,
        repository_refs,
        replication_refs,
    } = watches;
    tokio::join!(
        others.for_each(|()| std::future::ready(())),
        admission::keep_trusted(&context),
        delivery::tidy(&context),
        reconcile_registries(Arc::clone(&context), registries, node_changes, policy_refs),
        reconcile_repositories(Arc::clone(&context), repositories, repository_refs),
        reconcile_replications(Arc::clone(&context), replications, replication_refs),
        replication::follow(Arc::clone(&context)),
        node_access::run(Arc::clone(&context), context.stores.registries.clone()),
        usage::run(Arc::clone(&context)),
    );
}

/// What was seen before it led is looked at as well.
fn at_once() -> impl Stream<Item = ()> + Send + Sync + 'static {
    stream::once(std::future::ready(()))
}

/// Never ends.
async fn reconcile_registries(
    context: Arc<Context>,
    registries: impl Stream<Item = Result<Guarded, watcher::Error>> + Send + 'static,
    node_changes: RegistryRefs,
    policy_refs: RegistryRefs,
) {
    let client = &context.applier.client;
    let ours = || watcher::Config::default().labels(&names::any_registry());
    // Its own, and the password file, which somebody else makes.
    let labelled = watcher::Config::default().labels(names::REGISTRY_LABEL).page_size(LABELLED);
    Controller::for_stream(registries, context.stores.registries.clone())
        // As many at once as there are: a replica that accepts and says nothing holds up no other Registry's policy. What
        // asks the API server waits for its turn.
        .owns(all::<StatefulSet>(client), ours())
        .owns(all::<Service>(client), ours())
        .owns(all::<ConfigMap>(client), ours())
        .owns(all::<ServiceAccount>(client), ours())
        .watches(all::<Secret>(client), labelled, registry_of)
        // These have no Registry as owner, but its name as label.
        .watches(all::<Pod>(client), ours(), registry_of)
        .watches(all::<PersistentVolumeClaim>(client), ours(), registry_of)
        .reconcile_all_on(at_once())
        .reconcile_on(node_changes)
        .reconcile_on(pace(policy_refs, POLICY_PAUSE))
        .run(reconcile_guarded, on_error, Arc::clone(&context))
        .for_each(log)
        .await;
}

/// Never ends.
async fn reconcile_repositories(
    context: Arc<Context>,
    repositories: impl Stream<Item = Result<GuardedRepository, watcher::Error>> + Send + 'static,
    refs: RepositoryRefs,
) {
    Controller::for_stream(repositories, context.stores.repositories.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_all_on(at_once())
        .reconcile_on(refs)
        .run(reconcile_guarded_repository, on_repository_error, Arc::clone(&context))
        .for_each(log)
        .await;
}

/// Never ends. Its own status is no news to a Replication: otherwise each would bring about the next.
async fn reconcile_replications(
    context: Arc<Context>,
    replications: impl Stream<Item = Result<GuardedReplication, watcher::Error>> + Send + 'static,
    refs: ReplicationRefs,
) {
    let client = &context.applier.client;
    let ours = || watcher::Config::default().labels(&replication::any()).page_size(LABELLED);
    let said = predicates::generation.combine(predicates::annotations);
    Controller::for_stream(
        replications.predicate_filter(said, PredicateConfig::default()),
        context.stores.replications.clone(),
    )
    .with_config(Config::default().concurrency(CONCURRENCY))
    .owns(all::<Job>(client), ours())
    // These have a Job as owner.
    .watches(all::<PartialObjectMeta<Pod>>(client), ours(), replication_of)
    .reconcile_all_on(at_once())
    .reconcile_on(refs)
    .run(reconcile_guarded_replication, on_replication_error, Arc::clone(&context))
    .for_each(log)
    .await;
}

/// Failed reconciliations are logged where they are handled; what is left is of the controller itself.
async fn log<T, E: std::error::Error + 'static>(
    result: Result<T, kube::runtime::controller::Error<E, watcher::Error>>,
) {
    if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = result {
        tracing::warn!(%error, "failed to watch");
    }
}

async fn reconcile_guarded(
    registry: Arc<Guarded>,
    context: Arc<Context>,
) -> Result<Action, reconcile::Error> {
    match &registry.0 {
        Ok(registry) => reconcile::reconcile(Arc::new(registry.clone()), context).await,
        Err(invalid) => Ok(unreadable("Registry", invalid)),
    }
}

async fn reconcile_guarded_repository(
    repository: Arc<GuardedRepository>,
    context: Arc<Context>,
) -> Result<Action, repository::Error> {
    match &repository.0 {
        Ok(repository) => repository::reconcile(Arc::new(repository.clone()), context).await,
        Err(invalid) => Ok(unreadable("Repository", invalid)),
    }
}

async fn reconcile_guarded_replication(
    replication: Arc<GuardedReplication>,
    context: Arc<Context>,
) -> Result<Action, replication::Error> {
    match &replication.0 {
        Ok(replication) => replication::reconcile(Arc::new(replication.clone()), context).await,
        Err(invalid) => Ok(unreadable("Replication", invalid)),
    }
}

fn unreadable(kind: &str, InvalidObject { error, metadata }: &InvalidObject) -> Action {
    let (namespace, name) = (&metadata.namespace, &metadata.name);
    tracing::error!(kind, error, namespace, name, "cannot read this object: is it for a newer operator?");
    Action::await_change()
}

#[expect(clippy::needless_pass_by_value, reason = "what the controller calls")]
fn on_error(registry: Arc<Guarded>, error: &reconcile::Error, context: Arc<Context>) -> Action {
    let handle = |registry| reconcile::on_error(registry, error, &context);
    registry.0.as_ref().map_or_else(|_| Action::await_change(), handle)
}

#[expect(clippy::needless_pass_by_value, reason = "what the controller calls")]
fn on_repository_error(
    repository: Arc<GuardedRepository>,
    error: &repository::Error,
    context: Arc<Context>,
) -> Action {
    let handle = |repository| repository::on_error(repository, error, &context);
    repository.0.as_ref().map_or_else(|_| Action::await_change(), handle)
}

#[expect(clippy::needless_pass_by_value, reason = "what the controller calls")]
fn on_replication_error(
    replication: Arc<GuardedReplication>,
    error: &replication::Error,
    context: Arc<Context>,
) -> Action {
    let handle = |replication| replication::on_error(replication, error, &context);
    replication.0.as_ref().map_or_else(|_| Action::await_change(), handle)
}

fn all<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(client: &Client) -> Api<K> {
    Api::all(client.clone())
}

#[expect(clippy::needless_pass_by_value, reason = "what `watches` wants")]
fn registry_of<K: Resource>(object: K) -> Option<ObjectRef<Guarded>> {
    let name = object.labels().get(names::REGISTRY_LABEL)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

#[expect(clippy::needless_pass_by_value, reason = "what `watches` wants")]
fn replication_of(pod: PartialObjectMeta<Pod>) -> Option<ObjectRef<GuardedReplication>> {
    let name = pod.labels().get(replication::REPLICATION)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

/// SIGTERM or SIGINT.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}

#[cfg(test)]
mod tests;
