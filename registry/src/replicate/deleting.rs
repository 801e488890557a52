//! Deleting at the target what was deleted at the source, and nothing besides: with a manifest go all tags that it has.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use channel::{feed::Stamp, replication::Reason};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode};
use oci::{
    Digest, Reference, Tag,
    client::{self, Removed},
    copy::Place,
};

use super::{
    families::Families,
    registry::{State, keeping},
    run::{Run, Side},
};

/// A manifest that was deleted at a Berth source, and when.
pub(super) type Gone = (Digest, Option<Stamp>);

/// Tags that the target deletes by digest only, by repository.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<HashMap<Place, BTreeSet<Tag>>>);

impl Refused {
    fn tags(&self) -> MutexGuard<'_, HashMap<Place, BTreeSet<Tag>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// Deletes a tag, or a manifest of which no tag is left.
    pub(super) async fn delete(&self, place: &Place, reference: &Reference, stamp: Option<&Stamp>) {
        let headers = keeping(&self.target, stamp.unwrap_or(&self.stamp_of_now()));
        let removed = self.target.client.delete_manifest(&place.target, reference, &headers).await;
        match (removed, reference) {
            // Whether it can go by its digest shows once all are known that go.
            (Err(error), Reference::Tag(tag)) if self.deletes_no_tags(&error) => {
                self.refused.tags().entry(place.clone()).or_default().insert(tag.clone());
            }
            (removed, Reference::Tag(tag)) => self.removed(&format!("{}:{tag}", place.source), removed),
            // A manifest that another one there still needs stays.
            (Err(error), Reference::Digest(_)) if error.status() == Some(StatusCode::METHOD_NOT_ALLOWED) => {}
            (removed, Reference::Digest(digest)) => {
                self.removed(&format!("{}@{digest}", place.source), removed);
            }
        }
    }

    fn removed(&self, image: &str, removed: Result<Removed, client::Error>) {
        match removed {
            Ok(Removed::Gone) => self.tally.deleted(image),
            Ok(Removed::Missing | Removed::Newer) => self.tally.settled(image),
            Err(error) => {
                self.tally.failed(image, format!("failed to delete it at the target: {error}"), 1);
            }
        }
    }

    /// As Docker's registry before version 3.
    fn deletes_no_tags(&self, error: &client::Error) -> bool {
        let refuses = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::BAD_REQUEST];
        !self.target.is_berth() && error.status().is_some_and(|status| refuses.contains(&status))
    }

    /// Deletes manifests of which the target has no tag left: those that nothing names there now, and those that
    /// something did before other things went. What another repository has that arrives there stays.
    pub(super) async fn forget(
        &self,
        place: &Place,
        families: &Families,
        mut free: Vec<Gone>,
        named: Vec<Gone>,
    ) {
        if !named.is_empty() {
            match self.target.state(&place.target).await {
                Ok(state) => {
                    let (more, stay) = by_names(named, &state.unwrap_or_default());
                    tracing::debug!(manifests = stay.len(), "manifests that have tags at the target stay");
                    free.extend(more);
                }
                Err(error) => self.unheard(Side::Target, place.source.as_str(), &error),
            }
        }
        // Most were never there, and records of deletions are kept for long: looking changes nothing.
        let each = async |(digest, stamp): Gone| {
            if !self.target_has(place, &digest).await || self.others_have(families, place, &digest).await {
                return;
            }
            self.delete(place, &Reference::Digest(digest), stamp.as_ref()).await;
        };
        futures::stream::iter(free).for_each_concurrent(self.setup.concurrency, each).await;
    }

    /// Repositories where tags were refused.
    pub(super) fn refused_places(&self) -> Vec<Place> {
        self.refused.tags().keys().cloned().collect()
    }

    /// Deletes by their digests tags that the target did not delete. One that shares its image with another tag stays.
    pub(super) async fn delete_refused(&self, place: &Place) {
        let Some(tags) = self.refused.tags().remove(place) else { return };
        let listed = match self.target.client.tags(&place.target).await {
            Ok(listed) => listed,
            Err(error) => return self.unheard(Side::Target, place.source.as_str(), &error),
        };
        let (state, unknown) = self.of_tags(Side::Target, place, listed.iter()).await;
        if !unknown.is_empty() {
            // They are told as failures, and what they point to is not known.
            return;
        }
        let mut images: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for (name, held) in state {
            images.entry(held.digest).or_default().push(name);
        }
        for (digest, names) in images {
            let goes = |name: &String| tags.iter().any(|tag| tag.as_str() == name);
            let (going, staying): (Vec<_>, Vec<_>) = names.into_iter().partition(goes);
            match (going.first(), staying.first()) {
                (None, _) => {}
                (Some(going), Some(staying)) => {
                    let message = format!(
                        "the target deletes no single tags, only images with all their tags, and `{staying}` names the \
                         same image as `{going}` in {}, so that stays: delete it there in another way, or ignore deletions",
                        place.target
                    );
                    self.tally.problem(Reason::DeletionsStopped, message);
                }
                (Some(_), None) => {
                    let reference = Reference::Digest(digest);
                    let none = HeaderMap::new();
                    match self.target.client.delete_manifest(&place.target, &reference, &none).await {
                        Ok(_) => {
                            for tag in &going {
                                self.tally.deleted(&format!("{}:{tag}", place.source));
                            }
                        }
                        Err(error) => self.removed(&format!("{}:{}", place.source, going[0]), Err(error)),
                    }
                }
            }
        }
    }
}

/// Those that no tag of a repository names, and those that some does.
pub(super) fn by_names(gone: Vec<Gone>, state: &State) -> (Vec<Gone>, Vec<Gone>) {
    let live = state.values().filter(|held| !held.deleted);
    let named: BTreeSet<&Digest> = live.map(|held| &held.digest).collect();
    gone.into_iter().partition(|(digest, _)| !named.contains(digest))
}
