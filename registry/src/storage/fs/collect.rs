//! Collection: gives back the space of what nothing references, beside running requests.
//!
//! What goes, once it has lain untouched for the grace time:
//!
//! - content that no repository holds,
//! - a repository's blobs that none of its manifests needs (a client that looked at one counts as touching it),
//! - uploads to which nothing was sent, and files left in `tmp/`,
//! - entries of holders that are no longer true, and empty folders.
//!
//! Manifests stay, with and without tags. Nobody waits: each step tries the locks that a request may have, looks again
//! under them, takes one name away, and leaves what is busy to the next collection. Memory does not grow with the
//! number of repositories and blobs, time grows by each one's few looks.

mod contents;
mod leftovers;
mod memberships;

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::Store;
use crate::storage::Error;

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
    /// A file that was on its way to its name.
    Leftover,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Content => "content",
            Self::Blob => "blob",
            Self::Upload => "upload",
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
    /// Ends uploads that received nothing, without waiting for a collection.
    pub(super) fn end_empty_uploads(&self) -> Result<(), Error> {
        let mut run = Run {
            store: self,
            is_dry: false,
            grace: Duration::ZERO,
            report: &mut |_| {},
            go_on: &mut || true,
        };
        for name in super::folder::names(&self.layout.uploads())? {
            if let Ok(id) = name.parse()
                && self.is_empty_upload(id)
            {
                run.upload(id)?;
            }
        }
        Ok(())
    }

    /// Collects. `report` hears of everything that went; `go_on` is asked often and may wait.
    pub(crate) fn collect(
        &self,
        how: Collecting,
        report: &mut dyn FnMut(Collected),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
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
