//! What came and went in a registry, for those who keep another one equal to it.
//!
//! `GET /v2/_berth/replication/feed?after=<cursor>&n=<number>&wait=<seconds>` → [`FeedPage`], to every login what it
//! may read; over the channel `GET /v1/feed` with the same parameters, everything.
//!
//! `GET /v2/<name>/_berth/replication/state?n=<number>&last=<name>` → [`StatePage`].

use serde::{Deserialize, Serialize};

/// Header of an answer: the id of the registry that gives it.
pub const REGISTRY_HEADER: &str = "berth-registry";
/// Header of a PUT or DELETE of a manifest: `<origin id>; time=<RFC 3339>`, the [`Stamp`] that it keeps.
pub const ORIGIN_HEADER: &str = "berth-origin";

/// In [`StateEntry::attached`]: look for yourself.
pub const MANY: &str = "many";

/// When and where something was pushed or deleted first. The later one wins; at the same time the larger digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// RFC 3339, UTC, microseconds.
    pub time: String,
    /// Id of the registry where it happened; for one that has no id, its host.
    pub origin: String,
}

/// What happened after a cursor, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedPage {
    /// Where to go on; opaque.
    pub cursor: String,
    /// Empty where nothing happened.
    #[serde(default)]
    pub entries: Vec<Entry>,
}

/// One push or deletion. It can be read when that can be seen, and says that something may have changed: what it tells
/// of may have changed again, or have failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// What happened.
    pub kind: Kind,
    /// The repository.
    pub repository: String,
    /// The tag; none for a manifest that was pushed or deleted by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The manifest.
    pub digest: String,
    /// The manifest that a pushed one refers to (signatures and the like).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When and where.
    pub stamp: Stamp,
}

/// What an entry tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A tag was set, or a manifest came.
    Push,
    /// A tag or manifest was deleted.
    Delete,
}

/// Tags and recorded deletions of a repository, in the order of [`StateEntry::name`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatePage {
    /// At most as many as were asked for; more where the answer has a `Link`.
    pub entries: Vec<StateEntry>,
    /// Entries say what is attached; otherwise none does, and that means nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tells_attached: bool,
}

/// A tag that is there, or a tag or manifest that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateEntry {
    /// The tag; of a deleted manifest its digest.
    pub name: String,
    /// What the tag points to, or did.
    pub digest: String,
    /// When and where that was set or deleted.
    pub stamp: Stamp,
    /// It is not there any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// A digest over all that refers to the manifest, to one within it, or to what does so; [`MANY`] where that is too
    /// much to say, none where there is nothing. Two registries that say the same have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<String>,
}
