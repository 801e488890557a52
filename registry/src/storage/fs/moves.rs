//! What a push does to tags: decided before anything is touched, while the tags are locked.

use std::path::PathBuf;

use oci::{Digest, RepoName, Tag};

use super::{Store, ignoring_damage, layout::Repository};
use crate::storage::{
    Error, NewTag, Put,
    stamp::{Event, Stamp},
};

/// What a push does to tags, and to records of deletions.
pub(super) struct Moves<'a> {
    /// Those that do not point there yet, each once, with what became of each last.
    pub(super) tags: Vec<(&'a Tag, Option<Event>)>,
    /// What they say from now on.
    pub(super) event: Event,
    /// Names whose deletions are undone.
    pub(super) undone: Vec<String>,
}

impl Moves<'_> {
    /// Entries of what the tags pointed to before.
    pub(super) fn outdated(&self, folder: &Repository) -> Vec<PathBuf> {
        let outdated = |(tag, last): &(&Tag, Option<Event>)| {
            let former = last.as_ref().filter(|last| !last.is_deletion)?;
            Some(folder.tagged_by(&former.digest, tag))
        };
        self.tags.iter().filter_map(outdated).collect()
    }
}

impl Store {
    /// Why nothing may move, or what will. A push that keeps the stamp of another registry changes nothing where what
    /// is here is later.
    pub(super) fn moves<'a>(
        &self,
        repository: &RepoName,
        digest: &Digest,
        new_tags: &'a [NewTag],
        stamp: Option<&Stamp>,
    ) -> Result<Result<Moves<'a>, Put>, Error> {
        let mut tags: Vec<(&Tag, Option<Event>)> = Vec::new();
        for NewTag { tag, is_fixed } in new_tags {
            if tags.iter().any(|(known, _)| *known == tag) {
                continue;
            }
            let last = self.last_event(repository, tag)?;
            let former = last.as_ref().filter(|last| !last.is_deletion);
            match former {
                Some(former) if former.digest == *digest => {}
                Some(former) if *is_fixed => return Ok(Err(Put::Fixed(tag.clone(), former.digest.clone()))),
                _ => tags.push((tag, last)),
            }
        }
        let deleted = ignoring_damage(self.deletion(repository, digest.as_str()))?;
        let formers = || tags.iter().filter_map(|(_, last)| last.as_ref());
        let all = formers().chain(&deleted).map(|former| former.stamp.time);
        let stamp = stamp.cloned().unwrap_or_else(|| Stamp::now(&self.id, all));
        let event = Event { digest: digest.clone(), stamp, is_deletion: false };
        // With a tag it is the tag that says what is later.
        let deciding = deleted.as_ref().filter(|_| new_tags.is_empty());
        let deciding = match deciding {
            Some(_) if self.is_back(repository, digest.as_str())? => None,
            deciding => deciding,
        };
        if let Some(later) = formers().chain(deciding).find(|former| former.is_later_than(&event)) {
            return Ok(Err(Put::Older(later.stamp.clone())));
        }
        let tags_back = tags.iter().filter(|(_, last)| last.as_ref().is_some_and(|last| last.is_deletion));
        let undone =
            tags_back.map(|(tag, _)| tag.to_string()).chain(deleted.map(|_| digest.to_string())).collect();
        Ok(Ok(Moves { tags, event, undone }))
    }
}
