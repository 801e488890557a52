//! What lies in the paths of a registry's policy, and how it goes.
//!
//! `GET /v1/usage` → a [`PathUsage`] for each path, in their order. Paths that take long to count the first time are
//! left out until they are.
//!
//! `DELETE /v1/repositories?path=<path>` ([`Purge`]) → [`Purged`], when everything is gone or a few seconds are over.

use serde::{Deserialize, Serialize};

/// What lies in the repositories that one path of the policy governs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathUsage {
    /// [`Repository::path`](crate::policy::Repository::path).
    pub path: String,
    /// Number of tags.
    pub tags: u64,
    /// Bytes of distinct blobs and manifests.
    pub bytes: u64,
    /// The last push of something new; none where nothing ever came, or where it is gone since before a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_push: Option<LastPush>,
}

/// A manifest that came, or a tag that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastPush {
    /// When, as RFC 3339 has it, in UTC.
    pub time: String,
    /// The tag, unless it was pushed by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The manifest.
    pub digest: String,
}

/// Whose tags, manifests and blobs are to go: the repositories that a path of the policy governs, or would govern if it
/// were in it. Those that a more specific path of the policy governs stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Purge {
    /// `team/app`, `team/*` or `*`.
    pub path: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Purged {
    /// Tags, manifests and blobs that went by this request.
    pub removed: u64,
    /// Nothing is left. Otherwise ask again.
    pub done: bool,
}
