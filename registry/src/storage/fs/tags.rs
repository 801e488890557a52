//! Tags: a small file each, which says the digest.

use std::fs;

use oci::{Digest, RepoName, Tag};

use super::{Store, change::Change, deleting::TAGS_AT_ONCE, events, ignoring_damage, repositories};
use crate::storage::{
    Deleted, Error, IoContext as _,
    stamp::{Event, Stamp},
};

impl Store {
    pub(super) fn resolve(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Digest>, Error> {
        let path = self.layout.repository(repository).tag(tag);
        let Some(bytes) = super::read_if_there(&path)? else {
            return Ok(None);
        };
        events::target(&bytes).map(Some).ok_or(Error::Damaged { path, what: "it should hold a digest" })
    }

    /// Takes a tag away and nothing else.
    pub(crate) fn delete_tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
        stamp: Option<&Stamp>,
    ) -> Result<Deleted, Error> {
        let _no_pushes = self.begin_delete(repository)?;
        let folder = self.layout.repository(repository);
        // One that says nothing goes without a record.
        let former = ignoring_damage(self.tag_event(repository, tag))?;
        let records = match &former {
            None => Vec::new(),
            Some(former) => match self.deletion_after([former], &former.digest, stamp) {
                Err(later) => return Ok(Deleted::Older(later)),
                Ok(record) => vec![(tag.to_string(), record)],
            },
        };
        if !fs::exists(folder.tag(tag)).at("look at", folder.tag(tag))? {
            return Ok(Deleted::Unknown);
        }
        let mut entry = self.ledger.removal(self, repository)?;
        let announced = self.announce_deletions(repository, &records);
        let (change, nobody_looks) = (self.durable.change(), || self.locks.hide(repository));
        let removed = self
            .take_away(repository, change, std::slice::from_ref(tag), &records, None, nobody_looks)
            .inspect_err(|_| entry.doubt())?;
        entry.tags(0, removed);
        drop(announced);
        self.forget_entries(former.map(|former| folder.tagged_by(&former.digest, tag)).iter());
        Ok(if removed > 0 { Deleted::Done } else { Deleted::Unknown })
    }

    /// What is to be recorded of a deletion; the stamp of a tag that was set later, and so stays.
    pub(super) fn deletion_after<'a>(
        &self,
        formers: impl IntoIterator<Item = &'a Event> + Clone,
        digest: &Digest,
        stamp: Option<&Stamp>,
    ) -> Result<Event, Stamp> {
        let times = formers.clone().into_iter().map(|former| former.stamp.time);
        let stamp = stamp.cloned().unwrap_or_else(|| Stamp::now(&self.id, times));
        let deletion = Event { digest: digest.clone(), stamp, is_deletion: true };
        match formers.into_iter().find(|former| former.is_later_than(&deletion)) {
            Some(later) => Err(later.stamp.clone()),
            None => Ok(deletion),
        }
    }

    /// Takes tags away in a change, and perhaps the manifest that they point to, with records of that; how many tags there
    /// were. All is on the disk afterwards. Nobody sees half of it who does not look as long as what `take` gives is held.
    pub(super) fn take_away<G>(
        &self,
        repository: &RepoName,
        mut change: Change<'_>,
        tags: &[Tag],
        records: &[(String, Event)],
        manifest: Option<&Digest>,
        take: impl FnOnce() -> G,
    ) -> Result<usize, Error> {
        let folder = self.layout.repository(repository);
        for (name, deletion) in records {
            change.write(&folder.deletion(name), &deletion.encode())?;
        }
        let mut removed = 0;
        for tag in tags {
            removed += usize::from(change.remove(&folder.tag(tag))?);
        }
        if let Some(digest) = manifest {
            change.remove(&folder.manifest(digest))?;
        }
        let _nobody_looks = change.commit_with(take).inspect_err(|_| {
            // They may be there, or not.
            self.listings.forget(&folder.tags());
            self.listings.forget(&folder.deletions());
        })?;
        for (name, _) in records {
            self.listings.note(&folder.deletions(), name, true);
        }
        for tag in tags {
            self.listings.note(&folder.tags(), tag.as_str(), false);
        }
        Ok(removed)
    }

    /// The repository's tags after `last`, sorted, at most `n` and whether there are more. None where there is no
    /// such repository.
    pub(crate) fn tags(
        &self,
        repository: &RepoName,
        last: Option<&str>,
        n: usize,
    ) -> Result<Option<(Vec<String>, bool)>, Error> {
        let _nothing_goes = self.locks.see(repository);
        let page = self.page_of_tags(repository, last, n)?;
        if page.0.is_empty() && !self.is_repository(repository)? {
            return Ok(None);
        }
        Ok(Some(page))
    }

    /// Without those that point to a manifest that is gone.
    fn page_of_tags(
        &self,
        repository: &RepoName,
        last: Option<&str>,
        n: usize,
    ) -> Result<(Vec<String>, bool), Error> {
        let (folder, gone) = (self.layout.repository(repository).tags(), self.gone(repository)?);
        if gone.is_empty() {
            return self.page(&folder, last, n);
        }
        let (mut there, mut last) = (Vec::new(), last.map(str::to_owned));
        loop {
            let (names, more) = self.page(&folder, last.as_deref(), n.max(TAGS_AT_ONCE))?;
            last = names.last().cloned();
            for name in names {
                let Ok(tag) = name.parse() else { continue };
                let is_there = match self.resolve(repository, &tag) {
                    Err(Error::Damaged { .. }) => true,
                    target => target?.is_some_and(|target| !gone.contains(&target)),
                };
                there.extend(is_there.then_some(name));
            }
            if !more || there.len() > n {
                let more = there.len() > n;
                there.truncate(n);
                return Ok((there, more));
            }
        }
    }

    pub(super) fn is_repository(&self, repository: &RepoName) -> Result<bool, Error> {
        let folder = self.layout.repository(repository);
        let there = |path: &std::path::Path| fs::exists(path).at("look at", path);
        Ok(there(&folder.blobs())? || there(&folder.tags())? || repositories::has_manifests(&folder)?)
    }
}
