//! What has to be done with one tag: decided from what both ends say of it, and from nothing else.

use std::cmp::Ordering;

use channel::{
    feed::{MANY, Stamp},
    replication::Conflicts,
};
use jiff::Timestamp;
use oci::Digest;

/// What an end says of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// What it points to, or did.
    pub(super) digest: Digest,
    /// Only Berth says it.
    pub(super) stamp: Option<Stamp>,
    /// It is gone; only Berth says it.
    pub(super) deleted: bool,
    /// What the registry says that it is, where it said so.
    pub(super) media_type: Option<String>,
    /// What refers to it, in a word; only Berth says it.
    pub(super) attached: Option<String>,
}

impl Held {
    /// Whether both ends say, in so many words, that the same refers to what they have.
    pub(super) fn has_the_same_attached(&self, other: &Self) -> bool {
        let tells = |held: &Self| held.stamp.is_some() && held.attached.as_deref() != Some(MANY);
        tells(self) && tells(other) && self.attached == other.attached
    }
}

/// What is to be done at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing: it is as it should be.
    Equal,
    /// Nothing: what the target has was set later, or stays whatever comes.
    Stays,
    /// The tag is set, and what it needs comes before it.
    Copy,
    /// The tag goes.
    Delete,
    /// It points elsewhere, which was not to be.
    Conflict,
}

/// Decides. `target` is none where nothing is known of the tag there; `propagate` says whether deletions go along.
pub(super) fn decide(source: &Held, target: Option<&Held>, conflicts: Conflicts, propagate: bool) -> Action {
    match (source.deleted, target) {
        (true, Some(target)) if !target.deleted && propagate => delete(source, target),
        (true, _) => Action::Equal,
        (false, None) => Action::Copy,
        (false, Some(target)) if !target.deleted && target.digest == source.digest => Action::Equal,
        (false, Some(target)) if target.deleted => by_time(source, target, Action::Copy),
        (false, Some(target)) => match conflicts {
            Conflicts::Overwrite => by_time(source, target, Action::Copy),
            Conflicts::Keep => Action::Stays,
            Conflicts::Fail => Action::Conflict,
        },
    }
}

/// A registry that knows no times loses only the very tag that was deleted.
fn delete(source: &Held, target: &Held) -> Action {
    match target.stamp {
        Some(_) => by_time(source, target, Action::Delete),
        None if target.digest == source.digest => Action::Delete,
        None => Action::Stays,
    }
}

/// The later one wins, at the same time the larger digest; the source where an end knows no times.
fn by_time(source: &Held, target: &Held, action: Action) -> Action {
    let time = |held: &Held| held.stamp.as_ref().and_then(when);
    match (time(source), time(target)) {
        (Some(ours), Some(theirs)) => match ours.cmp(&theirs).then_with(|| source.digest.cmp(&target.digest))
        {
            Ordering::Less => Action::Stays,
            // The same moment and digest: a deletion of what was set then.
            Ordering::Equal | Ordering::Greater => action,
        },
        _ => action,
    }
}

/// When it was, where that can be read.
pub(super) fn when(stamp: &Stamp) -> Option<Timestamp> {
    stamp.time.parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn held(content: &str, second: Option<u32>) -> Held {
        let digest = Digest::of(oci::Algorithm::Sha256, content.as_bytes());
        let stamp = second.map(|second| Stamp {
            time: format!("2026-01-01T00:00:{second:02}.000000Z"),
            origin: "o".into(),
        });
        Held { digest, stamp, deleted: false, media_type: None, attached: None }
    }

    fn gone(held: Held) -> Held {
        Held { deleted: true, ..held }
    }

    use Action::{Conflict, Copy, Delete, Equal, Stays};
    use Conflicts::{Fail, Keep, Overwrite};

    #[rstest]
    #[case::new(held("a", Some(1)), None, Overwrite, Copy)]
    #[case::same(held("a", Some(2)), Some(held("a", Some(1))), Fail, Equal)]
    #[case::later(held("a", Some(2)), Some(held("b", Some(1))), Overwrite, Copy)]
    #[case::earlier(held("a", Some(1)), Some(held("b", Some(2))), Overwrite, Stays)]
    #[case::foreign(held("a", None), Some(held("b", Some(2))), Overwrite, Copy)]
    #[case::kept(held("a", Some(2)), Some(held("b", Some(1))), Keep, Stays)]
    #[case::conflict(held("a", Some(2)), Some(held("b", Some(1))), Fail, Conflict)]
    #[case::deleted_before(held("a", Some(2)), Some(gone(held("b", Some(1)))), Keep, Copy)]
    #[case::deleted_after(held("a", Some(1)), Some(gone(held("a", Some(2)))), Overwrite, Stays)]
    #[case::deletion(gone(held("a", Some(2))), Some(held("a", Some(1))), Overwrite, Delete)]
    #[case::deletion_of_another(gone(held("a", Some(2))), Some(held("b", Some(1))), Keep, Delete)]
    #[case::set_again(gone(held("a", Some(1))), Some(held("b", Some(2))), Overwrite, Stays)]
    #[case::deleted_at_both(gone(held("a", Some(1))), Some(gone(held("a", Some(2)))), Overwrite, Equal)]
    #[case::deletion_of_nothing(gone(held("a", Some(1))), None, Overwrite, Equal)]
    #[case::foreign_deletion(gone(held("a", Some(2))), Some(held("a", None)), Overwrite, Delete)]
    #[case::foreign_moved(gone(held("a", Some(2))), Some(held("b", None)), Overwrite, Stays)]
    fn decisions(
        #[case] source: Held,
        #[case] target: Option<Held>,
        #[case] conflicts: Conflicts,
        #[case] expected: Action,
    ) {
        assert_eq!(decide(&source, target.as_ref(), conflicts, true), expected);
        let without = decide(&source, target.as_ref(), conflicts, false);
        assert_eq!(without, if source.deleted { Equal } else { expected });
    }

    #[test]
    fn at_the_same_moment_one_of_two_wins_at_both_ends() {
        let (a, b) = (held("a", Some(1)), held("b", Some(1)));
        let there = decide(&a, Some(&b), Overwrite, false);
        let back = decide(&b, Some(&a), Overwrite, false);
        assert!(matches!((there, back), (Copy, Stays) | (Stays, Copy)));
    }
}
