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
    runtime::{
        Controller,
        controller::Config,
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
    reconcile::{on_error, reconcile},
};

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

    let mut leadership = tokio::select! {
        leadership = lease::acquire(client.clone(), &config.namespace, names::MANAGER, &config.pod) => leadership?,
        () = terminated() => return Ok(()),
    };
    let context = context(client, config, metrics).await?;
    tokio::select! {
        () = reconcile_registries(context) => {}
        () = leadership.lost() => return Err(Error::LeaseLost),
        () = terminated() => {}
        ended = health => return ended.unwrap_or(Ok(())).map_err(Error::Health),
    }
    leadership.release().await;
    Ok(())
}

async fn context(client: Client, config: Run, metrics: Metrics) -> Result<Arc<Context>, Error> {
    let reporter = Reporter { controller: names::MANAGER.into(), instance: Some(config.pod.clone()) };
    Ok(Arc::new(Context {
        secrets: bootstrap::secrets(client.clone(), &config.namespace).await?,
        events: Recorder::new(client.clone(), reporter),
        applier: Applier { client, metrics },
        nodes: Arc::new(Nodes::default()),
        failures: Failures::default(),
        config,
    }))
}

/// Never ends.
async fn reconcile_registries(context: Arc<Context>) {
    let client = &context.applier.client;
    let ours = || watcher::Config::default().labels(&names::any_registry());
    let controller = Controller::new(Api::<Registry>::all(client.clone()), watcher::Config::default());
    let registries = controller.store();
    let changes = items_of(context.nodes.changes());
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
        .reconcile_all_on(changes)
        .run(reconcile, on_error, Arc::clone(&context))
        .for_each(|result| async {
            // Failed reconciliations are logged by `on_error`; what is left is of the controller itself.
            if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = result {
                tracing::warn!(%error, "failed to watch");
            }
        });
    tokio::join!(controller, node_access::run(Arc::clone(&context), registries));
}

fn all<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(client: &Client) -> Api<K> {
    Api::all(client.clone())
}

#[expect(clippy::needless_pass_by_value, reason = "what `watches` wants")]
fn registry_of<K: Resource>(object: K) -> Option<ObjectRef<Registry>> {
    let name = object.labels().get(names::REGISTRY_LABEL)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

/// Each change as an item.
fn items_of(changes: tokio::sync::watch::Receiver<()>) -> impl futures::Stream<Item = ()> + Send {
    futures::stream::unfold(changes, |mut changes| async {
        changes.changed().await.ok()?;
        Some(((), changes))
    })
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
