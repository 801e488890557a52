//! Collection: gives back the space of what nothing references, beside running requests.
//!
//! What goes, once it has lain untouched for the grace time:
//!
//! - content that no repository holds,
//! - a repository's blobs that none of its manifests needs (a client that looked at one counts as touching it),
//! - uploads to which nothing was sent, and files left in `tmp/`,
//! - records of deletions, after 90 days, or where what was deleted is there again,
//! - entries of holders that are no longer true, and empty folders.
//!
//! Manifests stay, with and without tags. Nobody waits: each step tries the locks that a request may have, looks again
//! under them, takes one name away, and leaves what is busy to the next collection. Memory does not grow with the
//! number of repositories and blobs, time grows by each one's few looks.

mod contents;
mod deletions;
mod leftovers;
mod memberships;

use std::{
    cell::Cell,
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::Store;
use crate::storage::{Error, UploadId};

/// How to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Collecting {
    /// Only say what would go.
    pub(crate) dry_run: bool,
    /// What was touched within this time stays.
    pub(crate) grace: Duration,
}

/// One thing that went, or would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Collected {
    pub(crate) kind: Kind,
    /// Relative to the root.
    pub(crate) path: String,
    /// That the disk gets back.
    pub(crate) bytes: u64,
}

/// What kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// Content that no repository holds.
    Content,
    /// A repository's blob that none of its manifests needs. Its content goes later, when nobody else holds it.
    Blob,
    /// A session that a client gave up.
    Upload,
    /// The record of a deletion that is long ago or was undone.
    Deletion,
    /// A file that was on its way to its name.
    Leftover,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Content => "content",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::Deletion => "deletion",
            Self::Leftover => "leftover",
        })
    }
}

/// Runs through everything once.
pub(super) struct Run<'a> {
    store: &'a Store,
    is_dry: bool,
    grace: Duration,
    report: &'a mut dyn FnMut(Collected),
    /// Called at each step: waits where others should have their turn, says no where it should end.
    go_on: &'a mut dyn FnMut() -> bool,
}

impl Store {
    /// Ends so many uploads that have been left alone for longest, without waiting for a collection: first those that
    /// received nothing. Those that somebody may still be about to go on with stay.
    pub(super) fn end_old_uploads(&self, count: usize) -> Result<(), Error> {
        let ids =
            super::folder::names(&self.layout.uploads())?.into_iter().filter_map(|name| name.parse().ok());
        let mut oldest: Vec<(bool, SystemTime, UploadId)> = ids
            .filter_map(|id| self.upload_touched(id).map(|(is_empty, time)| (!is_empty, time, id)))
            .collect();
        oldest.sort_unstable_by_key(|(has_some, touched, _)| (*has_some, *touched));
        let ended = self.end_abandoned_uploads(oldest.into_iter().map(|(_, _, id)| id), count)?;
        if ended > 0 {
            tracing::warn!(ended, "too many uploads: those that were left alone for longest have ended");
        }
        Ok(())
    }

    /// Of these uploads ends so many that nobody is about to go on with; says how many.
    pub(super) fn end_abandoned_uploads(
        &self,
        ids: impl Iterator<Item = UploadId>,
        most: usize,
    ) -> Result<usize, Error> {
        let ended = Cell::new(0);
        let mut report = |_| ended.set(ended.get() + 1);
        let mut run = Run {
            store: self,
            is_dry: false,
            grace: Duration::ZERO,
            report: &mut report,
            go_on: &mut || true,
        };
        for id in ids {
            if ended.get() == most {
                break;
            }
            run.upload(id)?;
        }
        Ok(ended.get())
    }

    /// Collects. `report` hears of everything that went; `go_on` is asked often and may wait.
    pub(crate) fn collect(
        &self,
        how: Collecting,
        report: &mut dyn FnMut(Collected),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        self.durable.journal.must_take()?;
        if !how.dry_run {
            self.end_deletions();
        }
        let mut run = Run { store: self, is_dry: how.dry_run, grace: how.grace, report, go_on };
        run.uploads()?;
        run.leftovers()?;
        run.memberships()?;
        run.contents()
    }
}

impl Run<'_> {
    fn report(&mut self, kind: Kind, path: &Path, bytes: u64) {
        let path = path.strip_prefix(self.store.layout.root()).unwrap_or(path);
        (self.report)(Collected { kind, path: path.to_string_lossy().into_owned(), bytes });
    }

    fn is_old(&self, touched: SystemTime) -> bool {
        is_older(touched, self.grace)
    }
}

/// A clock that went back makes nothing old.
pub(super) fn is_older(touched: SystemTime, age: Duration) -> bool {
    SystemTime::now().duration_since(touched).is_ok_and(|since| since >= age)
}
