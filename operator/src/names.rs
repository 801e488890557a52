//! How the objects of a Registry are called and labelled. Contract: ARCHITECTURE.md, "A Registry's objects".

use std::collections::BTreeMap;

use crds::Registry;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _, runtime::reflector::ObjectRef};

use crate::controller::Guarded;

/// Field manager of everything that the operator writes.
pub(crate) const MANAGER: &str = "berth-operator";
/// The label by which everything that the operator makes is known; its value is [`MANAGER`].
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Carried by everything that belongs to a Registry; its value is the Registry's name.
pub(crate) const REGISTRY_LABEL: &str = "berth.dev/registry";
/// Carried by everything that is delivered for a Repository, and by nothing of a Registry; its value is the Repository's
/// name.
pub(crate) const REPOSITORY_LABEL: &str = "berth.dev/repository";

/// Selects what belongs to any Registry.
pub(crate) fn any_registry() -> String {
    format!("{REGISTRY_LABEL},{MANAGED_BY}={MANAGER}")
}

/// Selects the serving pods of one Registry, and never changes.
pub(crate) fn pod_selector(registry: &Registry) -> BTreeMap<String, String> {
    [("app.kubernetes.io/name", "berth-registry"), ("app.kubernetes.io/instance", &registry.name_any())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Labels of everything that belongs to one Registry.
pub(crate) fn labels(registry: &Registry) -> BTreeMap<String, String> {
    let mut labels = pod_selector(registry);
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.insert(REGISTRY_LABEL.into(), registry.name_any());
    labels
}

/// Metadata of an object that goes with the Registry.
pub(crate) fn owned(registry: &Registry, name: String) -> ObjectMeta {
    ObjectMeta {
        owner_references: registry.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..kept(registry, name)
    }
}

/// Metadata of an object that may outlive the Registry.
pub(crate) fn kept(registry: &Registry, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: registry.namespace(),
        labels: Some(labels(registry)),
        ..ObjectMeta::default()
    }
}

/// The name of the Registry's object with this suffix: `demo-tls`.
pub(crate) fn with_suffix(registry: &Registry, suffix: &str) -> String {
    format!("{}-{suffix}", registry.name_any())
}

/// Host name that pods and nodes use: `demo.apps.svc`.
pub(crate) fn host(registry: &Registry) -> String {
    format!("{}.{}.svc", registry.name_any(), namespace(registry))
}

/// Host and port as written in image references: `demo.apps.svc:5000`.
pub(crate) fn endpoint(registry: &Registry) -> String {
    format!("{}:{}", host(registry), registry.spec.service.port)
}

/// The names under which the whole cluster reaches the registry: `demo.apps.svc`, `demo.apps`, and with the domain.
/// Not `demo` alone, which in another namespace is another one's Service.
pub(crate) fn hosts(registry: &Registry, cluster_domain: &str) -> [String; 3] {
    let host = host(registry);
    [
        format!("{}.{}", registry.name_any(), namespace(registry)),
        host.clone(),
        format!("{host}.{cluster_domain}"),
    ]
}

/// Every name under which clients reach the registry, its address in the cluster included.
pub(crate) fn serving(registry: &Registry, cluster_domain: &str, cluster_ips: &[String]) -> Vec<String> {
    let mut names = vec![registry.name_any()];
    names.extend(hosts(registry, cluster_domain));
    names.extend(cluster_ips.iter().cloned());
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names
}

/// For whom tokens of `ServiceAccounts` are made with which they log in: `berth.dev/apps/demo`.
pub(crate) fn audience(registry: &Registry) -> String {
    format!("berth.dev/{}/{}", namespace(registry), registry.name_any())
}

/// The name that a replica's end of the channel proves: `demo.apps.channel.berth`.
pub(crate) fn channel(registry: &Registry) -> String {
    format!("{}.{}.channel.berth", registry.name_any(), namespace(registry))
}

/// The Registry's namespace; the API server gives every Registry one.
pub(crate) fn namespace(registry: &Registry) -> String {
    registry.namespace().unwrap_or_default()
}

/// How watches and stores call the Registry.
pub(crate) fn reference(registry: &Registry) -> ObjectRef<Guarded> {
    ObjectRef::new(&registry.name_any()).within(&namespace(registry))
}
