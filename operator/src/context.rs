//! What every reconciliation needs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use channel::client::Client;
use kube::{Resource, runtime::events::Recorder};
use time::OffsetDateTime;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    apply::Applier,
    authority::{self, Usage},
    bootstrap::Secrets,
    config::Run,
    delivery::Watched,
    desired::told::Told,
    heard::Said,
    node_access::Nodes,
    replication,
    stores::Stores,
    triggers::Triggers,
};

/// A client certificate is made for every use; it need not last.
const CLIENT_LIFETIME: time::Duration = time::Duration::hours(1);

/// What every reconciliation needs.
pub(crate) struct Context {
    pub(crate) config: Run,
    pub(crate) applier: Applier,
    pub(crate) secrets: Secrets,
    pub(crate) stores: Stores,
    pub(crate) triggers: Triggers,
    pub(crate) nodes: Nodes,
    /// By what every replica decides.
    pub(crate) enforced: Said<Arc<Told>>,
    /// What paths hold.
    pub(crate) usage: Said<channel::usage::PathUsage>,
    /// What is delivered where.
    pub(crate) watched: Watched,
    /// What the operator remembers of Replications.
    pub(crate) replications: replication::Memory,
    pub(crate) events: Recorder,
    pub(crate) failures: Failures,
    /// For Registries that ask the API server for all that they are made of.
    pub(crate) turns: Semaphore,
}

/// Registries at once that ask the API server, which is not to be flooded.
pub(crate) const TURNS: usize = 8;

/// Why the channel can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error(transparent)]
    Certificate(#[from] authority::Error),
    #[error(transparent)]
    Tls(#[from] channel::tls::Error),
}

impl Context {
    /// Waits until all was seen that answers about new pods come from.
    pub(crate) async fn is_known(&self) {
        const LOOK: Duration = Duration::from_millis(20);
        // What fails is looked at again where something is decided.
        let _ = self.stores.complete().await;
        while !self.watched.is_ready() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A client that proves to be the operator. Its key exists in memory only.
    pub(crate) fn channel(&self) -> Result<Client, ChannelError> {
        let authority = &self.secrets.channel;
        let names = ["operator.channel.berth".to_owned()];
        let pair = authority.issue(&names, Usage::Client, OffsetDateTime::now_utc() + CLIENT_LIFETIME)?;
        Ok(Client::new(&pair.cert, &pair.key, authority.cert())?)
    }
}

/// Counts attempts in a row that did not come to an end, so that each object backs off by itself.
#[derive(Default)]
pub(crate) struct Failures(Mutex<HashMap<String, Failing>>);

/// How often in a row something failed, and until when it is better left alone.
struct Failing {
    count: u32,
    until: Instant,
}

impl Failures {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    /// So many failures in a row are told to people.
    const MANY: u32 = 5;

    /// Whether there were so many that people should hear of it.
    pub(crate) fn are_many<K: Resource>(&self, object: &K) -> bool {
        self.all().get(&uid(object)).is_some_and(|failing| failing.count >= Self::MANY)
    }

    /// Another failure of this object: how long to wait.
    pub(crate) fn another<K: Resource>(&self, object: &K) -> Duration {
        self.another_of(uid(object))
    }

    /// The object is well, or gone.
    pub(crate) fn over<K: Resource>(&self, object: &K) {
        self.over_of(&uid(object));
    }

    /// Another failure of what is called so: how long to wait.
    pub(crate) fn another_of(&self, name: String) -> Duration {
        let mut all = self.all();
        let failing = all.entry(name).or_insert_with(|| Failing { count: 0, until: Instant::now() });
        let wait = Self::FIRST.saturating_mul(1 << failing.count.min(8)).min(Self::LONGEST);
        *failing = Failing { count: failing.count + 1, until: Instant::now() + wait };
        wait
    }

    /// Whether what is called so failed a moment ago.
    pub(crate) fn waits(&self, name: &str) -> bool {
        self.all().get(name).is_some_and(|failing| Instant::now() < failing.until)
    }

    /// What is called so is well.
    pub(crate) fn over_of(&self, name: &str) {
        self.all().remove(name);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid<K: Resource>(object: &K) -> String {
    object.meta().uid.clone().unwrap_or_default()
}
