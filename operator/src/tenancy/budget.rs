//! How much of a policy each Repository may take, so that it never becomes too large to be brought to replicas: then
//! nobody's login could be revoked any more.
//!
//! The older ones have room before the younger ones, and paths before all else: where there is room for a path and not
//! for what is said of it, it is shut. So nothing that is declared for all above opens what was declared apart. Where
//! there are too many paths even for that, the youngest are not told of; what the same namespace declares above one of
//! them is shut instead, and what others declare there stays theirs. Who is too young for a path never had it, for those
//! before it do not become more.

use std::collections::BTreeMap;

use crds::Repository;
use kube::ResourceExt as _;

use super::{above, seniority};

/// Bytes of the policy that one namespace's Repositories may take: some thousands of usual ones.
const OF_NAMESPACE: usize = 2 << 20;
/// Bytes that all may take; registries accept 16 MiB, of which primaries may take two, and people's passwords have the rest.
const OF_REGISTRY: usize = 12 << 20;
/// The part of both that paths alone may take.
const FOR_PATHS: usize = 2;

/// How much of a Repository there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// All that it says.
    Whole,
    /// That nobody is let in.
    Shut,
    /// Not even that.
    Nothing,
}

/// What a Repository takes.
pub(crate) struct Wish<'a> {
    pub(crate) repository: &'a Repository,
    /// Bytes of all that it says.
    pub(crate) whole: usize,
    /// Bytes of a rule that lets nobody in.
    pub(crate) shut: usize,
}

/// How much of each there is room for, in the same order.
pub(crate) fn rooms(wishes: &[Wish<'_>]) -> Vec<Room> {
    let mut oldest_first: Vec<_> = (0..wishes.len()).collect();
    oldest_first.sort_by_cached_key(|&index| seniority(wishes[index].repository));
    let mut spent = Spent::default();
    let mut rooms = vec![Room::Nothing; wishes.len()];
    for &index in &oldest_first {
        let Wish { repository, shut, .. } = wishes[index];
        if spent.admits(repository, shut, FOR_PATHS) {
            rooms[index] = Room::Shut;
        }
    }
    for &index in &oldest_first {
        let Wish { repository, whole, shut } = wishes[index];
        if rooms[index] == Room::Shut && spent.admits(repository, whole.saturating_sub(shut), 1) {
            rooms[index] = Room::Whole;
        }
    }
    shut_above(wishes, &mut rooms);
    rooms
}

/// Shuts what a namespace declares above a path of its own that is not told of.
fn shut_above(wishes: &[Wish<'_>], rooms: &mut [Room]) {
    if !rooms.contains(&Room::Nothing) {
        return;
    }
    let paths: BTreeMap<String, usize> = wishes.iter().map(|wish| wish.repository.path()).zip(0..).collect();
    for (path, &index) in &paths {
        if rooms[index] != Room::Nothing {
            continue;
        }
        let mut declared = above(path).filter_map(|above| paths.get(&above).copied());
        let Some(deciding) = declared.find(|&above| rooms[above] != Room::Nothing) else { continue };
        if wishes[deciding].repository.namespace() == wishes[index].repository.namespace() {
            rooms[deciding] = Room::Shut;
        }
    }
}

/// Bytes that are taken.
#[derive(Default)]
struct Spent {
    by_namespace: BTreeMap<String, usize>,
    all: usize,
}

impl Spent {
    /// Takes so many bytes, where they leave the namespace and all within this part of what they may have.
    fn admits(&mut self, repository: &Repository, bytes: usize, part: usize) -> bool {
        let of_namespace = self.by_namespace.entry(repository.namespace().unwrap_or_default()).or_default();
        let fits = *of_namespace + bytes <= OF_NAMESPACE / part && self.all + bytes <= OF_REGISTRY / part;
        if fits {
            *of_namespace += bytes;
            self.all += bytes;
        }
        fits
    }
}

#[cfg(test)]
mod tests;
