//! What the operator knows of the cluster without asking: Registries, Repositories and the labels of namespaces, as
//! watches tell of them.
//!
//! Nothing is decided before all three are complete: a policy made of half of the Repositories would shut people out.

use std::{sync::Arc, time::Duration};

use crds::{Registry, Repository, registry::DeletionPolicy};
use futures::{Stream, StreamExt as _};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Resource,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt as _,
        reflector::{Lookup, ObjectRef, Store, store::Writer},
        watcher::{Error, Event},
    },
};

use crate::{
    controller::{Guarded, GuardedReplication, GuardedRepository},
    fallbacks, names,
    tenancy::{Labels, Tenants},
};

/// What a reconciliation waits for a first complete look at the cluster.
const PATIENCE: Duration = Duration::from_secs(20);

/// Not everything was seen yet.
#[derive(Debug, thiserror::Error)]
#[error(
    "not all Registries, Repositories and namespaces are known yet: is a resource definition or a right missing?"
)]
pub(crate) struct Incomplete;

/// What is known of the cluster.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) registries: Store<Guarded>,
    pub(crate) repositories: Store<GuardedRepository>,
    pub(crate) namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Nothing is decided by these but what is followed.
    pub(crate) replications: Store<GuardedReplication>,
}

/// Where watches write what [`Stores`] reads.
#[derive(Default)]
pub(crate) struct Writers {
    pub(crate) registries: Writer<Guarded>,
    pub(crate) repositories: Writer<GuardedRepository>,
    pub(crate) namespaces: Writer<PartialObjectMeta<Namespace>>,
    pub(crate) replications: Writer<GuardedReplication>,
}

impl Writers {
    /// The reading ends.
    pub(crate) fn stores(&self) -> Stores {
        Stores {
            registries: self.registries.as_reader(),
            repositories: self.repositories.as_reader(),
            namespaces: self.namespaces.as_reader(),
            replications: self.replications.as_reader(),
        }
    }
}

impl Stores {
    /// Waits until everything was seen once.
    pub(crate) async fn complete(&self) -> Result<(), Incomplete> {
        let complete = async {
            let Self { registries, repositories, namespaces, replications: _ } = self;
            registries.wait_until_ready().await?;
            repositories.wait_until_ready().await?;
            namespaces.wait_until_ready().await
        };
        tokio::time::timeout(PATIENCE, complete).await.map_err(|_| Incomplete)?.map_err(|_| Incomplete)
    }

    /// The Registry that a Repository names, if there is one that can be read.
    pub(crate) fn registry_of(&self, repository: &Repository) -> Option<Registry> {
        self.registry(&registry_ref(repository))
    }

    /// The Registry, if there is one that can be read.
    pub(crate) fn registry(&self, reference: &ObjectRef<Guarded>) -> Option<Registry> {
        self.registries.get(reference)?.0.as_ref().ok().cloned()
    }

    /// The Registries that name this one to fall back on, the oldest first; none that is being deleted.
    pub(crate) fn primaries_of(&self, replica: &ObjectRef<Guarded>) -> Vec<Registry> {
        let naming = self.registries.state().into_iter().filter_map(|guarded| {
            let registry = guarded.0.as_ref().ok()?;
            let stays = registry.metadata.deletion_timestamp.is_none();
            (stays && fallbacks::named(registry).contains(replica)).then(|| registry.clone())
        });
        let mut naming: Vec<_> = naming.collect();
        naming.sort_by_cached_key(|registry| {
            let metadata = registry.metadata.clone();
            (metadata.creation_timestamp, metadata.namespace, metadata.name)
        });
        naming
    }

    /// Whether the Registry is there and can't be read: then nothing is known of it, and nothing is taken from anybody.
    pub(crate) fn is_unreadable(&self, repository: &Repository) -> bool {
        self.registries.get(&registry_ref(repository)).is_some_and(|guarded| guarded.0.is_err())
    }

    /// The Repositories that name this Registry.
    pub(crate) fn repositories_of(&self, registry: &ObjectRef<Guarded>) -> Vec<Arc<GuardedRepository>> {
        self.repositories
            .state_filter(|guarded| guarded.0.as_ref().is_ok_and(|repository| is_in(repository, registry)))
    }

    /// Those of them that declare this path.
    pub(crate) fn declaring(&self, registry: &ObjectRef<Guarded>, path: &str) -> Vec<Arc<GuardedRepository>> {
        let declares = |repository: &Repository| is_in(repository, registry) && repository.has_path(path);
        self.repositories.state_filter(|guarded| guarded.0.as_ref().is_ok_and(declares))
    }

    /// The Repositories of a namespace.
    pub(crate) fn repositories_in(&self, namespace: &str) -> Vec<Arc<GuardedRepository>> {
        self.repositories.state_filter(|repository| repository.meta().namespace.as_deref() == Some(namespace))
    }

    /// Calls `with` with all that name this Registry.
    pub(crate) fn tenants<T>(&self, registry: &Registry, with: impl FnOnce(&Tenants<'_>) -> T) -> T {
        let repositories = self.repositories_of(&names::reference(registry));
        let repositories: Vec<_> =
            repositories.iter().filter_map(|guarded| guarded.0.as_ref().ok()).collect();
        with(&Tenants::new(registry, repositories, &|name| self.labels(name)))
    }

    /// Whether a Registry takes anything of this namespace.
    pub(crate) fn takes(&self, registry: &Registry, namespace: &str) -> bool {
        Tenants::new(registry, Vec::new(), &|name| self.labels(name)).takes(namespace)
    }

    /// A namespace's labels; none where there is no such namespace.
    fn labels(&self, namespace: &str) -> Option<Labels> {
        let namespace = self.namespaces.get(&ObjectRef::new(namespace))?;
        Some(namespace.metadata.labels.clone().unwrap_or_default())
    }
}

/// The Registry that a Repository names.
pub(crate) fn registry_ref(repository: &Repository) -> ObjectRef<Guarded> {
    let (namespace, name) = repository.registry();
    ObjectRef::new(&name).within(&namespace)
}

fn is_in(repository: &Repository, registry: &ObjectRef<Guarded>) -> bool {
    let reference = &repository.spec.registry_ref;
    let namespace = reference.namespace.as_ref().or(repository.metadata.namespace.as_ref());
    reference.name == registry.name && namespace == registry.namespace.as_ref()
}

/// What happened to an object: how it was and how it is, or that a watch began anew and anything may have happened.
pub(crate) enum Change<'a, K> {
    One { before: Option<&'a K>, now: Option<&'a K> },
    Anything,
}

/// Writes what a watch tells, and then tells of each change.
pub(crate) fn follow<K>(
    events: impl Stream<Item = Result<Event<K>, Error>> + Send + 'static,
    mut writer: Writer<K>,
    mut tell: impl FnMut(Change<'_, K>) + Send + 'static,
) -> impl Stream<Item = Result<K, Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let store = writer.as_reader();
    let events = events.default_backoff().inspect(move |event| {
        let Ok(event) = event else { return };
        let before = match event {
            Event::Apply(object) | Event::Delete(object) => store.get(&ObjectRef::from_obj(object)),
            _ => None,
        };
        writer.apply_watcher_event(event);
        let before = before.as_deref();
        match event {
            Event::Apply(object) => tell(Change::One { before, now: Some(object) }),
            Event::Delete(_) => tell(Change::One { before, now: None }),
            Event::InitDone => tell(Change::Anything),
            Event::Init | Event::InitApply(_) => {}
        }
    });
    events.touched_objects()
}

/// What a watch tells of Repositories; one that can't be read any more stays what it was when it last could. So it keeps its
/// path, and nobody loses what it grants because somebody declares what only a newer operator understands. Its images stay
/// when it goes: what it says of them now is not known.
pub(crate) fn keep_readable(
    event: Event<GuardedRepository>,
    known: &Store<GuardedRepository>,
) -> Event<GuardedRepository> {
    let keep = |repository: GuardedRepository| {
        let former = known.get(&ObjectRef::from_obj(&repository));
        match (repository.0, former.as_deref()) {
            (Err(invalid), Some(DeserializeGuard(Ok(former))))
                if invalid.metadata.uid == former.metadata.uid =>
            {
                tracing::error!(
                    error = invalid.error,
                    namespace = invalid.metadata.namespace,
                    name = invalid.metadata.name,
                    "cannot read this Repository, and goes by what it said before: is it for a newer operator?"
                );
                DeserializeGuard(Ok(as_before(former, invalid.metadata)))
            }
            (repository, _) => DeserializeGuard(repository),
        }
    };
    match event {
        Event::Apply(repository) => Event::Apply(keep(repository)),
        Event::InitApply(repository) => Event::InitApply(keep(repository)),
        Event::Init | Event::InitDone | Event::Delete(_) => event,
    }
}

/// Of the same generation as before, for that is what is observed of it.
fn as_before(former: &Repository, metadata: ObjectMeta) -> Repository {
    let mut kept = former.clone();
    kept.metadata = ObjectMeta { generation: former.metadata.generation, ..metadata };
    kept.spec.deletion_policy = DeletionPolicy::Retain;
    kept
}

/// Without what nobody here reads.
pub(crate) fn trim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

#[cfg(test)]
mod tests;
