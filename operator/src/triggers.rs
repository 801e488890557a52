//! Which change in the cluster concerns whom.
//!
//! What a change does not concern is not looked at: that Repositories' statuses are written, or nodes report of a
//! Registry, triggers no policy.

use std::{collections::BTreeSet, sync::Arc};

use futures::channel::mpsc;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Resource, ResourceExt, core::PartialObjectMeta, runtime::reflector::ObjectRef};

use crate::{
    controller::{Guarded, GuardedRepository},
    delivery::{self, Watched},
    fallbacks, names,
    stores::{Change, Stores, registry_ref},
    tenancy,
};

/// Repositories to look at again.
pub(crate) type RepositoryRefs = mpsc::UnboundedReceiver<ObjectRef<GuardedRepository>>;
/// Registries whose policy may be another now.
pub(crate) type RegistryRefs = mpsc::UnboundedReceiver<ObjectRef<Guarded>>;

/// Asks for reconciliations.
#[derive(Clone)]
pub(crate) struct Triggers {
    stores: Stores,
    repositories: mpsc::UnboundedSender<ObjectRef<GuardedRepository>>,
    policies: mpsc::UnboundedSender<ObjectRef<Guarded>>,
}

impl Triggers {
    /// The streams name what to look at.
    pub(crate) fn new(stores: Stores) -> (Self, RepositoryRefs, RegistryRefs) {
        let ((repositories, repository_refs), (policies, policy_refs)) =
            (mpsc::unbounded(), mpsc::unbounded());
        (Self { stores, repositories, policies }, repository_refs, policy_refs)
    }

    /// A Registry changed: its Repositories are concerned by what it grants, and by whether it is there.
    pub(crate) fn registry(&self, change: &Change<'_, Guarded>) {
        let Change::One { before, now } = change else { return self.everything() };
        self.stand_ins(*before, *now);
        let same = matches!((before, now), (Some(before), Some(now)) if identity(*before) == identity(*now));
        let Some(registry) = now.or(*before).filter(|_| !same) else { return };
        self.look_at(&self.stores.repositories_of(&ObjectRef::from_obj(registry)));
    }

    /// A Registry changed: those that it names to fall back on, or named before, are concerned, and those whose fallback it
    /// is.
    fn stand_ins(&self, before: Option<&Guarded>, now: Option<&Guarded>) {
        let readable = [before, now].map(|guarded| guarded.and_then(|guarded| guarded.0.as_ref().ok()));
        let [former, current] = readable.map(|registry| registry.map(fallbacks::seen_by_others));
        if former == current {
            return;
        }
        for fallback in readable.into_iter().flatten().flat_map(fallbacks::named) {
            self.ask(fallback);
        }
        if let Some(registry) = now.or(before).map(ObjectRef::from_obj) {
            self.ask_primaries_of(&registry);
        }
    }

    /// A Repository changed: its Registry's policy is concerned, and who declares the same path. Where it only was told that
    /// the path is its own, or not any more, that matters to others that declare it.
    pub(crate) fn repository(&self, change: &Change<'_, GuardedRepository>) {
        let Change::One { before, now } = change else { return self.everything() };
        let same = |is_same: fn(&GuardedRepository, &GuardedRepository) -> bool| {
            before.zip(*now).is_some_and(|(before, now)| is_same(before, now))
        };
        let says_the_same = same(|before, now| identity(before) == identity(now));
        let holds_the_same = same(|before, now| is_told_to_hold(before) == is_told_to_hold(now));
        let readable =
            |guarded: Option<&GuardedRepository>| guarded.and_then(|guarded| guarded.0.clone().ok());
        let changed = !(says_the_same && holds_the_same);
        let Some(repository) = readable(*now).or_else(|| readable(*before)).filter(|_| changed) else {
            return;
        };
        let registry = registry_ref(&repository);
        let declaring = self.stores.declaring(&registry, &repository.path());
        if says_the_same && declaring.len() < 2 {
            return;
        }
        self.policy(registry);
        self.look_at(&declaring);
    }

    /// A namespace changed: its labels say what its Repositories are granted, and which Secrets it receives.
    pub(crate) fn namespace(&self, watched: &Watched, change: &Change<'_, PartialObjectMeta<Namespace>>) {
        let Change::One { before, now } = change else { return self.everything() };
        let seen = |namespace: Option<&PartialObjectMeta<Namespace>>| {
            namespace.map(|namespace| {
                (namespace.labels().clone(), namespace.metadata.deletion_timestamp.is_some())
            })
        };
        if seen(*before) == seen(*now) {
            return;
        }
        let name = now.or(*before).map(ResourceExt::name_any).unwrap_or_default();
        let repositories = self.stores.repositories_in(&name);
        let readable = repositories.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        let tenants = readable.filter(|repository| repository.registry().0 != name);
        tenants.for_each(|repository| self.policy(registry_ref(repository)));
        // What grants its Repositories something may also stand in for its Registries.
        let registries = self.stores.registries.state_filter(|guarded| {
            let registry = guarded.0.as_ref().ok();
            registry.is_some_and(|it| names::namespace(it) == name && !it.spec.fallbacks.is_empty())
        });
        for registry in &registries {
            self.policy(ObjectRef::from_obj(registry.as_ref()));
        }
        self.look_at(&repositories);
        self.delivery(watched, &delivery::Change::Namespace(name));
    }

    /// Something that delivery reads changed: Repositories are concerned, and the logins that their Secrets open.
    pub(crate) fn delivery(&self, watched: &Watched, change: &delivery::Change) {
        // Before everything was read, all is looked at again and again anyway.
        if !watched.is_ready() {
            return;
        }
        let concerned = self.stores.repositories.state_filter(|guarded| {
            guarded.0.as_ref().is_ok_and(|repository| watched.concerns(change, repository))
        });
        let readable = concerned.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        let opening = readable.filter(|repository| watched.may_open(change, repository));
        opening.for_each(|repository| self.policy(registry_ref(repository)));
        self.look_at(&concerned);
    }

    /// What a Registry's replicas do in these paths is another now.
    pub(crate) fn paths(&self, registry: &ObjectRef<Guarded>, paths: &BTreeSet<String>) {
        let mut repositories = self.stores.repositories_of(registry);
        repositories
            .retain(|guarded| guarded.0.as_ref().is_ok_and(|repository| paths.contains(&repository.path())));
        self.look_at(&repositories);
    }

    /// The policy of this Registry may be another now, and so may those of its fallbacks, and how it stands in for others.
    fn policy(&self, registry: ObjectRef<Guarded>) {
        let named = self.stores.registry(&registry).map(|it| fallbacks::named(&it)).unwrap_or_default();
        for fallback in named {
            self.ask(fallback);
        }
        self.ask_primaries_of(&registry);
        self.ask(registry);
    }

    fn ask_primaries_of(&self, registry: &ObjectRef<Guarded>) {
        for primary in self.stores.primaries_of(registry) {
            self.ask(names::reference(&primary));
        }
    }

    /// This Registry is to be looked at.
    fn ask(&self, registry: ObjectRef<Guarded>) {
        // Nobody listens any more where the operator ends.
        let _ = self.policies.unbounded_send(registry);
    }

    fn look_at(&self, repositories: &[Arc<GuardedRepository>]) {
        for repository in repositories {
            let _ = self.repositories.unbounded_send(ObjectRef::from_obj(repository.as_ref()));
        }
    }

    /// A watch began anew, and may have missed anything.
    fn everything(&self) {
        let registries = self.stores.registries.state();
        for registry in &registries {
            self.ask(ObjectRef::from_obj(registry.as_ref()));
        }
        self.look_at(&self.stores.repositories.state());
    }
}

/// Whether it was told that the path it declares is its own.
fn is_told_to_hold(guarded: &GuardedRepository) -> bool {
    guarded.0.as_ref().is_ok_and(tenancy::is_told_to_hold)
}

/// What is the same while only the status changes.
fn identity<K: Resource>(object: &K) -> impl PartialEq + use<K> {
    let metadata = object.meta().clone();
    (metadata.uid, metadata.generation, metadata.deletion_timestamp)
}

#[cfg(test)]
mod tests;
