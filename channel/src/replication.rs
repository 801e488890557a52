//! What the operator tells a replication's pod (a [`Plan`], in a file), and what that tells of itself (its
//! [`Progress`]: `GET /v1/progress`, and in its termination message).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is to be copied from where to where, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// Where images come from.
    pub source: End,
    /// Where they go.
    pub target: End,
    /// Which.
    #[serde(default)]
    pub filters: Filters,
    /// Under which names.
    #[serde(default)]
    pub destination: Destination,
    /// What becomes of what the source has no more.
    #[serde(default)]
    pub deletions: Deletions,
    /// What becomes of a tag that points elsewhere at the target.
    #[serde(default)]
    pub conflicts: Conflicts,
    /// How much at once, how fast, how long.
    #[serde(default)]
    pub limits: Limits,
    /// Goes on with what is pushed meanwhile; a run ends after one comparison without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<Follow>,
}

/// One registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    /// `https://host:port`, perhaps with a path that stands before all repositories (`https://host/team`).
    pub url: String,
    /// Who logs in; nobody without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// PEM file of the certificate authorities to trust in place of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

/// A login, in files that are read again for each token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Credentials {
    /// A username, and the file with its password or token.
    #[serde(rename_all = "camelCase")]
    Password {
        /// As the registry knows it.
        username: String,
        /// Holds the password; a line break at its end does not count.
        password_file: String,
    },
    /// A folder with the files `username` and `password`.
    Folder(String),
    /// A file as Docker's `config.json`; the entry for the end's host counts.
    DockerConfig(String),
}

/// What is copied. Each list that is empty lets everything pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Filters {
    /// Patterns of repositories (without the end's path): `*` is anything within one step, `**` anything.
    pub repositories: Vec<String>,
    /// Patterns of tags (`*` is anything); one has to match.
    pub tags: Vec<String>,
    /// Patterns of tags that stay where they are, whatever else matches.
    pub exclude_tags: Vec<String>,
    /// Tags that are versions within this range (`>=1.2, <2`), beside those that `tags` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semver: Option<String>,
    /// `linux/amd64`, `linux/arm/v7`: of an index only these manifests; what is in no index is copied.
    pub platforms: Vec<String>,
    /// Signatures and the like go along.
    pub referrers: bool,
}

impl Default for Filters {
    fn default() -> Self {
        let (repositories, tags, exclude_tags, platforms) = Default::default();
        Self { repositories, tags, exclude_tags, semver: None, platforms, referrers: true }
    }
}

/// Under which name a repository arrives: `prefix`, then its path without the first `flatten` steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Destination {
    /// Stands before every repository, with a `/` between.
    pub prefix: String,
    /// Steps that are left out at the beginning, but never the last one.
    pub flatten: u32,
}

/// What becomes of what the source has no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deletions {
    /// It stays at the target.
    #[default]
    Ignore,
    /// It goes there too.
    Propagate,
}

/// What becomes of a tag that points elsewhere at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conflicts {
    /// It moves, unless it was set there later.
    #[default]
    Overwrite,
    /// It stays.
    Keep,
    /// It stays, and that is a failure.
    Fail,
}

/// How much at once, how fast, how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Limits {
    /// Blobs and manifests under way at once.
    pub concurrency: u32,
    /// No limit without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// A run ends where a comparison takes longer, with what it has, and where copying what one page of the feed tells
    /// does; no limit without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 16, bytes_per_second: None, timeout_seconds: None }
    }
}

/// Goes on with the feed of a Berth source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Follow {
    /// Up to where the target is equal already; a full comparison comes first without it, or where it is too old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// It ends after so long without an entry.
    pub idle_seconds: u64,
}

/// How far a run is. Numbers never fall.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Images (tags, and referrers of what was copied) that it has found so far.
    pub total: u64,
    /// Copied.
    pub done: u64,
    /// Were there already, or are newer at the target, or may not move.
    pub skipped: u64,
    /// Not copied, for now.
    pub failed: u64,
    /// Deleted at the target.
    pub deleted: u64,
    /// Sent to the target.
    pub bytes_moved: u64,
    /// Content that was there already.
    pub bytes_skipped: u64,
    /// Milliseconds between a push at the source and when the target had it, of the newest one that was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_milliseconds: Option<u64>,
    /// The oldest push that the target does not have yet (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_since: Option<String>,
    /// Up to where in the feed the target is equal, but for what failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Which Berth registry the target is, by its id: entries of the feed with this origin are not sent back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_id: Option<String>,
    /// When a comparison ended with everything equal (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equal_at: Option<String>,
    /// What failed, by image (`repository:tag` or `repository@digest` at the source), the first ones.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, Failure>,
    /// Why nothing can go on, or what else a person has to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Finds out what is where.
    #[default]
    Comparing,
    /// Copies what a comparison found.
    Copying,
    /// Waits for what is pushed, and copies it.
    Following,
    /// Ended, whatever came of it.
    Ended,
}

/// Why an image is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// A sentence for people.
    pub reason: String,
    /// How often it was tried in this run.
    pub attempts: u32,
    /// The last time (RFC 3339).
    pub last_try: String,
}

/// What concerns all images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// A word.
    pub reason: Reason,
    /// A sentence for people, which says what to do.
    pub message: String,
}

/// What may be wrong with a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The plan can't be carried out.
    InvalidPlan,
    /// The source does not answer.
    SourceUnreachable,
    /// The target does not answer.
    TargetUnreachable,
    /// A host's name is unknown.
    UnknownHost,
    /// A certificate is not trusted.
    UntrustedCertificate,
    /// The source takes no such login, or grants it nothing.
    SourceUnauthorized,
    /// The target takes no such login, or grants it nothing.
    TargetUnauthorized,
    /// The target has no room.
    TargetFull,
    /// More than half would have been deleted.
    DeletionsStopped,
    /// Time was over.
    TimedOut,
    /// Some images failed; the failures say why.
    ImagesFailed,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The examples of the how-to: of the plan, and of the progress.
    fn examples() -> [Value; 2] {
        let page = include_str!("../../docs/replicate.md");
        let all = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let all: Vec<_> = all.map(|text| serde_json::from_str(text).unwrap()).collect();
        all.try_into().unwrap()
    }

    /// No field is left out there, nor named that is none.
    #[test]
    fn the_examples_name_all_fields() {
        let [plan, progress] = examples();
        let read: Plan = serde_json::from_value(plan.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), plan);
        let Plan { source, filters, limits, follow, .. } = read;
        assert!(source.credentials.is_some() && source.ca_file.is_some() && filters.semver.is_some());
        assert!(limits.bytes_per_second.is_some() && limits.timeout_seconds.is_some());
        assert!(follow.unwrap().cursor.is_some());
        let read: Progress = serde_json::from_value(progress.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), progress);
        let Progress { lag_milliseconds, behind_since, cursor, equal_at, failures, problem, .. } = read;
        assert!(lag_milliseconds.is_some() && behind_since.is_some() && cursor.is_some());
        assert!(equal_at.is_some() && !failures.is_empty() && problem.is_some());
    }
}
