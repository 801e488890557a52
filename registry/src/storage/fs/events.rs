//! What became of tags and manifests: a tag that is there says when it was set, and what was deleted leaves a record.
//!
//! A record is on the disk before its deletion is acknowledged, and gone before what comes back is. What is there beats the
//! record of its deletion, so that one which a failure left does no harm until a collection takes it.

use std::{fs, path::Path, str};

use oci::{Digest, Reference, RepoName, Tag};

use super::{Store, ignoring_damage};
use crate::storage::{
    Error, IoContext as _,
    stamp::{Event, Stamp, Time},
};

impl Event {
    /// The file of a tag, or of the record of a deletion.
    pub(super) fn encode(&self) -> Vec<u8> {
        format!("{}\n{}\n", self.digest, self.stamp).into_bytes()
    }
}

/// Digest and stamp in such a file; tags from before there were stamps have none.
fn decode(bytes: &[u8]) -> Option<(Digest, Option<Stamp>)> {
    let mut lines = str::from_utf8(bytes).ok()?.lines();
    let digest = lines.next()?.trim_end().parse().ok()?;
    Some((digest, lines.next().and_then(|line| line.parse().ok())))
}

/// What the file of a tag says that it points to.
pub(super) fn target(bytes: &[u8]) -> Option<Digest> {
    decode(bytes).map(|(digest, _)| digest)
}

impl Store {
    /// Where a tag points to, since when. One without a stamp counts as set here when its file was written.
    pub(super) fn tag_event(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Event>, Error> {
        let path = self.layout.repository(repository).tag(tag);
        let Some(bytes) = super::read_if_there(&path)? else {
            return Ok(None);
        };
        let Some((digest, stamp)) = decode(&bytes) else {
            return Err(Error::Damaged { path, what: "it should hold a digest" });
        };
        let stamp = match stamp {
            Some(stamp) => stamp,
            None => Stamp { time: written(&path)?, origin: self.id.clone() },
        };
        Ok(Some(Event { digest, stamp, is_deletion: false }))
    }

    /// The record of a deletion, whether it counts or not.
    pub(super) fn deletion(&self, repository: &RepoName, name: &str) -> Result<Option<Event>, Error> {
        let path = self.layout.repository(repository).deletion(name);
        let Some(bytes) = super::read_if_there(&path)? else {
            return Ok(None);
        };
        match decode(&bytes) {
            Some((digest, Some(stamp))) => Ok(Some(Event { digest, stamp, is_deletion: true })),
            _ => Err(Error::Damaged { path, what: "it should hold a digest and a stamp" }),
        }
    }

    /// The last that became of a tag.
    pub(super) fn last_event(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Event>, Error> {
        match ignoring_damage(self.tag_event(repository, tag))? {
            None => ignoring_damage(self.deletion(repository, tag.as_str())),
            event => Ok(event),
        }
    }

    /// Whether what a record of a deletion is about is there.
    pub(super) fn is_back(&self, repository: &RepoName, name: &str) -> Result<bool, Error> {
        let folder = self.layout.repository(repository);
        let path = match name.parse() {
            Ok(Reference::Tag(tag)) => folder.tag(&tag),
            Ok(Reference::Digest(digest)) => folder.manifest(&digest),
            Err(_) => return Ok(false),
        };
        fs::exists(&path).at("look at", &path)
    }
}

fn written(path: &Path) -> Result<Time, Error> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).map(Time::of).at("look at", path)
}
