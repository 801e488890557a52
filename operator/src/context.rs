//! What every reconciliation needs.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use channel::client::Client;
use crds::Registry;
use kube::{ResourceExt as _, runtime::events::Recorder};
use time::OffsetDateTime;

use crate::{
    apply::Applier,
    authority::{self, Usage},
    bootstrap::Secrets,
    config::Run,
    node_access::Nodes,
};

/// A client certificate is made for every use; it need not last.
const CLIENT_LIFETIME: time::Duration = time::Duration::hours(1);

/// What every reconciliation needs.
pub(crate) struct Context {
    pub(crate) config: Run,
    pub(crate) applier: Applier,
    pub(crate) secrets: Secrets,
    pub(crate) nodes: Nodes,
    pub(crate) events: Recorder,
    pub(crate) failures: Failures,
}

/// Why the channel can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error(transparent)]
    Certificate(#[from] authority::Error),
    #[error(transparent)]
    Tls(#[from] channel::tls::Error),
}

impl Context {
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
pub(crate) struct Failures(Mutex<HashMap<String, u32>>);

impl Failures {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    /// So many failures in a row are told to people.
    const MANY: u32 = 5;

    /// Whether there were so many that people should hear of it.
    pub(crate) fn are_many(&self, registry: &Registry) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&registry.uid().unwrap_or_default()).is_some_and(|count| *count >= Self::MANY)
    }

    /// Another failure of this object: how long to wait.
    pub(crate) fn another(&self, registry: &Registry) -> Duration {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(registry.uid().unwrap_or_default()).or_default();
        let wait = Self::FIRST.saturating_mul(1 << (*count).min(8)).min(Self::LONGEST);
        *count += 1;
        wait
    }

    /// The object is well, or gone.
    pub(crate) fn over(&self, registry: &Registry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&registry.uid().unwrap_or_default());
    }
}
