//! `Repository`: one path in a registry, who may use it, and the Secrets with which they do.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::registry::DeletionPolicy;

/// What a Repository should be.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Repository",
    plural = "repositories",
    shortname = "brepo",
    category = "berth",
    namespaced,
    status = "RepositoryStatus",
    derive = "PartialEq",
    doc = "A path in a Registry: all versions of an image (or, ending in `/*`, everything below), who may pull and push, and the Secrets with which they do.",
    validation = Rule::new(
        "has(self.spec.path) || (self.metadata.name.size() <= 136 && self.metadata.name.matches('^[a-z0-9]+([.-][a-z0-9]+)*$'))"
    ).message("the name is the last part of the path in image references: give a path, or use at most 136 lower-case letters and digits with single '.' or '-' between"),
    printcolumn(name = "Reference", type_ = "string", json_path = ".status.reference"),
    printcolumn(name = "Visibility", type_ = "string", json_path = ".spec.visibility"),
    printcolumn(name = "Tags", type_ = "integer", json_path = ".status.tags"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Last Push", type_ = "date", json_path = ".status.lastPush.time"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.registryRef == oldSelf.registryRef")
        .message("registryRef cannot change: create another Repository there and copy the images").field_path(".registryRef"),
    validation = Rule::new("has(self.path) == has(oldSelf.path) && (!has(self.path) || self.path == oldSelf.path)")
        .message("path cannot change: create another Repository with the new path and copy the images").field_path(".path"),
    validation = Rule::new(
        "!has(self.path) || self.path.matches('^[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*(/[*])?$')"
    ).message("path must be names of lower-case letters and digits with single '.', '_' or '-' between, parted by '/', such as team/app; it may end in /*").field_path(".path"),
    validation = Rule::new("!has(self.pullSecrets) || self.pullSecrets.all(a, !has(self.pushSecrets) || self.pushSecrets.all(b, a.name != b.name))")
        .message("a pull Secret and a push Secret have the same name: give each a name of its own"),
    validation = Rule::new("!has(self.quota) || (isQuantity(self.quota) && quantity(self.quota).compareTo(quantity('1')) >= 0 && quantity(self.quota).compareTo(quantity('4Ei')) <= 0)")
        .message("quota must be a number of bytes from 1 to 4Ei, such as 20Gi").field_path(".quota")
)]
pub struct RepositorySpec {
    /// The Registry that keeps the images.
    pub registry_ref: RegistryRef,

    /// The repository's name in image references, such as `team/app`; ending in `/*` it stands for everything below.
    /// `<namespace>/<name>` where left out. The Registry's tenancy says which paths a namespace may declare. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub path: Option<String>,

    /// Who may pull without being named. `Private` (default): nobody. `Cluster`: every pod of this cluster, without a Secret.
    /// `Public`: whoever reaches the registry.
    #[serde(default)]
    pub visibility: Visibility,

    /// Who may do what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub access: Vec<Access>,

    /// Secrets for pods that pull, made, attached and rotated by Berth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pull_secrets: Vec<AccessSecret>,

    /// The same for who pushes, such as a CI system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub push_secrets: Vec<AccessSecret>,

    /// Whether tags may move.
    #[serde(default)]
    pub tags: Tags,

    /// How many bytes the path may hold, each blob and manifest counted once, such as `20Gi`, 1 to `4Ei`; no
    /// limit where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub quota: Option<Quota>,

    /// What happens to the images when the Repository is deleted. `Retain` (default): they stay. The registry's
    /// administrator and reader reach them, and whom a Repository for all above or the Registry's `undeclared` lets in,
    /// until the path is declared again. `Delete`: they go.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// A number of bytes, as Kubernetes writes them.
pub type Quota = String;

/// Which Registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryRef {
    /// Its name.
    #[schemars(length(min = 1, max = 50))]
    pub name: String,
    /// Its namespace, where that is another one. The Registry's tenancy says which namespaces may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Who may pull without being named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Visibility {
    /// Nobody.
    #[default]
    Private,
    /// Every pod of this cluster: nodes show a credential of their own.
    Cluster,
    /// Whoever reaches the registry, without a login.
    Public,
}

/// What one subject may do.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.role) != has(self.actions)").message("give either a role or actions"),
    validation = Rule::new("!has(self.actions) || self.actions.size() > 0")
        .message("actions must name at least one").field_path(".actions"),
    validation = Rule::new("!has(self.user) || self.user.matches('^[!-9;-~]+$')")
        .message("user must be a name of the password file: ASCII without spaces and ':'").field_path(".user"),
    validation = Rule::new("!has(self.group) || self.group.matches('^system:serviceaccounts(:[a-z0-9]([-a-z0-9]*[a-z0-9])?)?$')")
        .message("group must be system:serviceaccounts:<namespace>, or system:serviceaccounts for all").field_path(".group"),
    validation = Rule::new("[has(self.user), has(self.serviceAccount), has(self.group)].filter(given, given).size() == 1")
        .message("give one of user, serviceAccount and group"),
    validation = Rule::new("!has(self.actions) || !('metadata/write' in self.actions) || 'content/read' in self.actions || 'content/write' in self.actions")
        .message("metadata/write sets tags on what may be read: give content/read as well").field_path(".actions")
)]
pub struct Access {
    /// A user of the registry's password file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub user: Option<String>,
    /// A service account of this cluster, whose own tokens are its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountRef>,
    /// A group of service accounts: `system:serviceaccounts:<namespace>` are all of a namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub group: Option<String>,
    /// Usual actions under one name. `Reader`: pull, list tags. `Writer`: that, and push. `Admin`: that, and delete and move
    /// everything, immutable tags too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Single actions. `content/read`: pull. `metadata/read`: list tags and referrers. `content/write`: push.
    /// `content/delete`: delete images and tags, but no immutable ones. `metadata/write`, together with `content/read`: set
    /// tags on images that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    pub actions: Option<Vec<Action>>,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its namespace; where left out, the one of the resource that names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

/// Actions that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// Pull and list.
    Reader,
    /// Pull, list and push.
    Writer,
    /// Pull, list, push and delete, immutable tags too.
    Admin,
}

/// One of the things that can be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// Pull.
    #[serde(rename = "content/read")]
    ContentRead,
    /// Push, under any tag that may be set.
    #[serde(rename = "content/write")]
    ContentWrite,
    /// Delete images and tags, but no immutable ones.
    #[serde(rename = "content/delete")]
    ContentDelete,
    /// List tags and referrers.
    #[serde(rename = "metadata/read")]
    MetadataRead,
    /// Set tags on images that are there, together with content/read: to promote what others have pushed.
    #[serde(rename = "metadata/write")]
    MetadataWrite,
}

/// A Secret of type `kubernetes.io/dockerconfigjson`, a copy of its own in each selected namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("the Secret's name must be lower-case letters, digits and '-', with a letter or digit at both ends").field_path(".name"),
    validation = Rule::new(
        "self.rotationInterval.matches('^([0-9]{1,6}h|[0-9]{1,8}m|[0-9]{1,9}s)([0-9]{1,4}[sm])*$') && duration(self.rotationInterval) >= duration('1h')"
    ).message("rotationInterval must be a duration of at least an hour, such as 720h").field_path(".rotationInterval")
)]
pub struct AccessSecret {
    /// Name of the Secret in every namespace that gets it.
    #[schemars(length(max = 63))]
    pub name: String,

    /// Which namespaces get it: the Repository's own where left out. Another one has to agree, by the label
    /// `berth.dev/accept-secrets-from: <namespace of the Repository>`.
    #[serde(default, skip_serializing_if = "Namespaces::is_own")]
    pub namespaces: Namespaces,

    /// Which service accounts of these namespaces use it, so that their pods need not name it: none where left out.
    #[serde(default, skip_serializing_if = "ServiceAccounts::is_none")]
    pub service_accounts: ServiceAccounts,

    /// How long a password is used before the next one takes its place, such as `720h` (the default, 30 days); at least
    /// an hour. The former one is accepted for one more hour.
    #[serde(default = "rotation_interval")]
    #[schemars(length(max = 16))]
    pub rotation_interval: String,
}

fn rotation_interval() -> String {
    "720h".into()
}

/// Which namespaces: all that are named or selected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Namespaces {
    /// By name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub names: Vec<String>,
    /// By their labels, also those that come later; `{}` selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

impl Namespaces {
    /// Whether nothing is said, which means the Repository's own.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.names.is_empty() && self.selector.is_none()
    }
}

/// Which service accounts: all that are named or selected, also those that come later.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccounts {
    /// By name, such as `default`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub names: Vec<String>,
    /// By their labels; `{}` selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

impl ServiceAccounts {
    /// Whether nothing is said, which means none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.names.is_empty() && self.selector.is_none()
    }
}

/// Whether tags may move.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.except) || self.mutability == 'Immutable'")
        .message("except says which tags of immutable ones may move: set mutability to Immutable").field_path(".except"),
    validation = Rule::new("!has(self.except) || self.except.all(tag, tag.matches('^[A-Za-z0-9_.*-]+$'))")
        .message("except takes patterns of letters, digits, '_', '.' and '-', in which '*' stands for anything").field_path(".except")
)]
pub struct Tags {
    /// `Mutable` (default): a push moves a tag. `Immutable`: a tag stays where it is, and so does what it points to,
    /// but for who has the role `Admin`.
    #[serde(default)]
    pub mutability: Mutability,
    /// Tags that may move all the same: patterns in which `*` stands for anything, such as `latest` or `dev-*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(max = 128)))]
    pub except: Option<Vec<String>>,
}

/// Whether tags may move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mutability {
    /// A push moves a tag.
    #[default]
    Mutable,
    /// A tag stays where it is.
    Immutable,
}

/// How a Repository is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// `Ready` (can be used as declared), `Accepted` (the Registry has it), `Enforced` (every replica decides by it),
    /// `SecretsReady` (every Secret is where it should be).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What to push to and pull from: `<host>:<port>/<path>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,

    /// Number of tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<i64>,

    /// Bytes that the path holds, each blob and manifest counted once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,

    /// The same, as `kubectl get` shows it: `1.2Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,

    /// The last push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_push: Option<LastPush>,

    /// The Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secrets: Vec<SecretStatus>,
}

/// The last push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastPush {
    /// When.
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
    /// Which tag, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Which manifest.
    pub digest: String,
}

/// How the copies of one Secret are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretStatus {
    /// Name of the Secret.
    pub name: String,
    /// Namespaces that have it.
    pub namespaces: i32,
    /// When the first of the passwords in use is due to be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires: Option<String>,
    /// Why it is not everywhere it should be, by namespace, some of them if there are many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: BTreeMap<String, String>,
}

impl Repository {
    /// The path that it declares, `/*` included.
    #[must_use]
    pub fn path(&self) -> String {
        let default = || {
            let metadata = &self.metadata;
            format!(
                "{}/{}",
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default()
            )
        };
        self.spec.path.clone().unwrap_or_else(default)
    }

    /// Whether it declares this path.
    #[must_use]
    pub fn has_path(&self, path: &str) -> bool {
        match &self.spec.path {
            Some(own) => own == path,
            None => path.split_once('/').is_some_and(|(namespace, name)| {
                let metadata = &self.metadata;
                metadata.namespace.as_deref() == Some(namespace) && metadata.name.as_deref() == Some(name)
            }),
        }
    }

    /// Namespace and name of the Registry that it is in.
    #[must_use]
    pub fn registry(&self) -> (String, String) {
        let reference = &self.spec.registry_ref;
        let own = || self.metadata.namespace.clone().unwrap_or_default();
        (reference.namespace.clone().unwrap_or_else(own), reference.name.clone())
    }
}
