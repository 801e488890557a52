//! Read fallback: which Registry stands in for which other one, and whom it lets in because of that.
//!
//! A primary names its replicas. What holds: one agrees where it is in the same namespace, or its tenancy takes the
//! primary's; a Repository of the primary opens there what a Repository of its namespace could have there, and nothing
//! that another namespace has declared; and whom it lets in reads, as at the primary, and does nothing else. So nobody
//! reads at a replica what they may not read at the primary, nor what is another one's.
//!
//! A registry outside of the cluster may be one, where the operator's configuration names its host: nodes would go
//! wherever they are told. Nothing of the primary is known there, so that it serves what is public.

use channel::policy;
use crds::{Registry, Repository, registry::Fallback, repository::RegistryRef};
use kube::{Resource as _, ResourceExt as _, runtime::reflector::ObjectRef};

use crate::{
    conditions::Answer,
    context::Context,
    controller::Guarded,
    desired::{
        policy::Opened,
        told::{decide, size},
    },
    names, node_access,
    stores::{Incomplete, Stores},
};

mod opening;
mod outside;

use opening::opening;

/// Bytes of a policy that all primaries together may take. What a Registry's own Repositories may take leaves as much.
const ROOM: usize = 2 << 20;

/// How a Registry's fallbacks are.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Whether all can stand in; none where it names none.
    pub(crate) answer: Option<Answer>,
    /// Endpoints of those that do.
    pub(crate) endpoints: Vec<String>,
    /// Those that nodes turn to: that one is stopped for a while changes no files.
    pub(crate) agreeing: Vec<Replica>,
}

/// What stands in for a Registry.
#[derive(Clone, Debug)]
pub(crate) enum Replica {
    /// Another one.
    Registry(Box<Registry>),
    /// One outside of the cluster.
    Outside(Outside),
}

/// A registry outside of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    /// `host:port`.
    pub(crate) authority: String,
    /// Certificates that sign its own, PEM; none where nodes trust them anyway.
    pub(crate) ca: Option<String>,
}

/// A primary, as its replica sees it.
struct Guest {
    uid: Option<String>,
    policy: policy::Primary,
    /// Paths that the primary has and the replica does not take.
    untaken: Vec<String>,
    /// Whether there is room for it in the policy.
    fits: bool,
}

/// The Registries that this one names, in its order, each once.
pub(crate) fn named(registry: &Registry) -> Vec<ObjectRef<Guarded>> {
    let mut all = Vec::new();
    for named in registry.spec.fallbacks.iter().filter_map(|fallback| fallback.registry_ref.as_ref()) {
        let reference = reference(registry, named);
        if !all.contains(&reference) {
            all.push(reference);
        }
    }
    all
}

fn reference(registry: &Registry, named: &RegistryRef) -> ObjectRef<Guarded> {
    let namespace = named.namespace.clone();
    ObjectRef::new(&named.name).within(&namespace.unwrap_or_else(|| names::namespace(registry)))
}

/// What of a Registry matters to those whose fallback it is, and to those that it falls back on.
pub(crate) fn seen_by_others(registry: &Registry) -> impl PartialEq + use<> {
    let metadata = registry.meta().clone();
    let address = registry.status.as_ref().and_then(|status| status.cluster_ip.clone());
    (metadata.uid, metadata.generation, metadata.deletion_timestamp, address, is_available(registry))
}

/// The primaries that a Registry stands in for, for its policy.
pub(crate) fn primaries(context: &Context, replica: &Registry) -> Result<Vec<policy::Primary>, Incomplete> {
    let guests = guests(context, replica)?.into_iter();
    let present = guests.filter(|guest| guest.fits && !guest.policy.repositories.is_empty());
    Ok(present.map(|guest| guest.policy).collect())
}

/// What stands in for this Registry, or why it doesn't, in its order.
pub(crate) fn agreeing(context: &Context, primary: &Registry) -> Vec<Result<Replica, Answer>> {
    let (stores, config) = (&context.stores, &context.config);
    let agreed = |fallback: &Fallback| {
        let registry = fallback.registry_ref.as_ref().map(|named| {
            let reference = reference(primary, named);
            agreed(stores, primary, &reference, &config.node_access_namespaces)
                .map(|replica| Replica::Registry(Box::new(replica)))
        });
        registry.or_else(|| {
            let endpoint = fallback.endpoint.as_ref()?;
            Some(outside::granted(endpoint, &config.fallback_hosts).map(Replica::Outside))
        })
    };
    primary.spec.fallbacks.iter().filter_map(agreed).collect()
}

/// How a Registry's fallbacks are.
pub(crate) fn standing(context: &Context, primary: &Registry) -> Result<Standing, Incomplete> {
    let mut standing = Standing::default();
    let (mut problem, mut outside) = (None, Vec::new());
    for agreed in agreeing(context, primary) {
        let agreed = match agreed {
            Ok(Replica::Outside(replica)) => {
                standing.endpoints.push(replica.authority.clone());
                outside.push(replica.authority.clone());
                standing.agreeing.push(Replica::Outside(replica));
                Ok(())
            }
            Ok(Replica::Registry(replica)) => {
                let guests = guests(context, &replica)?;
                let guest = guests.iter().find(|guest| guest.uid == primary.metadata.uid);
                let problem = hindrance(&replica, guest);
                let untaken = guest.map(|guest| &*guest.untaken).unwrap_or_default();
                if problem.is_none() {
                    standing.endpoints.push(names::endpoint(&replica));
                }
                let answer = problem.map_or_else(|| all_taken(&replica, untaken), Err);
                standing.agreeing.push(Replica::Registry(replica));
                answer
            }
            Err(refusal) => Err(refusal),
        };
        problem = problem.or(agreed.err());
    }
    if !primary.spec.fallbacks.is_empty() {
        standing.answer = Some(
            problem.unwrap_or_else(|| Answer::yes("StandingIn", sentence(&standing.endpoints, &outside))),
        );
    }
    Ok(standing)
}

/// What stands in, and how far.
fn sentence(endpoints: &[String], outside: &[String]) -> String {
    let turn_to = endpoints.join(", ");
    let sentence =
        format!("nodes turn to {turn_to} where this registry does not answer or has not the image");
    if outside.is_empty() {
        return sentence;
    }
    let outside = outside.join(", ");
    format!(
        "{sentence}; outside of the cluster, at {outside}, only what is Public is pulled, and Berth does not see whether it is there"
    )
}

/// The Registry, if it stands in for this primary. One that grants its namespace nothing looks like none.
fn agreed(
    stores: &Stores,
    primary: &Registry,
    reference: &ObjectRef<Guarded>,
    granted: &[String],
) -> Result<Registry, Answer> {
    let (own, name) = (names::namespace(primary), &reference.name);
    let namespace = reference.namespace.clone().unwrap_or_default();
    if *reference == names::reference(primary) {
        let sentence = format!("{name} is this Registry itself: name another one, or none");
        return Err(Answer::no("Itself", sentence));
    }
    let replica = stores.registry(reference);
    let replica = replica.filter(|replica| replica.metadata.deletion_timestamp.is_none());
    let taken = replica.filter(|replica| stores.takes(replica, &own));
    let Some(replica) = taken else {
        return Err(if namespace == own {
            let sentence = format!(
                "there is no Registry {name} in namespace {namespace}: create it, or take it out of spec.fallbacks"
            );
            Answer::no("RegistryNotFound", sentence)
        } else {
            let sentence = format!(
                "no Registry {name} in namespace {namespace} stands in for Registries of namespace {own}: ask those who run that namespace to create it, with {own} among its spec.tenancy.namespaces, or take it out of spec.fallbacks"
            );
            Answer::no("NotGranted", sentence)
        });
    };
    if !replica.spec.node_access.enabled || !node_access::is_granted(&namespace, granted) {
        let sentence = format!(
            "nodes do not reach Registry {name} of namespace {namespace}: turn its nodeAccess on, and see its condition NodesReady"
        );
        return Err(Answer::no("NoNodeAccess", sentence));
    }
    Ok(replica)
}

/// What keeps a Registry that agrees from standing in now.
fn hindrance(replica: &Registry, guest: Option<&Guest>) -> Option<Answer> {
    let (namespace, name) = (names::namespace(replica), replica.name_any());
    if guest.is_some_and(|guest| !guest.fits) {
        let sentence = format!(
            "Registry {name} of namespace {namespace} has no room for all who may read here: declare one Repository for all below a path, or name another fallback"
        );
        return Some(Answer::no("TooMany", sentence));
    }
    let sentence = format!(
        "Registry {name} of namespace {namespace} does not serve, and can't stand in: see its condition Available"
    );
    (!is_available(replica)).then(|| Answer::no("FallbackDown", sentence))
}

/// Whether all that the primary has is open at the replica.
fn all_taken(replica: &Registry, untaken: &[String]) -> Result<(), Answer> {
    let (namespace, name) = (names::namespace(replica), replica.name_any());
    let [first, ..] = untaken else { return Ok(()) };
    let count = untaken.len();
    let sentence = format!(
        "Registry {name} of namespace {namespace} does not open {count} paths to those who may read them here, such as {first}: its spec.tenancy must take the namespace that has the path here, and no other one may have it there"
    );
    Err(Answer::no("PathsNotGranted", sentence))
}

/// Those that name this Registry and that it agrees to stand in for, the oldest first: they have room before others.
fn guests(context: &Context, replica: &Registry) -> Result<Vec<Guest>, Incomplete> {
    let (stores, granted) = (&context.stores, &context.config.node_access_namespaces);
    let reference = names::reference(replica);
    let mut guests = Vec::new();
    for primary in stores.primaries_of(&reference) {
        if agreed(stores, &primary, &reference, granted).is_ok() {
            guests.push(guest(context, &primary, replica)?);
        }
    }
    admit(&mut guests, ROOM);
    Ok(guests)
}

/// Decides for whom there is room: for who comes first, and is not too large.
fn admit(guests: &mut [Guest], mut room: usize) {
    for guest in guests {
        let size = size(&guest.policy);
        guest.fits = size <= room;
        if guest.fits {
            room -= size;
        }
    }
}

fn guest(context: &Context, primary: &Registry, replica: &Registry) -> Result<Guest, Incomplete> {
    let key = context.secrets.keys.of(primary);
    let logins = |repository: &Repository| {
        let logins = context.watched.logins(repository, &key, k8s_openapi::jiff::Timestamp::now());
        logins.ok_or(Incomplete)
    };
    let stores = &context.stores;
    stores.tenants(primary, |here| {
        stores.tenants(replica, |there| {
            let opening = opening(&decide(here, logins)?, there);
            let opened = opening.opened.into_iter().map(|(path, by)| {
                let by = by.map(|repository| Ok((repository, logins(repository)?))).transpose()?;
                Ok((path, by))
            });
            let opened: Opened<'_> = opened.collect::<Result<_, Incomplete>>()?;
            let policy = crate::desired::policy::primary(primary, &key, opened);
            Ok(Guest { uid: primary.uid(), policy, untaken: opening.untaken, fits: false })
        })
    })
}

/// Whether a replica of the Registry serves, as its status says.
fn is_available(registry: &Registry) -> bool {
    let mut conditions = registry.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == "Available" && condition.status == "True")
}

#[cfg(test)]
mod tests;
