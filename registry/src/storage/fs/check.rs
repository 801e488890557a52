//! Looking at everything: content against its digest, references, tags, and every index against what it stands for.
//!
//! Damaged content goes to quarantine in any case, so that the next push brings it back; all else changes only in
//! repair. Safe beside requests: a finding counts when it is still there under the locks, which are held for that second
//! look and the repair alone.

mod contents;
mod entries;
mod manifests;
mod repositories;
mod uploads;

use std::{fs, path::PathBuf, time::SystemTime};

use oci::{Digest, RepoName};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::storage::{Error, IoContext as _};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    /// Relative to the root.
    pub(crate) path: String,
    /// A sentence.
    pub(crate) what: String,
    /// What was done about it.
    pub(crate) done: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Severity {
    /// Something that was stored is lost, can't be found or is not protected.
    Damage,
    /// Something that a crash left and that does no harm.
    Leftover,
}

/// A problem and the way out.
#[derive(Debug)]
struct Finding {
    severity: Severity,
    path: PathBuf,
    what: String,
    repair: Repair,
}

/// Repairs are plain data, so that finding something changes nothing.
#[derive(Debug)]
enum Repair {
    /// Only a push can.
    Push,
    Write(Vec<u8>),
    /// These entries are missing.
    Mark(Vec<PathBuf>),
    Remove,
    RemoveTree,
    Quarantine,
}

impl Finding {
    fn damage(path: PathBuf, what: String, repair: Repair) -> Self {
        Self { severity: Severity::Damage, path, what, repair }
    }

    fn leftover(path: PathBuf, what: String, repair: Repair) -> Self {
        Self { severity: Severity::Leftover, path, what, repair }
    }
}

/// One look at everything.
struct Check<'a> {
    store: &'a Store,
    repair: bool,
    report: &'a mut dyn FnMut(Problem),
    go_on: &'a mut dyn FnMut() -> bool,
}

impl Store {
    /// Looks at everything. `report` hears of each problem; `go_on` is asked often and may wait.
    pub(crate) fn verify(
        &self,
        repair: bool,
        report: &mut dyn FnMut(Problem),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        if repair {
            self.durable.journal.must_take()?;
        }
        let mut check = Check { store: self, repair, report, go_on };
        check.contents()?;
        check.repositories()?;
        check.holders()?;
        check.uploads()
    }

    /// Looks at content alone.
    pub(crate) fn scrub(
        &self,
        report: &mut dyn FnMut(Problem),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        Check { store: self, repair: false, report, go_on }.contents()
    }

    pub(crate) fn last_scrub(&self) -> Option<SystemTime> {
        // Before the first one, since the root was made.
        let times = [self.layout.scrubbed(), self.layout.version()];
        times.into_iter().find_map(|path| fs::metadata(path).ok()?.modified().ok())
    }

    pub(crate) fn scrubbed(&self) -> Result<(), Error> {
        self.durable.write(&self.layout.scrubbed(), b"")
    }
}

impl Check<'_> {
    /// Looks, and where something is found looks again while no request changes it.
    fn examine(
        &mut self,
        repository: Option<&RepoName>,
        digest: Option<&Digest>,
        find: impl Fn(&Store) -> Result<Vec<Finding>, Error>,
    ) -> Result<(), Error> {
        if find(self.store)?.is_empty() {
            return Ok(());
        }
        let mut problems = Vec::new();
        {
            let _no_pushes = repository.map(|repository| self.store.lock_for_delete(repository));
            let _nobody_holds = digest.map(|digest| self.store.locks.release(digest));
            for finding in find(self.store)? {
                problems.push(self.settle(finding)?);
            }
            if let Some(repository) = repository.filter(|_| self.repair) {
                self.store.look_for_manifests(repository);
            }
        }
        for problem in problems {
            (self.report)(problem);
        }
        Ok(())
    }

    fn settle(&self, finding: Finding) -> Result<Problem, Error> {
        let Finding { severity, path, what, repair } = finding;
        let done = if self.repair { self.mend(&path, repair)? } else { None };
        if done.is_some() {
            self.store.ledger.forget();
        }
        Ok(self.problem(severity, &path, what, done))
    }

    fn problem(
        &self,
        severity: Severity,
        path: &std::path::Path,
        what: String,
        done: Option<&str>,
    ) -> Problem {
        let path = path.strip_prefix(self.store.layout.root()).unwrap_or(path).to_string_lossy().into_owned();
        Problem { severity, path, what, done: done.map(str::to_owned) }
    }

    fn mend(&self, path: &std::path::Path, repair: Repair) -> Result<Option<&'static str>, Error> {
        let durable = &self.store.durable;
        Ok(Some(match repair {
            Repair::Push => return Ok(None),
            Repair::Write(bytes) => {
                durable.write(path, &bytes)?;
                "written again"
            }
            Repair::Mark(entries) => {
                durable.mark(&entries)?;
                "entered again"
            }
            Repair::Remove => {
                durable.remove(path)?;
                "removed"
            }
            Repair::RemoveTree => {
                durable.disk.remove_tree(path).at("remove", path)?;
                "removed"
            }
            Repair::Quarantine => {
                self.store.put_aside(path)?;
                "moved to quarantine"
            }
        }))
    }
}

impl Store {
    /// Moves a file that nothing may use any more to quarantine, under a name that says where it was.
    fn put_aside(&self, path: &std::path::Path) -> Result<(), Error> {
        let place = path.strip_prefix(self.layout.root()).unwrap_or(path).to_string_lossy();
        let mut name = place.replace('/', "+");
        // File names have at most 255 bytes; the end says most.
        while name.len() > 200 {
            name.remove(0);
        }
        let name = format!("{name}-{}", uuid::Uuid::new_v4());
        let moved = self.durable.set_aside(path, &self.layout.quarantine().join(name));
        if let Some(folder) = path.parent() {
            self.listings.forget(folder);
        }
        moved
    }
}

/// The length of a file; none where there is none.
fn length(path: &std::path::Path) -> Result<Option<u64>, Error> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("look at", path),
    }
}
