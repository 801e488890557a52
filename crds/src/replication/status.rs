//! How a Replication is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a Replication is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationStatus {
    /// `Ready` (every target has what it should have), `Accepted` (it can be carried out), `Progressing` (something runs).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Host and port of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,

    /// Targets without failure and all of them: `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,

    /// Seconds that the target that is furthest behind lags; see there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,

    /// The oldest of the targets' last successes; none as long as one had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_success: Option<String>,

    /// The targets, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub targets: Vec<TargetStatus>,
}

/// How one target is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Its name.
    pub name: String,

    /// What happens there.
    #[serde(default)]
    pub phase: Phase,

    /// Why it has not what it should have, in a word; nothing while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// The same in a sentence that says what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When it last had everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_success: Option<String>,

    /// While something is missing, how long ago the oldest of it was pushed; otherwise how long the last push took to
    /// arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,

    /// The oldest push that is missing, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub behind_since: Option<String>,

    /// Images of the present run or the last one.
    #[serde(default)]
    pub images: Images,

    /// Bytes of the same run.
    #[serde(default)]
    pub bytes: Bytes,

    /// Images that failed, some of them if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,

    /// The Job that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,

    /// How many runs ended; the next one's Job is named after this number.
    #[serde(default)]
    pub runs: i64,

    /// How many of the last runs failed in a row.
    #[serde(default)]
    pub failed_runs: i64,

    /// When the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_run: Option<String>,

    /// When what failed is tried again, by comparing everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub retry: Option<String>,

    /// When everything was last compared and found or made the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub compared: Option<String>,

    /// Names what was compared: where from, where to, which images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<String>,

    /// Up to where in the source's feed it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,

    /// The last time of the schedule for which a run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub scheduled: Option<String>,

    /// The last value of the annotation `berth.dev/replicate-now` for which a run began; a hash where it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicate_now: Option<String>,
}

/// What happens at a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing ran yet.
    #[default]
    Pending,
    /// A Job compares, or copies what a comparison found.
    Running,
    /// A Job copies what is pushed.
    Following,
    /// Nothing runs, and all is well.
    Idle,
    /// Nothing runs, because the last run failed or the next one can't begin; it is tried again.
    Failing,
    /// Nothing runs, as asked for.
    Suspended,
}

/// Images (tags, and what refers to images) of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Found so far.
    pub total: i64,
    /// Copied.
    pub done: i64,
    /// Were there already, or are newer there, or may not move.
    pub skipped: i64,
    /// Not copied, for now.
    pub failed: i64,
    /// Deleted.
    pub deleted: i64,
}

/// Bytes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bytes {
    /// Sent.
    pub moved: i64,
    /// Were there already.
    pub skipped: i64,
}

/// An image that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// As the source calls it.
    pub image: String,
    /// Why.
    pub reason: String,
    /// How often it was tried in that run.
    pub attempts: i64,
    /// The last time.
    pub last_try: String,
}
