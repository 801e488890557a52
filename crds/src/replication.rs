//! `Replication`: which images are kept the same in other registries, and how far that is.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a function")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod status;

pub use status::{Bytes, Failure, Images, Phase, ReplicationStatus, TargetStatus};

/// What a Replication should be.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Replication",
    plural = "replications",
    shortname = "brepl",
    category = "berth",
    namespaced,
    status = "ReplicationStatus",
    derive = "PartialEq",
    doc = "Images of one registry kept in others: registries of this cluster or any others, as they are pushed, by a schedule or once.",
    validation = Rule::new(
        "self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    ).message("the name becomes part of other names: use at most 50 lower-case letters, digits and '-', starting with a letter"),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source"),
    printcolumn(name = "Targets", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.lagSeconds"),
    printcolumn(name = "Last Success", type_ = "date", json_path = ".status.lastSuccess"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.serviceAccountName) || (!has(self.source.registryRef) && self.targets.all(t, !has(t.registryRef)))")
        .message("serviceAccountName is missing: name the service account that the Repositories of a Registry of this cluster grant what is read and written").field_path(".serviceAccountName"),
    // Field by field: two objects of a schema can't be compared. `namespace` is a word of CEL.
    validation = Rule::new("!has(self.source.registryRef) || (has(self.destination) && has(self.destination.prefix)) || self.targets.all(t, !has(t.registryRef) || t.registryRef.name != self.source.registryRef.name || (has(t.registryRef.__namespace__) ? t.registryRef.__namespace__ : '') != (has(self.source.registryRef.__namespace__) ? self.source.registryRef.__namespace__ : ''))")
        .message("a target is the source: name another Registry, or give destination.prefix")
)]
pub struct ReplicationSpec {
    /// Where images come from.
    pub source: Source,

    /// Where they go. Each is kept the same by itself: one that is away holds up no other.
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub targets: Vec<Target>,

    /// The service account, of the same namespace, as which Registries of this cluster are read and written. The
    /// Repositories there have to grant it that: `Reader` at the source, `Writer` at a target, `Admin` where deletions are
    /// propagated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub service_account_name: Option<String>,

    /// Which images; all where left out.
    #[serde(default, skip_serializing_if = "Filters::is_default")]
    pub filters: Filters,

    /// Under which names they arrive; the same as at the source where left out.
    #[serde(default, skip_serializing_if = "Destination::is_default")]
    pub destination: Destination,

    /// When: as images are pushed, where left out.
    #[serde(default)]
    pub trigger: Trigger,

    /// What becomes of images that are deleted at the source. `Ignore` (default): targets keep them. `Propagate`: they go
    /// there as well.
    #[serde(default)]
    pub deletions: Deletions,

    /// What becomes of a tag that points elsewhere at a target. `Overwrite` (default): it moves, unless it was set there
    /// later than at the source. `Keep`: it stays. `Fail`: it stays, and that is a failure.
    #[serde(default)]
    pub conflicts: Conflicts,

    /// How much at once, how fast, how long.
    #[serde(default)]
    pub limits: Limits,

    /// Nothing is copied while this is true, and what runs is stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Where images come from: a Registry of this cluster or any other registry.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.registryRef) != has(self.endpoint)").message("give either a registryRef or an endpoint"))]
pub struct Source {
    /// A Registry of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_ref: Option<EndRef>,
    /// Any registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
}

/// Where images go: a Registry of this cluster or any other registry.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.registryRef) != has(self.endpoint)").message("give either a registryRef or an endpoint"))]
pub struct Target {
    /// How this target is called in the status, in Events and metrics.
    #[schemars(length(min = 1, max = 50), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// A Registry of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_ref: Option<EndRef>,
    /// Any registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
}

/// Which Registry of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndRef {
    /// Its name.
    #[schemars(length(min = 1, max = 50))]
    pub name: String,
    /// Its namespace, where that is another one. What may be read and written there is said by the Repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Any registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// `https://host:port`, perhaps with a path that stands before all repositories, such as `https://ghcr.io/team`.
    #[schemars(
        length(min = 9, max = 253),
        regex(
            pattern = r"^https://([A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*/?$"
        )
    )]
    pub url: String,
    /// The login: a Secret of the same namespace, of type `kubernetes.io/basic-auth` or `kubernetes.io/dockerconfigjson`.
    /// Without it nobody logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// The certificate authorities that are trusted in place of the public ones: a Secret of the same namespace, with the
    /// key `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// Which images. What is left out lets everything pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Filters {
    /// Patterns of repositories as the source calls them, of which one has to match: `*` is anything within one step of the
    /// path, `**` anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 200), regex(pattern = r"^[a-z0-9._*-]([a-z0-9._/*-]*[a-z0-9._*-])?$"))
    )]
    pub repositories: Vec<String>,
    /// Which tags.
    #[serde(default, skip_serializing_if = "TagFilters::is_default")]
    pub tags: TagFilters,
    /// Of images for several platforms only these, such as `linux/amd64` or `linux/arm/v7`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 3, max = 64), regex(pattern = r"^[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?$"))
    )]
    pub platforms: Vec<String>,
    /// Signatures, attestations and what else refers to an image go along: true where left out.
    #[serde(default = "yes")]
    pub referrers: bool,
}

impl Default for Filters {
    fn default() -> Self {
        let (repositories, tags, platforms) = Default::default();
        Self { repositories, tags, platforms, referrers: true }
    }
}

impl Filters {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn yes() -> bool {
    true
}

/// Which tags: those that `include` or `semver` lets pass, all where both are left out, without those of `exclude`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TagFilters {
    /// Patterns, of which one has to match: `*` is anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.*-]+$")))]
    pub include: Vec<String>,
    /// Patterns of tags that are left out, whatever else says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.*-]+$")))]
    pub exclude: Vec<String>,
    /// Tags that are versions within this range, such as `>=1.2, <2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub semver: Option<String>,
}

impl TagFilters {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Under which name a repository arrives: `prefix`, and its path without the first `flatten` steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Stands before every repository, with a `/` between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$")
    )]
    pub prefix: Option<String>,
    /// So many steps at the beginning are left out, but never the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub flatten: Option<i32>,
}

impl Destination {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When images are copied. Whatever it says, another value of the annotation `berth.dev/replicate-now` begins a run.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.schedule) == (self.type == 'Schedule')")
        .message("schedule belongs to type Schedule, which needs it"),
    validation = Rule::new("!has(self.resyncInterval) || self.type == 'OnPush'")
        .message("resyncInterval belongs to type OnPush").field_path(".resyncInterval"),
    validation = Rule::new("!has(self.resyncInterval) || duration(self.resyncInterval) >= duration('5m')")
        .message("resyncInterval must be a duration of at least five minutes, such as 6h").field_path(".resyncInterval")
)]
pub struct Trigger {
    /// `OnPush` (default): within seconds after a push; the source has to be a Registry of this cluster. `Schedule`: at
    /// certain times. `Manual`: only when told so.
    #[serde(default, rename = "type")]
    pub type_: TriggerType,
    /// The times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How often everything is compared although no push was heard of, with `OnPush`: every six hours (`6h`) where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = "^[0-9]+[smh]([0-9]+[sm])*$"))]
    pub resync_interval: Option<String>,
}

impl Default for Trigger {
    fn default() -> Self {
        Self { type_: TriggerType::OnPush, schedule: None, resync_interval: None }
    }
}

/// When images are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TriggerType {
    /// As they are pushed.
    #[default]
    OnPush,
    /// At certain times.
    Schedule,
    /// When told so.
    Manual,
}

/// Certain times.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.startingDeadline) >= duration('1m') && duration(self.startingDeadline) <= duration('24h')")
    .message("startingDeadline must be a duration from one minute to a day, such as 1h").field_path(".startingDeadline"))]
pub struct Schedule {
    /// Minute, hour, day of the month, month and day of the week, such as `0 3 * * *`.
    #[schemars(length(min = 9, max = 128))]
    pub cron: String,
    /// Name of the time zone, such as `Europe/Berlin`; UTC where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// How late a run may begin, such as `1h` (the default), at most a day. One run makes up for all that were missed within
    /// this time, as while the operator was away; what was missed before waits for the next time.
    #[serde(default = "starting_deadline")]
    #[schemars(length(min = 2, max = 16), regex(pattern = "^[0-9]+[smh]([0-9]+[sm])*$"))]
    pub starting_deadline: String,
}

fn starting_deadline() -> String {
    "1h".into()
}

/// What becomes of images that are deleted at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Deletions {
    /// Targets keep them.
    #[default]
    Ignore,
    /// They go at targets as well.
    Propagate,
}

/// What becomes of a tag that points elsewhere at a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Conflicts {
    /// It moves, unless it was set there later.
    #[default]
    Overwrite,
    /// It stays.
    Keep,
    /// It stays, and that is a failure.
    Fail,
}

/// How much at once, how fast, how long: of each target.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.bytesPerSecond) || (isQuantity(self.bytesPerSecond) && quantity(self.bytesPerSecond).isGreaterThan(quantity('0')))")
        .message("bytesPerSecond must be a quantity of bytes greater than zero, such as 10Mi").field_path(".bytesPerSecond"),
    validation = Rule::new("!has(self.timeout) || duration(self.timeout) >= duration('1m')")
        .message("timeout must be a duration of at least a minute, such as 2h").field_path(".timeout")
)]
pub struct Limits {
    /// Blobs and manifests under way at once: 16 where left out.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: i32,
    /// Bytes a second, such as `10Mi`; no limit where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub bytes_per_second: Option<String>,
    /// A comparison, and the copying of what it found, ends after this time with what it has, such as `2h`; no limit where
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = "^[0-9]+[smh]([0-9]+[sm])*$"))]
    pub timeout: Option<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: concurrency(), bytes_per_second: None, timeout: None }
    }
}

fn concurrency() -> i32 {
    16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_manifest_means_the_defaults() {
        let short = "source: {registryRef: {name: a}}\ntargets: [{name: b, endpoint: {url: 'https://b'}}]";
        let spec: ReplicationSpec = serde_yaml::from_str(short).unwrap();
        assert_eq!(spec.trigger.type_, TriggerType::OnPush);
        assert_eq!((spec.deletions, spec.conflicts), (Deletions::Ignore, Conflicts::Overwrite));
        assert_eq!((spec.limits.concurrency, spec.suspend), (16, false));
        assert!(spec.filters.referrers);
        let schedule: Schedule = serde_yaml::from_str("cron: 0 3 * * *").unwrap();
        assert_eq!(schedule.starting_deadline, "1h");
    }
}
