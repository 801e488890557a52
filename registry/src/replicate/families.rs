//! Repositories of the source that arrive under one name, where steps of names are left out: what one of them lost may be
//! what another one has, and stays then.

use std::collections::{BTreeMap, BTreeSet};

use oci::{Digest, Reference, RepoName, Tag, client, copy::Place};

use super::{compare::Held, plan::Setup, run::Run};

/// By where they arrive: their names, without the source's path. One of which nothing is left may not be among them.
#[derive(Debug, Default)]
pub(super) struct Families(BTreeMap<RepoName, BTreeSet<String>>);

/// Who has a tag that a repository lost.
#[derive(Debug)]
pub(super) enum Heir {
    /// One that is copied, and what the tag points to there.
    Copied(Place, Held),
    /// One that is not; another replication may have brought it.
    Foreign,
}

impl Families {
    pub(super) fn of<'a>(setup: &Setup, names: impl IntoIterator<Item = &'a String>) -> Self {
        let mut families: BTreeMap<RepoName, BTreeSet<String>> = BTreeMap::new();
        if setup.destination.flatten > 0 {
            for name in names {
                let Ok(place) = setup.place(name) else { continue };
                families.entry(place.target).or_default().insert(name.clone());
            }
        }
        Self(families)
    }

    /// All that arrive where this one does, but for itself, in their order.
    fn others<'a>(&'a self, setup: &'a Setup, place: &'a Place) -> impl Iterator<Item = (&'a str, Place)> {
        let family = self.0.get(&place.target).into_iter().flatten();
        let family = family.filter_map(|name| Some((name.as_str(), setup.place(name).ok()?)));
        family.filter(|(_, other)| other.source != place.source)
    }
}

impl Run {
    /// Of all that the source has now. Where it does not list them, of those that are named.
    pub(super) async fn families(&self) -> Result<Families, client::Error> {
        if self.setup.destination.flatten == 0 {
            return Ok(Families::default());
        }
        let named = self.setup.filters.repositories().iter().filter(|pattern| pattern.is_literal());
        let mut all: BTreeSet<_> = named.map(|pattern| pattern.as_str().to_owned()).collect();
        let (endpoint, listed) = (self.source.client.endpoint(), self.source.client.catalog().await?);
        let listed = listed.iter().flatten();
        all.extend(listed.filter_map(|name| endpoint.outside(name.as_str()).map(str::to_owned)));
        Ok(Families::of(&self.setup, &all))
    }

    /// One whose tag is copied in place of this one's, as a comparison does it: the first that has it.
    pub(super) async fn first_with(
        &self,
        families: &Families,
        place: &Place,
        tag: &Tag,
    ) -> Result<Option<(RepoName, Digest)>, client::Error> {
        let others = families.others(&self.setup, place);
        let before = others.take_while(|(_, other)| other.source.as_str() < place.source.as_str());
        for (name, other) in before {
            if !self.setup.filters.takes_repository(name) || self.was_brought(&other) {
                continue;
            }
            if let Some(held) = self.source.tag(&other.source, tag).await? {
                return Ok(Some((other.source, held.digest)));
            }
        }
        Ok(None)
    }

    /// A tag is left out, because another repository's is copied under the same name; a failure where they differ.
    pub(super) fn yields(&self, place: &Place, tag: &Tag, held: &Held, other: &RepoName, digest: &Digest) {
        let Place { source, target } = place;
        let image = format!("{source}:{tag}");
        if held.digest == *digest || held.deleted {
            return self.tally.settled(&image);
        }
        let reason = format!("it arrives as {target}:{tag}, as {other}:{tag} does, which was copied");
        self.tally.failed(&image, reason, 1);
    }

    /// Who else has a tag that was deleted: what it points to there counts from the deletion on.
    pub(super) async fn heir(
        &self,
        families: &Families,
        place: &Place,
        tag: &Tag,
        deleted: &Held,
    ) -> Result<Option<Heir>, client::Error> {
        for (name, other) in families.others(&self.setup, place) {
            let Some(held) = self.source.tag(&other.source, tag).await? else { continue };
            let held = Held { stamp: deleted.stamp.clone(), ..held };
            let copied = self.setup.filters.takes_repository(name);
            return Ok(Some(if copied { Heir::Copied(other, held) } else { Heir::Foreign }));
        }
        Ok(None)
    }

    /// Brings in place of a deleted tag what another one has.
    pub(super) async fn inherit(&self, place: &Place, tag: Tag, heir: Heir) {
        self.tally.settled(&format!("{}:{tag}", place.source));
        if let Heir::Copied(place, held) = heir {
            self.tally.found(1);
            self.change(&place, tag, held).await;
        }
    }

    /// Whether another one has a manifest that was deleted. Where nobody knows, it stays.
    pub(super) async fn others_have(&self, families: &Families, place: &Place, digest: &Digest) -> bool {
        let reference = Reference::Digest(digest.clone());
        for (_, other) in families.others(&self.setup, place) {
            let found = self.source.client.head_manifest(&other.source, &reference).await;
            if !matches!(found, Ok(None)) {
                return true;
            }
        }
        false
    }
}
