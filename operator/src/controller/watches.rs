//! What the operator watches from its start on, also while another one leads: so it answers about new pods, and knows the
//! cluster when its turn comes.

use std::sync::Arc;

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        events::{Recorder, Reporter},
        watcher,
    },
};
use tokio::sync::Semaphore;

use super::{Guarded, GuardedReplication, GuardedRepository};
use crate::{
    apply::Applier,
    bootstrap,
    config::Run,
    context::{Context, Failures, TURNS},
    delivery::Watched,
    heard::Said,
    metrics::Metrics,
    names,
    node_access::Nodes,
    replication::{self, ReplicationRefs},
    stores::{Change, Writers, follow, keep_readable, trim},
    triggers::{RegistryRefs, RepositoryRefs, Triggers},
};

/// What watches tell of a kind, each once the store has it.
type Touched<K> = BoxStream<'static, Result<K, watcher::Error>>;

/// What is told and has to be polled for anything to become known, and whom changes concern.
pub(super) struct Watches {
    pub(super) registries: Touched<Guarded>,
    pub(super) repositories: Touched<GuardedRepository>,
    pub(super) replications: Touched<GuardedReplication>,
    /// All else.
    pub(super) others: BoxStream<'static, ()>,
    pub(super) node_changes: RegistryRefs,
    pub(super) policy_refs: RegistryRefs,
    pub(super) repository_refs: RepositoryRefs,
    pub(super) replication_refs: ReplicationRefs,
}

impl Watches {
    /// Follows the cluster while somebody else acts; never ends.
    pub(super) async fn keep_up(&mut self) {
        let Self {
            registries,
            repositories,
            replications,
            others,
            node_changes,
            policy_refs,
            repository_refs,
            replication_refs,
        } = self;
        let nobody = || std::future::ready(());
        tokio::join!(
            registries.for_each(|_| nobody()),
            repositories.for_each(|_| nobody()),
            replications.for_each(|_| nobody()),
            others.for_each(|()| nobody()),
            // Who leads later looks at everything anyway.
            node_changes.for_each(|_| nobody()),
            policy_refs.for_each(|_| nobody()),
            repository_refs.for_each(|_| nobody()),
            replication_refs.for_each(|_| nobody()),
        );
    }
}

/// Begins to watch, with all that the operator knows and remembers.
pub(super) async fn begin(
    client: Client,
    config: Run,
    metrics: Metrics,
) -> Result<(Arc<Context>, Watches), bootstrap::Error> {
    let reporter = Reporter { controller: names::MANAGER.into(), instance: Some(config.pod.clone()) };
    let (nodes, node_changes) = Nodes::new();
    let writers = Writers::default();
    let stores = writers.stores();
    let (triggers, repository_refs, policy_refs) = Triggers::new(stores.clone());
    let (watched, delivery_changes) = Watched::start(&client, stores.namespaces.clone());
    let (memory, replication_refs) = replication::Memory::new();
    let context = Arc::new(Context {
        secrets: bootstrap::secrets(client.clone(), &config.namespace).await?,
        events: Recorder::new(client.clone(), reporter),
        applier: Applier { client: client.clone(), metrics },
        stores,
        triggers,
        nodes,
        enforced: Said::default(),
        usage: Said::default(),
        watched,
        replications: memory,
        failures: Failures::default(),
        turns: Semaphore::new(TURNS),
        config,
    });
    let Writers { registries, repositories, namespaces, replications } = writers;
    let (triggers, everything) = (&context.triggers, watcher::Config::default);
    let registries = follow(watcher(Api::all(client.clone()), everything()), registries, {
        let triggers = triggers.clone();
        move |change| triggers.registry(&change)
    });
    let known = context.stores.repositories.clone();
    let watched = watcher(Api::all(client.clone()), everything()).modify(trim);
    let watched = watched.map_ok(move |event| keep_readable(event, &known));
    let repositories = follow(watched, repositories, {
        let triggers = triggers.clone();
        move |change| triggers.repository(&change)
    });
    let replications = follow(watcher(Api::all(client.clone()), everything()).modify(trim), replications, {
        let context = Arc::clone(&context);
        move |change| replication_changed(&context, &change)
    });
    let watched =
        watcher(Api::all(client), everything()).modify(|namespace: &mut PartialObjectMeta<Namespace>| {
            trim(namespace);
            namespace.metadata.annotations = None;
        });
    let namespaces = follow(watched, namespaces, {
        let (triggers, watched) = (triggers.clone(), context.watched.clone());
        move |change| triggers.namespace(&watched, &change)
    });
    let deliveries = {
        let context = Arc::clone(&context);
        delivery_changes.map(move |change| context.triggers.delivery(&context.watched, &change))
    };
    let others = stream::select(deliveries, namespaces.map(drop)).boxed();
    let all = Watches {
        registries: registries.boxed(),
        repositories: repositories.boxed(),
        replications: replications.boxed(),
        others,
        node_changes,
        policy_refs,
        repository_refs,
        replication_refs,
    };
    Ok((context, all))
}

/// What is followed may be something else now; and nothing is kept of what is gone.
fn replication_changed(context: &Context, change: &Change<'_, GuardedReplication>) {
    if let Change::One { before: Some(before), now: None } = change {
        context.replications.forget(&before.uid().unwrap_or_default());
        if let Ok(replication) = &before.0 {
            context.applier.metrics.replications.forget(replication);
        }
    }
    let concern = |guarded: Option<&GuardedReplication>| guarded.map(replication::concern);
    match change {
        Change::One { before, now } if concern(*before) == concern(*now) => {}
        Change::One { .. } | Change::Anything => context.replications.changed(),
    }
}
