//! The state of a repository: its tags and the records of deletions, by which others compare themselves with it.

use std::{collections::BTreeSet, fs};

use channel::feed::{MANY, StateEntry};
use oci::{Algorithm, Digest, RepoName};

use super::{Store, folder, ignoring_damage, layout};
use crate::storage::{Error, IoContext as _, StatePage, stamp::Event};

/// Names looked at to say what is attached to one tag.
const LOOKS: usize = 1024;

impl Store {
    /// What became of the names after `last`, sorted, at most `n`. None where there is no such repository and nothing
    /// was deleted there either.
    pub(crate) fn state(
        &self,
        repository: &RepoName,
        last: Option<&str>,
        n: usize,
    ) -> Result<Option<StatePage>, Error> {
        let folder = self.layout.repository(repository);
        let nothing_goes = self.locks.see(repository);
        let gone = self.gone(repository)?;
        let (tags, more_tags) = self.page(&folder.tags(), last, n)?;
        let (deletions, more_deletions) = self.page(&folder.deletions(), last, n)?;
        let names: BTreeSet<_> = tags.into_iter().chain(deletions).collect();
        if names.is_empty() && !self.is_repository(repository)? {
            let path = folder.deletions();
            return Ok(fs::exists(&path).at("look at", path)?.then(StatePage::default));
        }
        let more = more_tags || more_deletions || names.len() > n;
        let names: Vec<_> = names.into_iter().take(n).collect();
        let more_after = names.last().filter(|_| more).cloned();
        let mut events = Vec::with_capacity(names.len());
        for name in names {
            events.extend(self.state_of(repository, &name, &gone)?.map(|event| (name, event)));
        }
        drop(nothing_goes);
        let referrers = folder.all_referrers();
        let has_referrers = fs::exists(&referrers).at("look at", &referrers)?;
        let mut entries = Vec::with_capacity(events.len());
        for (name, event) in events {
            let attached = if has_referrers && !event.is_deletion {
                self.attached(repository, &event.digest)?
            } else {
                None
            };
            entries.push(entry(name, &event, attached));
        }
        Ok(Some(StatePage { entries, more_after }))
    }

    /// A digest over what refers to a manifest, to those within it, and to what refers to these.
    fn attached(&self, repository: &RepoName, digest: &Digest) -> Result<Option<String>, Error> {
        let repository_folder = self.layout.repository(repository);
        let mut seen = BTreeSet::new();
        let mut attached = BTreeSet::new();
        // With whom it is said to refer to: an entry may have outlived what it stands for.
        let mut left = vec![(digest.clone(), None)];
        while let Some((digest, subject)) = left.pop() {
            if !seen.insert(digest.clone()) {
                continue;
            }
            let Some(record) = self.unless_damaged(self.record(repository, &digest))? else { continue };
            if subject.is_some() {
                if record.subject != subject {
                    continue;
                }
                attached.insert(digest.to_string());
            }
            let (names, more) = folder::page(&repository_folder.referrers(&digest), None, LOOKS)?;
            let referrers = names.iter().filter_map(|name| layout::as_digest(name));
            left.extend(referrers.map(|referrer| (referrer, Some(digest.clone()))));
            left.extend(record.needs.into_iter().map(|needed| (needed, None)));
            if more || seen.len() + left.len() > LOOKS {
                return Ok(Some(MANY.to_owned()));
            }
        }
        let all: Vec<_> = attached.into_iter().collect();
        let digest = || Digest::of(Algorithm::Sha256, all.join("\n").as_bytes()).to_string();
        Ok((!all.is_empty()).then(digest))
    }

    /// The event that counts for a tag or a deleted manifest; none where that is damaged, or a manifest that is there.
    /// What points to one that is gone went with it.
    fn state_of(&self, repository: &RepoName, name: &str, gone: &[Digest]) -> Result<Option<Event>, Error> {
        if let Ok(tag) = name.parse() {
            let event = self.last_event(repository, &tag)?;
            return match event.as_ref().filter(|event| !event.is_deletion && gone.contains(&event.digest)) {
                Some(event) => ignoring_damage(self.deletion(repository, event.digest.as_str())),
                None => Ok(event),
            };
        }
        if self.is_back(repository, name)? {
            return Ok(None);
        }
        ignoring_damage(self.deletion(repository, name))
    }
}

fn entry(name: String, event: &Event, attached: Option<String>) -> StateEntry {
    StateEntry {
        name,
        digest: event.digest.to_string(),
        stamp: (&event.stamp).into(),
        deleted: event.is_deletion,
        attached,
    }
}
