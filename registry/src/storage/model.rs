//! What storage is asked about and what it answers.

use std::{fmt, str::FromStr, sync::Arc};

use channel::feed::StateEntry;
use oci::{Descriptor, Digest, Tag};
use uuid::Uuid;

use super::{Error, stamp::Stamp};

/// The name of an upload session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(Uuid);

impl UploadId {
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UploadId {
    type Err = ();

    /// Only as it was given out: a UUID can be written in several ways.
    fn from_str(text: &str) -> Result<Self, ()> {
        let id = Uuid::try_parse(text).map_err(|_| ())?;
        if id.to_string() == text { Ok(Self(id)) } else { Err(()) }
    }
}

/// What repositories hold that are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// A manifest at least.
    Manifests,
    /// Nothing but records of deletions.
    Records,
}

/// A manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
}

/// What became of a manifest that was pushed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Stored,
    /// Not stored: it is there already, under this media type.
    OtherType(String),
    /// Not stored: it needs these first.
    Missing(Vec<Digest>),
    /// Not stored under this tag, which stays where it is. Of several tags those before it may have moved, where somebody
    /// else set this one at the same moment.
    Fixed(Tag, Digest),
    /// Not stored: what is here was set or deleted later, at this time and place.
    Older(Stamp),
}

/// A tag that a push is to set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NewTag {
    pub(crate) tag: Tag,
    /// Where it points elsewhere already it stays there, and the push fails.
    pub(crate) is_fixed: bool,
}

#[cfg(test)]
impl FromStr for NewTag {
    type Err = oci::name::InvalidTag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Tag>().map(Self::from)
    }
}

impl From<Tag> for NewTag {
    fn from(tag: Tag) -> Self {
        Self { tag, is_fixed: false }
    }
}

/// What became of a delete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    Done,
    /// There was nothing.
    Unknown,
    /// Still there: this manifest of the repository needs it.
    Needed(Digest),
    /// Still there: it was set later, at this time and place.
    Older(Stamp),
    /// Still there: this tag points to it, which must stay.
    Fixed(Tag),
}

/// Whether a tag must stay, and what it points to.
pub(crate) type Stays = Arc<dyn Fn(&Tag) -> bool + Send + Sync>;

/// What became of an upload that was closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    Stored,
    /// Not stored: its digest is this one.
    Mismatch(Digest),
    /// Cancelled meanwhile.
    Unknown,
}

/// Some of the referrers of a manifest, perhaps none although there are more.
#[derive(Debug, Default)]
pub(crate) struct ReferrersPage {
    pub(crate) manifests: Vec<Descriptor>,
    /// There are more, after this one.
    pub(crate) more_after: Option<Digest>,
}

/// Roughly the bytes of a descriptor in JSON.
pub(super) fn weigh(descriptor: &Descriptor) -> usize {
    let annotations = descriptor.annotations.iter().flatten();
    300 + annotations.map(|(key, value)| key.len() + value.len() + 6).sum::<usize>()
}

/// Some of what became of the names in a repository, in their order.
#[derive(Debug, Default)]
pub(crate) struct StatePage {
    pub(crate) entries: Vec<StateEntry>,
    /// There are more, after this name.
    pub(crate) more_after: Option<String>,
}

impl StatePage {
    /// Roughly the bytes that it takes.
    pub(super) fn weight(&self) -> usize {
        let text = |entry: &StateEntry| {
            let StateEntry { name, digest, stamp, deleted: _, attached } = entry;
            name.len()
                + digest.len()
                + stamp.time.len()
                + stamp.origin.len()
                + attached.iter().map(String::len).sum::<usize>()
        };
        self.entries.iter().map(|entry| size_of::<StateEntry>() + text(entry)).sum()
    }
}

/// How full the storage is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) used_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// A session that could not be taken up.
#[derive(Debug)]
pub(crate) enum NotOpened {
    Unknown,
    /// Another request is writing to it.
    Busy,
    Storage(Error),
}
