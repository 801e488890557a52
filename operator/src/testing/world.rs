//! The operator's context over an API server in memory, and what watches would tell it of that.

use std::sync::Arc;

use clap::Parser as _;
use kube::runtime::{
    events::{Recorder, Reporter},
    reflector::{Lookup, store::Writer},
    watcher::Event,
};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::{
    apply::Applier,
    authority::Authority,
    bootstrap::Secrets,
    config::{Command, Run},
    context::{Context, Failures, TURNS},
    delivery::Watched,
    heard::Said,
    keys::Keys,
    metrics::Metrics,
    node_access::Nodes,
    replication::{Memory, ReplicationRefs},
    stores::Writers,
    testing::fake_api::FakeApi,
    triggers::{RegistryRefs, RepositoryRefs, Triggers},
};

/// The operator's context, and where it looks.
pub(crate) struct World {
    pub(crate) api: FakeApi,
    pub(crate) context: Arc<Context>,
    pub(crate) repository_refs: RepositoryRefs,
    pub(crate) policy_refs: RegistryRefs,
    pub(crate) replication_refs: ReplicationRefs,
    writers: Writers,
}

impl World {
    /// With a cluster that is empty.
    pub(crate) fn empty() -> Self {
        Self::over(FakeApi::default())
    }

    /// An operator that has just started, and remembers nothing.
    pub(crate) fn over(api: FakeApi) -> Self {
        let authority = || Authority::load(&Authority::create("test").unwrap()).unwrap();
        let writers = Writers::default();
        let (triggers, repository_refs, policy_refs) = Triggers::new(writers.stores());
        let (replications, replication_refs) = Memory::new();
        let context = Context {
            config: config(),
            applier: Applier { client: api.client(), metrics: Metrics::default() },
            secrets: Secrets {
                serving: authority(),
                channel: authority(),
                keys: Keys::new(&[7; 32]).unwrap(),
            },
            stores: writers.stores(),
            triggers,
            nodes: Nodes::new().0,
            enforced: Said::default(),
            usage: Said::default(),
            watched: Watched::empty(),
            replications,
            events: Recorder::new(api.client(), Reporter { controller: "test".into(), instance: None }),
            failures: Failures::default(),
            turns: Semaphore::new(TURNS),
        };
        let context = Arc::new(context);
        let mut world = Self { api, context, repository_refs, policy_refs, replication_refs, writers };
        world.watch();
        world
    }

    /// Takes everything in as watches would.
    pub(crate) fn watch(&mut self) {
        fill(&self.api, "/registries/", &mut self.writers.registries);
        fill(&self.api, "/repositories/", &mut self.writers.repositories);
        fill(&self.api, "/replications/", &mut self.writers.replications);
        fill(&self.api, "/api/v1/namespaces/", &mut self.writers.namespaces);
    }

    /// What is at this path of the API.
    pub(crate) fn read<K: DeserializeOwned>(&self, path: &str) -> K {
        serde_json::from_value(self.api.get(path).unwrap()).unwrap()
    }

    /// Changes what is at this path, and lets watches tell of it.
    pub(crate) fn edit(&mut self, path: &str, edit: impl FnOnce(&mut serde_json::Value)) {
        let mut object = self.api.get(path).unwrap();
        edit(&mut object);
        self.api.put(path, object);
        self.watch();
    }
}

/// The operator's configuration, as short as can be.
pub(crate) fn config() -> Run {
    let arguments = [
        "berth-operator",
        "run",
        "--registry-image=registry:1",
        "--operator-image=operator:1",
        "--pod=operator-0",
    ];
    let Ok(Command::Run(config)) = Command::try_parse_from(arguments) else { panic!("bad arguments") };
    config
}

/// All objects directly below a path that contains `collection`.
fn fill<K>(api: &FakeApi, collection: &str, writer: &mut Writer<K>)
where
    K: Lookup<DynamicType = ()> + Clone + DeserializeOwned + 'static,
{
    writer.apply_watcher_event(&Event::Init);
    for path in api.paths() {
        let Some((_, name)) = path.split_once(collection) else { continue };
        if !name.contains('/') {
            let object = serde_json::from_value(api.get(&path).unwrap()).unwrap();
            writer.apply_watcher_event(&Event::InitApply(object));
        }
    }
    writer.apply_watcher_event(&Event::InitDone);
}
