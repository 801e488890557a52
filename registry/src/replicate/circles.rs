//! What would go in a circle: copies of copies, and what comes back to where it was pushed under yet another name.

use channel::feed::Stamp;
use oci::copy::Place;

use super::{
    plan::{InvalidPlan, Setup},
    registry::Registry,
    run::Run,
};

impl Run {
    /// Whether what a repository holds was brought there by runs like this one, within one registry.
    pub(super) fn was_brought(&self, place: &Place) -> bool {
        is_one(&self.source, &self.target)
            && (place.source == place.target || self.setup.arrives_at(place.source.as_str()))
    }

    /// Whether the target has it already, under the name that it was pushed by there. Where names stay the same there is
    /// no circle, and what a target lost is brought back; so it is where the name gets what was put before it off again.
    pub(super) fn comes_back(&self, place: &Place, stamp: &Stamp) -> bool {
        let (source, target) = (place.source.as_str(), place.target.as_str());
        let is_restored =
            source.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
        !is_restored && !is_one(&self.source, &self.target) && self.was_pushed_at_target(stamp)
    }

    /// Whether the feed tells of what the target told first.
    pub(super) fn is_known_there(&self, stamp: &Stamp) -> bool {
        !is_one(&self.source, &self.target) && self.was_pushed_at_target(stamp)
    }

    fn was_pushed_at_target(&self, stamp: &Stamp) -> bool {
        self.target.id.as_ref() == Some(&stamp.origin)
    }
}

/// Refuses what would copy everything to where it is, whatever names a registry has.
pub(super) fn refuse(setup: &Setup, source: &Registry, target: &Registry) -> Result<(), InvalidPlan> {
    let stays = || setup.place("a/b").is_ok_and(|place| place.source == place.target);
    if is_one(source, target) && stays() { Err(InvalidPlan::Same) } else { Ok(()) }
}

fn is_one(source: &Registry, target: &Registry) -> bool {
    source.id.is_some() && source.id == target.id
}
