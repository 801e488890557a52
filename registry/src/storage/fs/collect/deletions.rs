//! Records of deletions, which are for other registries to hear of: those that have had the time for it.

use std::{fs, io, path::Path, time::Duration};

use oci::RepoName;

use super::{Kind, Run, is_older};
use crate::storage::{Error, IoContext as _, fs::folder};

/// A registry that was away for longer compares itself as if it were new.
const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

impl Run<'_> {
    /// False where it should end.
    pub(super) fn deletions(&mut self, repository: &RepoName) -> Result<bool, Error> {
        let deletions = self.store.layout.repository(repository).deletions();
        for name in folder::entries(&deletions)? {
            if !(self.go_on)() {
                return Ok(false);
            }
            self.deletion(repository, &name.at("list", &deletions)?)?;
        }
        Ok(true)
    }

    fn deletion(&mut self, repository: &RepoName, name: &str) -> Result<(), Error> {
        let store = self.store;
        let folder = store.layout.repository(repository);
        let path = folder.deletion(name);
        let is_over = || Ok::<_, Error>(has_expired(&path)? || store.is_back(repository, name)?);
        if !is_over()? {
            return Ok(());
        }
        let bytes = fs::metadata(&path).map_or(0, |found| found.len());
        if !self.is_dry {
            let Some(_no_pushes) = store.try_lock_for_delete(repository) else { return Ok(()) };
            if !is_over()? || !store.durable.remove(&path)? {
                return Ok(());
            }
            store.listings.note(&folder.deletions(), name, false);
        }
        self.report(Kind::Deletion, &path, bytes);
        Ok(())
    }
}

/// By when it was recorded here.
fn has_expired(path: &Path) -> Result<bool, Error> {
    match fs::metadata(path).and_then(|found| found.modified()) {
        Ok(recorded) => Ok(is_older(recorded, KEPT)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("look at", path),
    }
}
