//! Counting what lies in a path: a walk through its repositories, in which each content counts once.

use std::{collections::HashSet, fs, time::SystemTime};

use oci::{Digest, RepoName, Tag, digest::ALGORITHMS};

use super::{
    Store, folder, ignoring_damage,
    layout::{self, Repository},
};
use crate::storage::{
    Error, IoContext as _,
    ledger::{LastPush, Scope, Shelf, Tally},
    walk::{Walk, everything},
};

impl Shelf for Store {
    fn holds(&self, scope: &Scope, near: &RepoName, digest: &Digest) -> Result<bool, Error> {
        if self.size_in(near, digest)?.is_some() {
            return Ok(true);
        }
        if scope.governed().only().is_some() {
            return Ok(false);
        }
        for name in folder::entries(&self.layout.holders(digest))? {
            let name = name.at("list", self.layout.holders(digest))?;
            if let Some(repository) = layout::as_repository(&name)
                && scope.has(&repository)
                && self.size_in(&repository, digest)?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn count(&self, scope: &Scope) -> Result<Tally, Error> {
        let mut counting = Counting { store: self, seen: HashSet::new(), tally: Tally::default() };
        match scope.governed().only() {
            Some(repository) => counting.repository(&repository)?,
            None => {
                self.governed(scope, &mut |repository| counting.repository(&repository).map(|()| true))?;
            }
        }
        Ok(counting.tally)
    }
}

impl Store {
    /// Calls `each` with every name that a path governs, sorted, until it says no. False where it did.
    pub(in crate::storage) fn governed(
        &self,
        scope: &Scope,
        each: &mut dyn FnMut(RepoName) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        match scope.governed().only() {
            Some(repository) => each(repository),
            None => self.walk(Walk::below(scope.governed().prefix()), &everything, &mut |repository| {
                if scope.has(&repository) { each(repository) } else { Ok(true) }
            }),
        }
    }

    /// Digests of a repository's manifests, and of its blobs.
    pub(in crate::storage) fn contents(
        &self,
        repository: &RepoName,
    ) -> Result<(Vec<Digest>, Vec<Digest>), Error> {
        let folder = self.layout.repository(repository);
        let (mut manifests, mut blobs) = (Vec::new(), Vec::new());
        for algorithm in ALGORITHMS {
            let digests = |parent: std::path::PathBuf| {
                let names = folder::names(&parent)?.into_iter();
                Ok::<_, Error>(names.filter_map(move |name| layout::of_hex(algorithm, &name)))
            };
            manifests.extend(digests(folder.manifests(algorithm))?);
            blobs.extend(digests(folder.blobs().join(algorithm.as_str()))?);
        }
        Ok((manifests, blobs))
    }

    /// Size of content that a repository has as a blob or a manifest.
    fn size_in(&self, repository: &RepoName, digest: &Digest) -> Result<Option<u64>, Error> {
        if let Some(size) = ignoring_damage(self.marked_size(repository, digest))? {
            return Ok(Some(size));
        }
        Ok(ignoring_damage(self.record(repository, digest))?.map(|record| record.size))
    }

    /// That a tag, or else a manifest, came. None where it is gone already.
    pub(super) fn last_push(folder: &Repository, tag: Option<&Tag>, digest: &Digest) -> Option<LastPush> {
        let path = tag.map_or_else(|| folder.manifest(digest), |tag| folder.tag(tag));
        let time = fs::metadata(path).and_then(|found| found.modified()).ok()?;
        Some(LastPush { time, tag: tag.cloned(), digest: digest.clone() })
    }
}

struct Counting<'a> {
    store: &'a Store,
    /// The first half of each digest's bytes, or fewer: of a million they take little memory.
    seen: HashSet<u128>,
    tally: Tally,
}

impl Counting<'_> {
    fn repository(&mut self, repository: &RepoName) -> Result<(), Error> {
        let folder = self.store.layout.repository(repository);
        let mut newest: Option<(SystemTime, Digest)> = None;
        for algorithm in ALGORITHMS {
            for parent in [folder.blobs().join(algorithm.as_str()), folder.manifests(algorithm)] {
                for name in folder::entries(&parent)? {
                    let Some(digest) = layout::of_hex(algorithm, &name.at("list", &parent)?) else {
                        continue;
                    };
                    if self.seen.insert(short(&digest)) {
                        let size = self.store.size_in(repository, &digest)?;
                        self.tally.bytes += size.unwrap_or_default();
                    }
                }
            }
            let manifests = folder.manifests(algorithm);
            for name in folder::entries(&manifests)? {
                let name = name.at("list", &manifests)?;
                if let Some(digest) = layout::of_hex(algorithm, &name)
                    && let Some(time) = modified(&manifests.join(name))
                    && newest.as_ref().is_none_or(|(newest, _)| *newest < time)
                {
                    newest = Some((time, digest));
                }
            }
        }
        if let Some((time, digest)) = newest {
            self.tally.pushed(LastPush { time, tag: None, digest });
        }
        self.tags(repository, &folder)
    }

    fn tags(&mut self, repository: &RepoName, folder: &Repository) -> Result<(), Error> {
        let mut newest: Option<(SystemTime, Tag)> = None;
        for name in folder::entries(&folder.tags())? {
            let Ok(tag) = name.at("list", folder.tags())?.parse::<Tag>() else { continue };
            self.tally.tags += 1;
            if let Some(time) = modified(&folder.tag(&tag))
                && newest.as_ref().is_none_or(|(newest, _)| *newest <= time)
            {
                newest = Some((time, tag));
            }
        }
        if let Some((time, tag)) = newest
            && let Some(digest) = ignoring_damage(self.store.resolve(repository, &tag))?
        {
            self.tally.pushed(LastPush { time, tag: Some(tag), digest });
        }
        Ok(())
    }
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn short(digest: &Digest) -> u128 {
    digest.hex().get(..32).and_then(|hex| u128::from_str_radix(hex, 16).ok()).unwrap_or_default()
}
