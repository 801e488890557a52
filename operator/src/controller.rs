//! Wires the reconciliation of Registries to what triggers it.

use std::sync::Arc;

use crds::Registry;
use futures::StreamExt as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{
        Controller,
        controller::{Action, Config},
        events::{Recorder, Reporter},
        reflector::ObjectRef,
        watcher,
    },
};

use crate::{
    apply::Applier,
    bootstrap,
    config::Run,
    context::{Context, Failures},
    health::{self, Readiness},
    lease,
    metrics::Metrics,
    names, node_access,
    node_access::Nodes,
    reconcile,
};

/// A Registry, or what is wrong with it: one that can't be read (written for a newer operator) holds up no other.
pub(crate) type Guarded = DeserializeGuard<Registry>;

/// Registries reconciled at once.
const CONCURRENCY: u16 = 8;

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
    let client = Client::try_default().await?;
    let metrics = Metrics::default();
    let readiness = Readiness::default();
    let health = tokio::spawn(health::serve(config.health_listen, readiness.clone(), metrics.router()));
    // Ready before it leads: a second operator waits for its turn, and is well.
    readiness.set(true);

    let mut terminated = std::pin::pin!(terminated());
    let mut leadership = tokio::select! {
        leadership = lease::acquire(client.clone(), &config.namespace, names::MANAGER, &config.pod) => leadership?,
        () = &mut terminated => return Ok(()),
    };
    let result = tokio::select! {
        result = lead(client, config, metrics) => result,
        () = leadership.lost() => return Err(Error::LeaseLost),
        () = terminated => Ok(()),
        ended = health => ended.unwrap_or(Ok(())).map_err(Error::Health),
    };
    leadership.release().await;
    result
}

/// Ends with an error only.
async fn lead(client: Client, config: Run, metrics: Metrics) -> Result<(), Error> {
    let reporter = Reporter { controller: names::MANAGER.into(), instance: Some(config.pod.clone()) };
    let (nodes, changes) = Nodes::new();
    let context = Arc::new(Context {
        secrets: bootstrap::secrets(client.clone(), &config.namespace).await?,
        events: Recorder::new(client.clone(), reporter),
        applier: Applier { client, metrics },
        nodes,
        failures: Failures::default(),
        config,
    });
    reconcile_registries(context, changes).await;
    Ok(())
}

/// Never ends.
async fn reconcile_registries(
    context: Arc<Context>,
    node_changes: impl futures::Stream<Item = ObjectRef<Guarded>> + Send + 'static,
) {
    let client = &context.applier.client;
    let ours = || watcher::Config::default().labels(&names::any_registry());
    let controller = Controller::new(Api::<Guarded>::all(client.clone()), watcher::Config::default());
    let registries = controller.store();

    let controller = controller
        .with_config(Config::default().concurrency(CONCURRENCY))
        .owns(all::<StatefulSet>(client), ours())
        .owns(all::<Service>(client), ours())
        .owns(all::<Secret>(client), ours())
        .owns(all::<ConfigMap>(client), ours())
        .owns(all::<ServiceAccount>(client), ours())
        // These have no Registry as owner, but its name as label.
        .watches(all::<Pod>(client), ours(), registry_of)
        .watches(all::<PersistentVolumeClaim>(client), ours(), registry_of)
        .reconcile_on(node_changes)
        .run(reconcile_guarded, on_error, Arc::clone(&context))
        .for_each(|result| async {
            // Failed reconciliations are logged by `on_error`; what is left is of the controller itself.
            if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = result {
                tracing::warn!(%error, "failed to watch");
            }
        });
    tokio::join!(controller, node_access::run(Arc::clone(&context), registries));
}

async fn reconcile_guarded(
    registry: Arc<Guarded>,
    context: Arc<Context>,
) -> Result<Action, reconcile::Error> {
    match &registry.0 {
        Ok(registry) => reconcile::reconcile(Arc::new(registry.clone()), context).await,
        Err(InvalidObject { error, metadata }) => {
            let (namespace, name) = (&metadata.namespace, &metadata.name);
            tracing::error!(error, namespace, name, "cannot read this Registry: is it for a newer operator?");
            Ok(Action::await_change())
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what the controller calls")]
fn on_error(registry: Arc<Guarded>, error: &reconcile::Error, context: Arc<Context>) -> Action {
    registry
        .0
        .as_ref()
        .map_or_else(|_| Action::await_change(), |registry| reconcile::on_error(registry, error, &context))
}

fn all<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(client: &Client) -> Api<K> {
    Api::all(client.clone())
}

#[expect(clippy::needless_pass_by_value, reason = "what `watches` wants")]
fn registry_of<K: Resource>(object: K) -> Option<ObjectRef<Guarded>> {
    let name = object.labels().get(names::REGISTRY_LABEL)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
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
