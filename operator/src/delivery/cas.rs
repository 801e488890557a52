//! Where a Registry's CA is wanted, and what becomes of it elsewhere.
//!
//! It lies in each namespace that has a copy, or whose service accounts may push. Whoever takes the last copy away takes
//! the CA along; what is left over all the same, because a copy was deleted by hand or a namespace took its consent
//! back, is found by looking at all of them.

use std::collections::BTreeSet;

use crds::{
    Repository,
    repository::{Access, Action, Role},
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, ResourceExt as _, api::ListParams, core::PartialObjectMeta, runtime::reflector::ObjectRef};

use super::{
    Error,
    desired::ca_name,
    placement::{Named, has_labels, selector},
    targets::agrees,
    watched::{NamespaceMeta, Watched},
};
use crate::context::Context;

/// The groups that service accounts of a namespace are in begin so.
const GROUP: &str = "system:serviceaccounts:";

/// A namespace, and of which Registry there is a CA.
pub(super) type Place = (String, Named);

/// Namespaces whose service accounts may push to a Repository, whether they agree or not.
pub(super) fn pushing(repository: &Repository) -> BTreeSet<String> {
    let own = repository.namespace().unwrap_or_default();
    let namespace = |access: &Access| {
        let account = access.service_account.as_ref();
        let of_account = account.map(|account| account.namespace.clone().unwrap_or_else(|| own.clone()));
        of_account.or_else(|| access.group.as_ref()?.strip_prefix(GROUP).map(ToOwned::to_owned))
    };
    repository.spec.access.iter().filter(|access| may_push(access)).filter_map(namespace).collect()
}

fn may_push(access: &Access) -> bool {
    let writes = |action: &Action| matches!(action, Action::ContentWrite | Action::MetadataWrite);
    access.actions.iter().flatten().any(writes) || matches!(access.role, Some(Role::Writer | Role::Admin))
}

/// Whether the CA is wanted in this namespace because its service accounts may push.
pub(super) fn is_for_pushing(repository: &Repository, namespace: &NamespaceMeta) -> bool {
    let stays = namespace.metadata.deletion_timestamp.is_none();
    stays && agrees(repository, namespace) && pushing(repository).contains(&namespace.name_any())
}

/// The same of a namespace that may not be known.
pub(super) fn pushes_from(watched: &Watched, repository: &Repository, namespace: &str) -> bool {
    let known = watched.namespaces.get(&ObjectRef::new(namespace));
    known.is_some_and(|known| is_for_pushing(repository, &known))
}

/// Deletes a Registry's CA where neither a copy lies nor anybody pushes from.
pub(super) async fn remove_unless_wanted(
    context: &Context,
    registry: &Named,
    namespace: &str,
) -> Result<(), Error> {
    if is_pushed_from(context, registry, namespace) {
        return Ok(());
    }
    let (applier, labels) = (&context.applier, registry.labels());
    let same_registry = ListParams::default().labels(&selector(&labels)).limit(1);
    let copies = Api::<PartialObjectMeta<Secret>>::namespaced(applier.client.clone(), namespace);
    let needed = copies.list(&same_registry).await;
    let needed = needed.map_err(|source| Error::List { what: "delivered Secrets", source })?;
    if needed.items.is_empty() {
        let name = ca_name(registry);
        applier.delete_if::<ConfigMap>(namespace, &name, |observed| has_labels(observed, &labels)).await?;
    }
    Ok(())
}

/// Whether a Repository of this Registry lets service accounts of this namespace push. Nothing is known of what can't be
/// read, and nothing is taken from anybody.
fn is_pushed_from(context: &Context, registry: &Named, namespace: &str) -> bool {
    let Some(guarded) = context.stores.registries.get(&registry.reference()) else { return false };
    guarded.0.as_ref().map_or(true, |registry| {
        context.stores.tenants(registry, |tenants| {
            tenants.accepted().iter().any(|repository| pushes_from(&context.watched, repository, namespace))
        })
    })
}

/// Where CAs lie that nobody needs, as far as watches know.
pub(super) fn left_over(context: &Context) -> BTreeSet<Place> {
    let watched = &context.watched;
    let there = watched.config_maps.state();
    let place = |ca: &ConfigMap| {
        Some((ca.namespace()?, Named::by(ca)?)).filter(|(_, it)| ca_name(it) == ca.name_any())
    };
    let mut left: BTreeSet<Place> = there.iter().filter_map(|ca| place(ca)).collect();
    if left.is_empty() {
        return left;
    }
    watched.copies.each(|copy| {
        if let Some(place) = copy.namespace().zip(Named::by(copy)) {
            left.remove(&place);
        }
    });
    left.retain(|(namespace, registry)| !is_pushed_from(context, registry, namespace));
    left
}
