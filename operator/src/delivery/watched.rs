//! What delivery reads: kept by watches, so that an unchanged world costs no request.
//!
//! Held are our own copies whole, and of service accounts what delivery looks at. Secrets of other people are never
//! received, so that memory does not grow with them.

use std::sync::Arc;

use crds::{Repository, repository::AccessSecret};
use futures::{FutureExt as _, Stream, stream};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Client,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};

use super::{
    attach,
    cas::pushing,
    copies::{Copies, Keeper},
    events::{changes, events, metadata_of, trim_ca, trim_copy},
    logins,
    placement::{Owner, REGISTRY_NAME, secrets},
    refusals::Refusals,
    targets::{Standing, standing, uses},
};
use crate::{
    desired::policy::Logins,
    keys::RegistryKey,
    names::{MANAGED_BY, MANAGER, REPOSITORY_LABEL},
};

/// Objects in one answer of the API server: each may have a megabyte.
const PAGE: u32 = 20;

/// What is known of a namespace.
pub(super) type NamespaceMeta = PartialObjectMeta<Namespace>;

/// What delivery knows of the cluster, as old as its watches.
#[derive(Clone)]
pub(crate) struct Watched {
    /// Copies of any Repository.
    pub(super) copies: Copies,
    /// CAs of any Registry.
    pub(super) config_maps: Store<ConfigMap>,
    pub(super) namespaces: Store<NamespaceMeta>,
    pub(super) service_accounts: Store<ServiceAccount>,
    pub(super) refusals: Refusals,
}

/// Something changed, came or went.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A copy.
    Copy(Box<PartialObjectMeta<Secret>>),
    /// A namespace.
    Namespace(String),
    /// A service account or a CA in this namespace.
    Within(String),
    /// A watch began anew, and may have missed anything.
    Anything,
}

impl Watched {
    /// Begins to watch all but namespaces, of which somebody else tells. The stream has to be polled for anything to become
    /// known, and never ends.
    pub(crate) fn start(
        client: &Client,
        namespaces: Store<NamespaceMeta>,
    ) -> (Self, impl Stream<Item = Change> + Send + 'static) {
        let made = |label: &str| {
            watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER},{label}")).page_size(PAGE)
        };
        let within = |namespace: Option<String>| Change::Within(namespace.unwrap_or_default());
        let (mut keeper, refusals) = (Keeper::default(), Refusals::default());
        let (copies, mut config_maps, mut service_accounts) =
            (keeper.copies(), Writer::default(), Writer::default());
        let watched = Self {
            copies,
            config_maps: config_maps.as_reader(),
            namespaces,
            service_accounts: service_accounts.as_reader(),
            refusals: refusals.clone(),
        };
        let copies = events(client, made(REPOSITORY_LABEL), &refusals).modify(trim_copy);
        let cas = events(client, made(REGISTRY_NAME), &refusals).modify(trim_ca);
        let accounts = events(client, watcher::Config::default(), &refusals).modify(attach::trim);
        let changes = stream::select_all([
            changes(
                copies,
                move |event| keeper.take(event),
                |copy| Change::Copy(Box::new(metadata_of(copy))),
            ),
            changes(
                cas,
                move |event| {
                    config_maps.apply_watcher_event(event);
                    true
                },
                move |ca: ConfigMap| within(ca.metadata.namespace),
            ),
            changes(
                accounts,
                move |event| {
                    service_accounts.apply_watcher_event(event);
                    true
                },
                move |account| within(account.metadata.namespace),
            ),
        ]);
        (watched, changes)
    }

    /// Of a cluster in which there is nothing.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        fn store<K: kube::runtime::reflector::Lookup<DynamicType = ()> + Clone + 'static>() -> Store<K> {
            let mut writer = Writer::default();
            writer.apply_watcher_event(&watcher::Event::Init);
            writer.apply_watcher_event(&watcher::Event::InitDone);
            writer.as_reader()
        }
        let mut keeper = Keeper::default();
        keeper.take(&watcher::Event::Init);
        keeper.take(&watcher::Event::InitDone);
        Self {
            copies: keeper.copies(),
            config_maps: store(),
            namespaces: store(),
            service_accounts: store(),
            refusals: Refusals::default(),
        }
    }

    /// Whether everything was read once. Before, nothing must be concluded from what is not there.
    pub(crate) fn is_ready(&self) -> bool {
        let ready = [
            self.config_maps.wait_until_ready().now_or_never(),
            self.namespaces.wait_until_ready().now_or_never(),
            self.service_accounts.wait_until_ready().now_or_never(),
        ];
        self.copies.are_complete() && ready.iter().all(|ready| matches!(ready, Some(Ok(()))))
    }

    /// The kinds of objects that the operator has not been allowed to watch for a while; none where all is well.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.refusals.lasting()
    }

    /// Whether nothing will be known of what is delivered until somebody gives the operator a right.
    pub(crate) fn is_blind(&self) -> bool {
        !self.is_ready() && !self.refused().is_empty()
    }

    /// The logins that the Repository's Secrets open now, and what each may do at its path. None before everything was
    /// read once: an empty list would lock everybody out. Where the operator may not read it, nothing is open.
    pub(crate) fn logins(
        &self,
        repository: &Repository,
        key: &RegistryKey,
        now: Timestamp,
    ) -> Option<Logins> {
        if !declares_any(repository) {
            return Some(Logins::new());
        }
        if !self.is_ready() {
            return self.is_blind().then(Logins::new);
        }
        let copies = self.copies(repository);
        let receives = |secret: &AccessSecret, namespace: &str| {
            let namespace = self.namespaces.get(&ObjectRef::new(namespace));
            namespace.is_some_and(|namespace| standing(repository, secret, &namespace) == Standing::Receives)
        };
        Some(logins::logins(repository, copies.iter().map(AsRef::as_ref), receives, key, now))
    }

    /// Whether a namespace and this account of it are known, or will not be.
    pub(crate) fn knows(&self, namespace: &str, account: &str) -> bool {
        let account = ObjectRef::new(account).within(namespace);
        let is_there = || self.service_accounts.get(&account).is_some() || self.is_blind();
        self.namespaces.get(&ObjectRef::new(namespace)).is_some() && is_there()
    }

    /// Whether a Secret is for this account of this namespace, which may be too new to be known.
    pub(crate) fn is_for(
        &self,
        repository: &Repository,
        secret: &AccessSecret,
        namespace: &str,
        account: &str,
    ) -> bool {
        let known = self.namespaces.get(&ObjectRef::new(namespace));
        if !known.is_some_and(|known| standing(repository, secret, &known) == Standing::Receives) {
            return false;
        }
        let new = || {
            let metadata = ObjectMeta { name: Some(account.to_owned()), ..ObjectMeta::default() };
            Arc::new(ServiceAccount { metadata, ..ServiceAccount::default() })
        };
        let known = self.service_accounts.get(&ObjectRef::new(account).within(namespace));
        uses(&secret.service_accounts, &known.unwrap_or_else(new))
    }

    /// Whether a change may matter to the Repository.
    pub(crate) fn concerns(&self, change: &Change, repository: &Repository) -> bool {
        match change {
            Change::Copy(copy) => Owner::named_by(&**copy) == Owner::of(repository),
            Change::Namespace(name) => {
                self.is_meant(repository, name) || self.copies.has_any(&Owner::of(repository), name)
            }
            Change::Within(namespace) => self.is_meant(repository, namespace),
            Change::Anything => is_delivered(repository) || !self.copies(repository).is_empty(),
        }
    }

    /// Whether a change may open or shut logins of the Repository, which it concerns. A policy that nothing asks for would
    /// only hold up the next one.
    pub(crate) fn may_open(&self, change: &Change, repository: &Repository) -> bool {
        match change {
            Change::Copy(_) | Change::Anything => true,
            Change::Namespace(name) => self.copies.has_any(&Owner::of(repository), name),
            Change::Within(_) => false,
        }
    }

    /// The Repository's copies, wherever they are.
    pub(super) fn copies(&self, repository: &Repository) -> Vec<Arc<Secret>> {
        self.copies.of(&Owner::of(repository))
    }

    /// Whether a Secret of the Repository should be there, or would if the namespace let it, or the CA.
    fn is_meant(&self, repository: &Repository, namespace: &str) -> bool {
        if pushing(repository).contains(namespace) {
            return true;
        }
        let known = self.namespaces.get(&ObjectRef::new(namespace));
        secrets(repository).any(|(_, secret)| match &known {
            Some(known) => standing(repository, secret, known) != Standing::NotMeant,
            None => secret.namespaces.names.iter().any(|name| name == namespace),
        })
    }
}

/// Whether anything lies anywhere because of the Repository.
fn is_delivered(repository: &Repository) -> bool {
    declares_any(repository) || !pushing(repository).is_empty()
}

/// Whether the Repository asks for any Secret.
pub(crate) fn declares_any(repository: &Repository) -> bool {
    secrets(repository).next().is_some()
}
