//! Comparing one repository: between Berth registries by their states, otherwise tag by tag.

use std::collections::{BTreeMap, BTreeSet};

use channel::replication::Phase;
use futures::StreamExt as _;
use oci::{Digest, Reference, RepoName, Tag, client, copy::Place};

use super::{
    compare::{Action, Held, decide, when},
    deleting::{Gone, by_names},
    families::Families,
    filters::Filters,
    registry::State,
    run::{Run, Side},
    sweep::Sweep,
};

/// A tag of the source, and what is to be done with it.
#[derive(Debug)]
struct Task {
    tag: Tag,
    held: Held,
    action: Action,
    /// All that refers to it is there too.
    attached: bool,
}

/// Where each tag came from that arrives under one name, and what it points to there.
pub(super) type Arrived = BTreeMap<Tag, (RepoName, Digest)>;

/// What is to be done in a repository.
struct Tasks {
    tags: Vec<Task>,
    /// Manifests to delete: of which the target has no tag, and of which it has some as yet.
    free: Vec<Gone>,
    named: Vec<Gone>,
}

impl Run {
    /// Makes one repository equal.
    pub(super) async fn repository(
        &self,
        name: &str,
        sweep: &Sweep,
        families: &Families,
        arrived: &mut Arrived,
    ) {
        let place = match self.setup.place(name) {
            Ok(place) => place,
            Err(error) => {
                sweep.is_incomplete();
                return self.tally.failed(name, error.to_string(), 1);
            }
        };
        match self.tasks(&place, sweep, arrived).await {
            Ok(Tasks { tags, free, named }) => {
                // Another repository may still be compared: the phase is what is seen of the run.
                self.tally.phase(Phase::Copying);
                self.carry_out(&place, families, tags).await;
                self.delete_refused(&place).await;
                self.forget(&place, families, free, named).await;
            }
            Err(error) => {
                sweep.is_incomplete();
                self.tally.failed(place.source.as_str(), error, 1);
            }
        }
    }

    async fn tasks(&self, place: &Place, sweep: &Sweep, arrived: &mut Arrived) -> Result<Tasks, String> {
        let source = |error: client::Error| {
            self.blame(Side::Source, &error);
            format!("source: {error}")
        };
        let target = |error: client::Error| {
            self.blame(Side::Target, &error);
            format!("target: {error}")
        };
        let (theirs, ours) = tokio::join!(self.source.state(&place.source), self.target.state(&place.target));
        let (theirs, ours) = (theirs.map_err(source)?, ours.map_err(target)?);
        let (free, named) = match (&theirs, &ours) {
            (Some(theirs), Some(ours)) if self.setup.propagate => by_names(gone(theirs, ours), ours),
            _ => Default::default(),
        };
        let wanted = if let Some(state) = theirs {
            self.of_state(place, state)
        } else {
            let listed = self.source.client.tags(&place.source).await.map_err(source)?;
            if let Some(ours) = &ours {
                sweep.look_at(place, &self.source.origin(), &listed, ours);
            }
            self.of_list(place, &listed).await
        };
        let wanted = self.without_those_of_others(place, wanted, arrived);
        self.tally.found(wanted.iter().filter(|(_, held)| !held.deleted).count());
        let (there, unknown) = match ours {
            Some(state) => (state, BTreeSet::new()),
            None => self.of_tags(Side::Target, place, wanted.iter().map(|(tag, _)| tag)).await,
        };
        let (unknown, known): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|(tag, _)| unknown.contains(tag));
        for (tag, held) in unknown.iter().filter(|(_, held)| !held.deleted) {
            self.tally.behind(&format!("{}:{tag}", place.source), held.stamp.as_ref().and_then(when));
        }
        // Of an index other platforms may have been chosen before.
        let all_platforms = self.setup.filters.platforms.is_empty();
        let tasks = known.into_iter().map(|(tag, held)| {
            let there = there.get(tag.as_str());
            let action = decide(&held, there, self.setup.conflicts, self.setup.propagate);
            let attached = all_platforms && there.is_some_and(|there| held.has_the_same_attached(there));
            Task { tag, held, action, attached }
        });
        Ok(Tasks { tags: tasks.collect(), free, named })
    }

    /// Leaves out tags that another repository brings under the same name, and says so where they differ.
    fn without_those_of_others(
        &self,
        place: &Place,
        mut wanted: Vec<(Tag, Held)>,
        arrived: &mut Arrived,
    ) -> Vec<(Tag, Held)> {
        wanted.retain(|(tag, held)| match arrived.get(tag) {
            None => true,
            Some((other, digest)) => {
                self.yields(place, tag, held, other, digest);
                false
            }
        });
        let live = wanted.iter().filter(|(_, held)| !held.deleted);
        let live = live.map(|(tag, held)| (tag.clone(), (place.source.clone(), held.digest.clone())));
        arrived.extend(live);
        wanted
    }

    /// What of a Berth registry's state is copied, or deleted.
    fn of_state(&self, place: &Place, state: State) -> Vec<(Tag, Held)> {
        let filters = &self.setup.filters;
        let mut all: BTreeMap<Tag, Held> =
            state.into_iter().filter_map(|(name, held)| Some((name.parse().ok()?, held))).collect();
        all.retain(|_, held| !held.stamp.as_ref().is_some_and(|stamp| self.comes_back(place, stamp)));
        let plain = all.iter().filter(|(tag, _)| filters.takes_tag(tag));
        let copied: BTreeSet<Digest> = plain.map(|(_, held)| held.digest.clone()).collect();
        let attached: BTreeSet<Tag> = filters.attached(all.keys(), &copied).into_iter().collect();
        all.into_iter().filter(|(tag, _)| filters.takes_tag(tag) || attached.contains(tag)).collect()
    }

    /// What of a list is copied, with what each tag points to.
    async fn of_list(&self, place: &Place, listed: &[Tag]) -> Vec<(Tag, Held)> {
        let filters = &self.setup.filters;
        let plain = listed.iter().filter(|tag| filters.takes_tag(tag));
        let (mut held, _) = self.of_tags(Side::Source, place, plain).await;
        let copied: BTreeSet<Digest> = held.values().map(|held| held.digest.clone()).collect();
        let attached = filters.attached(listed, &copied);
        held.extend(self.of_tags(Side::Source, place, attached.iter()).await.0);
        held.into_iter().filter_map(|(name, held)| Some((name.parse().ok()?, held))).collect()
    }

    /// Asks an end for each tag. One that is not there is left out; those that can't be asked for are told of, and come
    /// apart.
    pub(super) async fn of_tags<'a>(
        &self,
        side: Side,
        place: &Place,
        tags: impl Iterator<Item = &'a Tag>,
    ) -> (State, BTreeSet<Tag>) {
        let (registry, repository) = match side {
            Side::Source => (&self.source, &place.source),
            Side::Target => (&self.target, &place.target),
        };
        let asked = futures::stream::iter(tags).map(async |tag| (tag, registry.tag(repository, tag).await));
        let mut answers = asked.buffer_unordered(self.setup.concurrency);
        let (mut state, mut unknown) = (State::new(), BTreeSet::new());
        while let Some((tag, answer)) = answers.next().await {
            match answer {
                Ok(held) => state.extend(held.map(|held| (tag.to_string(), held))),
                Err(error) => {
                    self.blame(side, &error);
                    self.tally.failed(&format!("{}:{tag}", place.source), error.to_string(), 1);
                    unknown.insert(tag.clone());
                }
            }
        }
        (state, unknown)
    }

    /// Signatures first, so that whoever sees a tag can verify it.
    async fn carry_out(&self, place: &Place, families: &Families, tasks: Vec<Task>) {
        let (attached, plain): (Vec<_>, Vec<_>) =
            tasks.into_iter().partition(|task| Filters::is_attached(&task.tag));
        let equal =
            plain.iter().filter(|task| task.action == Action::Equal && !task.held.deleted && !task.attached);
        let unchanged: BTreeMap<Digest, Held> =
            equal.map(|task| (task.held.digest.clone(), task.held.clone())).collect();
        for tasks in [attached, plain] {
            let each = |task| self.task(place, families, task);
            futures::stream::iter(tasks).for_each_concurrent(self.setup.concurrency, each).await;
        }
        if self.setup.filters.referrers {
            let each = async |(_, held): (Digest, Held)| self.bring_referrers(place, &held).await;
            futures::stream::iter(unchanged).for_each_concurrent(self.setup.concurrency, each).await;
        }
    }

    async fn task(&self, place: &Place, families: &Families, task: Task) {
        let Task { tag, held, action, attached: _ } = task;
        let image = || format!("{}:{tag}", place.source);
        match action {
            Action::Equal if held.deleted => {}
            Action::Equal | Action::Stays if !held.deleted => self.tally.skipped(1),
            Action::Equal | Action::Stays => {}
            Action::Copy => self.bring(place, Some(tag), &held.digest, held.stamp.as_ref()).await,
            Action::Delete => match self.heir(families, place, &tag, &held).await {
                Ok(Some(heir)) => self.inherit(place, tag, heir).await,
                Ok(None) => self.delete(place, &Reference::Tag(tag), held.stamp.as_ref()).await,
                Err(error) => self.unheard(Side::Source, &image(), &error),
            },
            Action::Conflict => {
                let reason = "the tag points elsewhere at the target, and conflicts are failures".to_owned();
                self.tally.failed(&image(), reason, 1);
            }
        }
    }
}

/// Manifests that were deleted at a Berth source, as far as the target does not say that they are gone there. Where it
/// says nothing at all, nothing was ever copied.
fn gone(theirs: &State, ours: &State) -> Vec<Gone> {
    let deleted = theirs.iter().filter(|(name, held)| held.deleted && !ours.contains_key(*name));
    let digests = deleted.filter_map(|(name, held)| Some((name.parse().ok()?, held.stamp.clone())));
    if ours.is_empty() { Vec::new() } else { digests.collect() }
}
