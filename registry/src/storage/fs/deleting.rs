//! Deleting a manifest: its tags go with it at one moment, whatever their number.
//!
//! Few of them go in one change with the manifest. Where there are more, that change leaves a mark below `deleting/`: the
//! manifest is gone, and nobody sees a tag any more that still points there. Their files go after that, some at a time.
//! What a failure or a crash leaves of them goes before the next change of the repository, with a collection, or at the
//! next start. A mark counts only where there is no such manifest.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use oci::{Digest, RepoName, Tag, digest::ALGORITHMS};

use super::{
    Locked, Store,
    feed::Announced,
    folder, ignoring_damage,
    layout::{self, Layout, Repository},
};
use crate::storage::{
    Deleted, Error, IoContext as _,
    ledger::Entry,
    stamp::{Event, Stamp},
};

/// Tags that go in one change: while their names go pulls wait.
pub(super) const TAGS_AT_ONCE: usize = if cfg!(test) { 3 } else { 100 };

/// Manifests with a mark.
#[derive(Debug, Default)]
pub(super) struct Deleting(RwLock<BTreeSet<(RepoName, Digest)>>);

impl Deleting {
    /// Those that a former run has left.
    pub(super) fn load(layout: &Layout) -> Result<Self, Error> {
        let mut left = BTreeSet::new();
        for algorithm in ALGORITHMS {
            let folder = layout.all_deleting(algorithm);
            for hex in folder::names(&folder)? {
                let Some(digest) = layout::of_hex(algorithm, &hex) else { continue };
                let repositories = folder::names(&folder.join(hex))?;
                let repositories = repositories.iter().filter_map(|name| layout::as_repository(name));
                left.extend(repositories.map(|repository| (repository, digest.clone())));
            }
        }
        Ok(Self(RwLock::new(left)))
    }

    /// Looks again.
    pub(super) fn reload(&self, layout: &Layout) -> Result<(), Error> {
        let Self(left) = Self::load(layout)?;
        *self.change() = left.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(())
    }

    fn of(&self, repository: &RepoName) -> Vec<Digest> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(of, _)| of == repository).map(|(_, digest)| digest.clone()).collect()
    }

    fn change(&self) -> RwLockWriteGuard<'_, BTreeSet<(RepoName, Digest)>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn repositories(&self) -> BTreeSet<RepoName> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(repository, _)| repository.clone()).collect()
    }
}

impl Store {
    #[cfg(test)]
    pub(crate) fn delete_manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
        stamp: Option<&Stamp>,
    ) -> Result<Deleted, Error> {
        self.delete_manifest_unless(repository, digest, stamp, &|_| false)
    }

    /// Takes a manifest away with its tags, unless an index of the repository needs it, or one of the tags was set after
    /// the stamp of another registry. It stays as well where one of the tags does. What fails when it is gone already
    /// leaves tags that nobody sees.
    pub(crate) fn delete_manifest_unless(
        &self,
        repository: &RepoName,
        digest: &Digest,
        stamp: Option<&Stamp>,
        stays: &dyn Fn(&Tag) -> bool,
    ) -> Result<Deleted, Error> {
        let _no_pushes = self.begin_delete(repository)?;
        let folder = self.layout.repository(repository);
        let (entries, size) = match self.record(repository, digest) {
            Ok(None) => return Ok(Deleted::Unknown),
            Ok(Some(record)) => (record.entries(&folder, digest), record.size),
            // Nobody knows what it needed: entries that stay are found not to be true.
            Err(Error::Damaged { .. }) => (Vec::new(), 0),
            Err(error) => return Err(error),
        };
        if let Some(needed_by) = self.needed_by(repository, digest)? {
            return Ok(Deleted::Needed(needed_by));
        }
        let mut latest = None;
        for tag in self.tags_of(repository, digest)? {
            let tag = tag?;
            if stays(&tag) {
                return Ok(Deleted::Fixed(tag));
            }
            latest = later(latest, self.tag_event(repository, &tag)?);
        }
        let record = match self.deletion_after(&latest, digest, stamp) {
            Ok(record) => record,
            Err(later) => return Ok(Deleted::Older(later)),
        };
        let nobody_holds = self.locks.release(digest);
        let mut entry = self.ledger.removal(self, repository)?;
        entry.take_out(digest, size)?;
        let first = some(&mut self.tags_of(repository, digest)?)?;
        let announced = self.announce_all(repository, digest, &record)?;
        let are_more = announced.len() > 1;
        let mut change = self.durable.change();
        if are_more {
            change.mark([&self.layout.deleting(digest, repository)])?;
            self.deleting.change().insert((repository.clone(), digest.clone()));
            // First, so that nobody sees which tags a failing disk has left.
            change.remove(&folder.manifest(digest))?;
        }
        let last = (!are_more).then_some(digest);
        let mut records = records(&first, &record);
        records.push((digest.to_string(), record.clone()));
        let nobody_looks = || self.locks.hide(repository);
        let removed =
            self.take_away(repository, change, &first, &records, last, nobody_looks).inspect_err(|_| {
                self.look_for_manifests(repository);
                entry.doubt();
            })?;
        entry.tags(0, removed);
        drop(announced);
        self.look_for_manifests(repository);
        self.forget_entries(&tagged(&folder, digest, &first));
        self.forget_entries(&entries);
        if self.marked_size(repository, digest)?.is_none() {
            self.durable.forget(&self.layout.holder(digest, repository))?;
        }
        drop(nobody_holds);
        if are_more {
            self.take_the_rest(repository, digest, &record, &mut entry).inspect_err(|_| entry.doubt())?;
        }
        Ok(Deleted::Done)
    }

    /// Announces that a manifest goes, and before that its tags, as many together as go in one change.
    fn announce_all(
        &self,
        repository: &RepoName,
        digest: &Digest,
        record: &Event,
    ) -> Result<Vec<Announced<'_>>, Error> {
        let mut announced = Vec::new();
        let mut tags = self.tags_of(repository, digest)?;
        let mut next = some(&mut tags)?;
        loop {
            let after = some(&mut tags)?;
            let mut records = records(&next, record);
            if after.is_empty() {
                records.push((digest.to_string(), record.clone()));
            }
            announced.push(self.announce_deletions(repository, &records));
            if after.is_empty() {
                return Ok(announced);
            }
            next = after;
        }
    }

    /// Takes away what still points to a manifest that is gone, and its mark.
    fn take_the_rest(
        &self,
        repository: &RepoName,
        digest: &Digest,
        record: &Event,
        entry: &mut Entry<'_>,
    ) -> Result<(), Error> {
        let folder = self.layout.repository(repository);
        loop {
            let mut tags = self.tags_of(repository, digest)?;
            let mut are_left = false;
            loop {
                let some = some(&mut tags)?;
                if some.is_empty() {
                    break;
                }
                are_left = true;
                let (change, records) = (self.durable.change(), records(&some, record));
                // Nobody sees them.
                entry.tags(0, self.take_away(repository, change, &some, &records, None, || ())?);
                self.forget_entries(&tagged(&folder, digest, &some));
            }
            // A folder that changes while it is read may hide names.
            if !are_left {
                break;
            }
        }
        self.forget_mark(repository, digest)
    }

    /// That a power failure brings it back does no harm.
    fn forget_mark(&self, repository: &RepoName, digest: &Digest) -> Result<(), Error> {
        let mark = self.layout.deleting(digest, repository);
        self.durable.forget(&mark)?;
        self.deleting.change().remove(&(repository.clone(), digest.clone()));
        // With its folder, where that is empty.
        self.forget_entries([&mark]);
        Ok(())
    }

    /// Ends what former deletions have left in a repository, for who holds its lock.
    fn end_deletions_in(&self, repository: &RepoName) -> Result<(), Error> {
        for digest in self.deleting.of(repository) {
            if !self.is_gone(repository, &digest)? {
                self.forget_mark(repository, &digest)?;
                continue;
            }
            let record = match ignoring_damage(self.deletion(repository, digest.as_str()))? {
                Some(record) => record,
                None => Event { digest: digest.clone(), stamp: Stamp::now(&self.id, []), is_deletion: true },
            };
            let mut entry = self.ledger.removal(self, repository)?;
            self.take_the_rest(repository, &digest, &record, &mut entry).inspect_err(|_| entry.doubt())?;
        }
        Ok(())
    }

    /// Ends what former deletions have left, where no request has the repository.
    pub(super) fn end_deletions(&self) {
        for repository in self.deleting.repositories() {
            let Some(_no_pushes) = self.try_lock_for_delete(&repository) else { continue };
            if let Err(error) = self.end_deletions_in(&repository) {
                tracing::warn!(%repository, %error, "tags that nobody sees any more are left");
            }
        }
    }

    /// Pushes to a repository run beside each other, never beside a delete.
    pub(super) fn begin_push(&self, repository: &RepoName) -> Result<Locked<RwLockReadGuard<'_, ()>>, Error> {
        loop {
            let no_deletes = self.lock_for_push(repository);
            if self.deleting.of(repository).is_empty() {
                return Ok(no_deletes);
            }
            drop(no_deletes);
            drop(self.begin_delete(repository)?);
        }
    }

    pub(super) fn begin_delete(
        &self,
        repository: &RepoName,
    ) -> Result<Locked<RwLockWriteGuard<'_, ()>>, Error> {
        let no_pushes = self.lock_for_delete(repository);
        self.end_deletions_in(repository)?;
        Ok(no_pushes)
    }

    /// Manifests that are gone and whose tags nobody sees, for who looks while nothing goes.
    pub(super) fn gone(&self, repository: &RepoName) -> Result<Vec<Digest>, Error> {
        let mut gone = Vec::new();
        for digest in self.deleting.of(repository) {
            if self.is_gone(repository, &digest)? {
                gone.push(digest);
            }
        }
        Ok(gone)
    }

    fn is_gone(&self, repository: &RepoName, digest: &Digest) -> Result<bool, Error> {
        let path = self.layout.repository(repository).manifest(digest);
        Ok(!fs::exists(&path).at("look at", path)?)
    }
}

/// The next tags that go together; none where there are no more.
fn some(tags: &mut impl Iterator<Item = Result<Tag, Error>>) -> Result<Vec<Tag>, Error> {
    tags.take(TAGS_AT_ONCE).collect()
}

fn records(tags: &[Tag], record: &Event) -> Vec<(String, Event)> {
    tags.iter().map(|tag| (tag.to_string(), record.clone())).collect()
}

/// What leads back to these tags.
fn tagged(folder: &Repository, digest: &Digest, tags: &[Tag]) -> Vec<PathBuf> {
    tags.iter().map(|tag| folder.tagged_by(digest, tag)).collect()
}

/// The later of two.
fn later(one: Option<Event>, other: Option<Event>) -> Option<Event> {
    match (one, other) {
        (Some(one), Some(other)) if other.is_later_than(&one) => Some(other),
        (one, other) => one.or(other),
    }
}
