//! Deletions from a source that does not say what was deleted: what was copied from there, as the stamps at a Berth
//! target say, and what a complete listing of it lacks, goes; unless that would be over half, which is more likely a
//! source that lost its mind than one that was tidied.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    sync::{Mutex, MutexGuard, PoisonError},
};

use channel::{feed::Stamp, replication::Reason};
use oci::{Reference, RepoName, Tag, copy::Place};

use super::{
    compare::Held,
    filters::{Filters, came_from},
    registry::State,
    run::Run,
};

/// What a comparison found out.
#[derive(Debug)]
pub(super) struct Sweep {
    /// All repositories of the source, where it lists them.
    listed: Option<BTreeSet<String>>,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// By repository of the target: several of the source may arrive under one name.
    repositories: BTreeMap<RepoName, Looked>,
    /// Something could not be listed.
    incomplete: bool,
}

#[derive(Debug)]
struct Looked {
    place: Place,
    /// What all its sources have.
    listed: BTreeSet<Tag>,
    /// What came from there. With stamps: one that is set later, while this goes on, stays.
    came: Vec<(Tag, Option<Stamp>)>,
}

/// A tag that the source lacks.
type Lacking = (Place, Tag, Option<Stamp>);

impl Sweep {
    pub(super) fn new(listed: Option<BTreeSet<String>>) -> Self {
        Self { listed, found: Mutex::default() }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing goes where not everything is known.
    pub(super) fn is_incomplete(&self) {
        self.found().incomplete = true;
    }

    /// Takes in all tags that the source lists in a repository, and what the target has from this origin.
    pub(super) fn look_at(&self, place: &Place, origin: &str, listed: &[Tag], ours: &State) {
        let mut found = self.found();
        match found.repositories.entry(place.target.clone()) {
            btree_map::Entry::Occupied(mut looked) => looked.get_mut().listed.extend(listed.iter().cloned()),
            btree_map::Entry::Vacant(first) => {
                let came = ours.iter().filter(|(_, held)| is_from(held, origin));
                let came = came.filter_map(|(name, held)| Some((name.parse().ok()?, held.stamp.clone())));
                let listed = listed.iter().cloned().collect();
                first.insert(Looked { place: place.clone(), listed, came: came.collect() });
            }
        }
    }

    /// The number of tags that came from the source, and those that it lacks; none where something was not listed.
    fn lacking(self) -> Option<(usize, Vec<Lacking>)> {
        let Found { repositories, incomplete } =
            self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        if incomplete {
            return None;
        }
        let (mut all, mut lacking) = (0, Vec::new());
        for Looked { place, listed, came } in repositories.into_values() {
            all += came.len();
            let lacks = |tag: &Tag| !listed.contains(tag) && !Filters::is_attached(tag);
            let gone = came.into_iter().filter(|(tag, _)| lacks(tag));
            lacking.extend(gone.map(|(tag, stamp)| (place.clone(), tag, stamp)));
        }
        Some((all, lacking))
    }
}

fn is_from(held: &Held, origin: &str) -> bool {
    !held.deleted && held.stamp.as_ref().is_some_and(|stamp| stamp.origin == origin)
}

impl Run {
    /// Deletes what the source lacks, if it is certain and not too much.
    pub(super) async fn sweep(&self, sweep: Sweep) {
        self.look_at_what_vanished(&sweep).await;
        self.look_at_what_is_not_copied(&sweep).await;
        let Some((came, lacking)) = sweep.lacking() else {
            tracing::warn!("nothing is deleted, because not everything could be listed");
            return;
        };
        if lacking.len() * 2 > came {
            let message = format!(
                "the source lacks {} of the {came} tags that were copied from it, so none was deleted: if that is right, \
                 delete them at the target",
                lacking.len()
            );
            return self.tally.problem(Reason::DeletionsStopped, message);
        }
        for (place, tag, stamp) in lacking {
            self.delete(&place, &Reference::Tag(tag), stamp.as_ref()).await;
        }
    }

    /// Repositories of the source that the filters leave out, but that another replication may have brought to where
    /// this one looks: their tags are not missing.
    async fn look_at_what_is_not_copied(&self, sweep: &Sweep) {
        let names = sweep.listed.iter().flatten();
        for name in names.filter(|name| !self.setup.filters.takes_repository(name)) {
            let Ok(place) = self.setup.place(name) else { continue };
            if !sweep.found().repositories.contains_key(&place.target) {
                continue;
            }
            match self.source.client.tags(&place.source).await {
                Ok(listed) => sweep.look_at(&place, "", &listed, &State::new()),
                Err(_) => sweep.is_incomplete(),
            }
        }
    }

    /// Repositories of the target whose source is gone, where their name tells which it was.
    async fn look_at_what_vanished(&self, sweep: &Sweep) {
        let Some(listed) = &sweep.listed else { return };
        let there = match self.target.client.catalog().await {
            Ok(there) => there.unwrap_or_default(),
            Err(_) => return sweep.is_incomplete(),
        };
        for name in &there {
            let below = self.target.client.endpoint().outside(name.as_str());
            let source = below.and_then(|below| came_from(&self.setup.destination, below));
            let Some(source) = source.filter(|source| !listed.contains(*source)) else { continue };
            if !self.setup.filters.takes_repository(source) {
                continue;
            }
            let Ok(place) = self.setup.place(source) else { continue };
            match self.target.state(name).await {
                Ok(state) => sweep.look_at(&place, &self.source.origin(), &[], &state.unwrap_or_default()),
                Err(_) => sweep.is_incomplete(),
            }
        }
    }
}
