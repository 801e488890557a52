//! `Registry`: a container registry, with its storage, certificate, logins and nodes that trust it.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, Toleration},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::repository::{Access, Namespaces, RegistryRef};

/// What a Registry should be.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Registry",
    plural = "registries",
    shortname = "breg",
    category = "berth",
    namespaced,
    status = "RegistryStatus",
    derive = "PartialEq",
    doc = "A container registry of this cluster: apply one and images can be pushed to it and pulled by pods on every node.",
    validation = Rule::new(
        "self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    ).message("the name becomes part of a host name and of other names: use at most 50 lower-case letters, digits and '-', starting with a letter"),
        // Back to what the volume has, so that a growth that the storage class refuses can be taken back.
    validation = Rule::new(
        "!isQuantity(self.spec.storage.volume.size) || !isQuantity(oldSelf.spec.storage.volume.size) || quantity(self.spec.storage.volume.size).compareTo(quantity(oldSelf.spec.storage.volume.size)) >= 0 || !has(oldSelf.status) || !has(oldSelf.status.volumeSize) || !isQuantity(oldSelf.status.volumeSize) || quantity(self.spec.storage.volume.size).compareTo(quantity(oldSelf.status.volumeSize)) >= 0"
    ).message("size can grow but not shrink: volumes cannot be made smaller, and this one has the size in status.volumeSize").field_path(".spec.storage.volume.size"),
    validation = Rule::new(
        "!has(self.spec.fallbacks) || self.spec.fallbacks.all(other, !has(other.registryRef) || has(other.registryRef.namespace) || other.registryRef.name != self.metadata.name)"
    ).message("a Registry cannot be its own fallback: name another one").field_path(".spec.fallbacks"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.storage.volume.size", priority = 1),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.replicas) || self.replicas <= 1").message(
        "a volume is written by one pod at a time, so replicas may be 1, or 0 to stop the registry"
    ).field_path(".replicas"),
    validation = Rule::new("!has(self.fallbacks) || self.fallbacks.size() == 0 || !has(self.nodeAccess) || self.nodeAccess.enabled")
        .message("it is nodes that turn to fallbacks: turn nodeAccess on, or name none").field_path(".fallbacks"),
    validation = Rule::new("!has(self.fallbacks) || self.fallbacks.all(one, self.fallbacks.exists_one(other, other == one))")
        .message("a fallback is named twice").field_path(".fallbacks")
)]
pub struct RegistrySpec {
    /// Number of serving pods: 1, or 0 to stop the registry and keep everything.
    #[serde(default = "one")]
    #[schemars(range(min = 0))]
    pub replicas: i32,

    /// Where images are kept.
    pub storage: Storage,

    /// What happens to the images when the Registry is deleted. `Retain` (default): the volume stays, and a Registry of
    /// the same name takes it up again. `Delete`: the volume goes, and the images with it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// How the registry is reached inside the cluster.
    #[serde(default)]
    pub service: Service,

    /// Whether nodes can pull from it.
    #[serde(default)]
    pub node_access: NodeAccess,

    /// Which Repositories it takes.
    #[serde(default, skip_serializing_if = "Tenancy::is_default")]
    pub tenancy: Tenancy,

    /// Who may do what in paths that no Repository declares: nobody where left out. As Repositories' `access`; a
    /// service account without a namespace is one of the Registry's own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub undeclared: Vec<Access>,

    /// Who can log in besides the robots that Berth makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,

    /// Registries that hold the same images under the same paths. Nodes turn to them, in this order, where this one does
    /// not answer or does not have an image; whoever may pull here may pull there. One of another namespace has to grant
    /// it, by its `tenancy`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub fallbacks: Vec<Fallback>,

    /// CPU and memory of the registry's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Labels that a node must have to run the registry's pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,

    /// Affinity of the registry's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Taints that the registry's pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,

    /// Annotations of the registry's pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub pod_annotations: BTreeMap<String, String>,
}

fn one() -> i32 {
    1
}

/// Which Repositories a Registry takes. Those of its own namespace always, below any path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenancy {
    /// Which other namespaces may declare Repositories here: none where left out.
    #[serde(default, skip_serializing_if = "Namespaces::is_own")]
    pub namespaces: Namespaces,
    /// Which paths those may declare. `Namespace` (default): `<their name>` followed by `/`. `Any`: every path that nobody
    /// has.
    #[serde(default)]
    pub paths: TenantPaths,
}

impl Tenancy {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which paths other namespaces may declare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TenantPaths {
    /// Those that begin with the namespace's name and `/`.
    #[default]
    Namespace,
    /// Every path.
    Any,
}

/// A registry that holds the same images.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.registryRef) != has(self.endpoint)")
        .message("a fallback is either a registryRef or an endpoint")
)]
pub struct Fallback {
    /// A Registry of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_ref: Option<RegistryRef>,
    /// A registry outside of this cluster, for what is `Public` only: whom Secrets let in here it does not know. The
    /// operator's configuration has to name its host, in `BERTH_FALLBACK_HOSTS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<FallbackEndpoint>,
}

/// A registry outside of this cluster, as nodes reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FallbackEndpoint {
    /// `https://host:port`. It has the same images under the same paths.
    #[schemars(
        length(min = 9, max = 253),
        regex(
            pattern = r"^https://[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(:[1-9][0-9]{0,4})?$"
        )
    )]
    pub url: String,
    /// Certificates that sign its own, PEM; left out, those that the nodes trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub ca: Option<String>,
}

/// Who can log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// A password file, as `htpasswd -B` writes it, in a Secret beside the Registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PasswordFile>,
}

/// Where a password file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordFile {
    /// Name of the Secret, which has the label `berth.dev/registry: <name of the Registry>`; its key is `htpasswd`.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// CPU and memory of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the container gets at least, such as `cpu: 500m` and `memory: 128Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container gets at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
}

/// Where images are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// A volume of this cluster, claimed for the registry.
    pub volume: Volume,
}

/// A volume of this cluster.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("isQuantity(self.size) && quantity(self.size).isGreaterThan(quantity('0'))")
        .message("size must be a quantity of bytes greater than zero, such as 20Gi").field_path(".size"),
    validation = Rule::new(
        "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
    ).message("storageClassName cannot change once the volume is claimed: create another Registry with the other class and copy the images")
)]
pub struct Volume {
    /// Size of the volume, such as `20Gi`. It can grow later where the storage class allows expansion.
    #[schemars(length(min = 1, max = 32))]
    pub size: String,

    /// Storage class of the volume; the cluster's default class where left out. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// What happens to the images when the Registry is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The volume stays; a Registry of the same name takes it up again.
    #[default]
    Retain,
    /// The volume goes, and the images with it.
    Delete,
}

/// How the registry is reached inside the cluster.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.nodePort) || (has(self.type) && self.type != 'ClusterIP')")
    .message("nodePort needs type NodePort or LoadBalancer").field_path(".nodePort"))]
pub struct Service {
    /// `ClusterIP` (default): reached inside the cluster only. `NodePort`: also on a port of every node. `LoadBalancer`:
    /// also at a load balancer's address. Certificates name the cluster's own names and addresses.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,

    /// Port of the Service, part of every image reference.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// Port on every node; chosen by the cluster where left out. Only with type `NodePort` or `LoadBalancer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,

    /// Annotations of the Service, such as those that a load balancer reads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            type_: ServiceType::default(),
            port: default_port(),
            node_port: None,
            annotations: BTreeMap::new(),
        }
    }
}

fn default_port() -> i32 {
    5000
}

/// Type of the Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Reached inside the cluster only.
    #[default]
    ClusterIP,
    /// Also on a port of every node.
    NodePort,
    /// Also at a load balancer's address.
    LoadBalancer,
}

/// Whether nodes can pull from the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAccess {
    /// Nodes resolve, trust and reach the registry by its in-cluster name. Turn it off for a registry that no pod
    /// pulls from.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl Default for NodeAccess {
    fn default() -> Self {
        Self { enabled: true }
    }
}

fn yes() -> bool {
    true
}

/// How a Registry is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    /// `Ready` (images can be pushed, and pulled by pods), `Available` (a replica serves with the current policy),
    /// `StorageReady` (the volume is as asked for), `IdentityReady` (people can log in as declared), `NodesReady` (every
    /// node can pull), `FallbacksReady` (every fallback can stand in).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Host and port as written in image references: `<endpoint>/<repository>:<tag>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,

    /// The Service's address, which a recreated Service asks for again.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "clusterIP")]
    pub cluster_ip: Option<String>,

    /// Number of serving pods that exist.
    #[serde(default)]
    pub replicas: i32,

    /// Number of serving pods that are ready and decide by the current policy.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Names the policy (who may do what) that every replica has applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<String>,

    /// How many nodes can pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesStatus>,

    /// Endpoints of the fallbacks that stand in now, in the order in which nodes turn to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,

    /// Size that the volume has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub volume_size: Option<String>,

    /// The volume's fill level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,

    /// Number of repositories that hold something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<i64>,

    /// When the serving certificate expires; it is renewed long before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub certificate_expires: Option<String>,

    /// Version of the registry that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// How many nodes can pull.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodesStatus {
    /// Nodes that are set up and reached the registry.
    pub ready: i32,
    /// Nodes that node access is meant for.
    pub total: i32,
    /// Both, as `kubectl get` shows them: `2/3`.
    pub summary: String,
}

/// The volume's fill level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// Bytes taken on the volume's file system.
    pub used_bytes: i64,
    /// Bytes that the volume's file system has.
    pub total_bytes: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_manifest_means_the_defaults() {
        let spec: RegistrySpec = serde_yaml::from_str("storage: {volume: {size: 1Gi}}").unwrap();
        assert_eq!(spec.replicas, 1);
        assert_eq!(spec.deletion_policy, DeletionPolicy::Retain);
        assert_eq!((spec.service.type_, spec.service.port), (ServiceType::ClusterIP, 5000));
        assert!(spec.node_access.enabled);
    }
}
