//! When a run of one target begins, and when one is stopped: a pure function of what is known.
//!
//! One run at a time. What failed is tried again later and later, by a full comparison; pushes go on meanwhile where only
//! single images failed.

use crds::replication::TargetStatus;
use jiff::{SignedDuration, Timestamp};

use super::{
    seen::{Seen, State},
    target::{goes_on, time, wait},
    terms::Trigger,
};

/// A run that follows and leaves images behind is replaced by one that compares, after so long; later and later.
const FAILING_FOLLOWER: SignedDuration = SignedDuration::from_mins(10);

/// What is known of a target.
pub(super) struct Situation<'a> {
    pub(super) trigger: &'a Trigger,
    pub(super) suspended: bool,
    /// The target, the last run that was seen included.
    pub(super) target: &'a TargetStatus,
    /// The run that has not ended.
    pub(super) run: Option<&'a Seen>,
    /// What a run now would compare.
    pub(super) comparison: &'a str,
    /// The annotation by which people ask for a run.
    pub(super) now_value: Option<&'a str>,
    /// The source's feed has something for this target after its cursor.
    pub(super) pushed: bool,
    /// When the Replication was made: no earlier time of a schedule counts.
    pub(super) created: Timestamp,
    pub(super) now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Begin a run.
    Start(Start),
    /// End the one that runs.
    Stop,
    /// Nothing, until then or until something happens.
    Wait(Option<Timestamp>),
}

/// How a run begins, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// It goes on from here; it compares everything where there is none.
    pub(super) cursor: Option<String>,
    /// The time of the schedule for which it is.
    pub(super) scheduled: Option<Timestamp>,
    /// What people wrote who asked for it.
    pub(super) now: Option<String>,
}

/// What to do.
pub(super) fn next(known: &Situation<'_>) -> Next {
    match known.run {
        Some(Seen { state: State::Going, .. }) => Next::Wait(None),
        // It was stopped before, and is still there.
        Some(run) if run.number < known.target.runs => Next::Stop,
        Some(run) if known.suspended || run.comparison != known.comparison || is_over(known, run) => {
            Next::Stop
        }
        Some(_) => Next::Wait(None),
        None if known.suspended => Next::Wait(None),
        None => begin(known),
    }
}

/// Whether a run that would go on and on has to make way for a comparison.
fn is_over(known: &Situation<'_>, run: &Seen) -> bool {
    let is_past = |at: Timestamp| at <= known.now;
    let resync = match (known.trigger, time(known.target.compared.as_ref())) {
        (Trigger::OnPush { resync }, Some(compared)) if run.continues => later(compared, *resync),
        (Trigger::OnPush { resync }, compared) => {
            later(compared.unwrap_or(run.began).max(run.began), *resync)
        }
        _ => None,
    };
    let leaves_behind = known.target.images.failed > 0;
    let patience = FAILING_FOLLOWER.max(wait(known.target.failed_runs));
    let left_behind = later(run.began, patience).filter(|_| leaves_behind);
    let retry = time(known.target.retry.as_ref()).filter(|_| run.continues);
    let over = asked(known).is_some() || [resync, left_behind, retry].into_iter().flatten().any(is_past);
    run.is_following() && over
}

fn later(than: Timestamp, by: SignedDuration) -> Option<Timestamp> {
    than.checked_add(by).ok()
}

fn begin(known: &Situation<'_>) -> Next {
    let scheduled = scheduled(known);
    if let Some(now) = asked(known) {
        return Next::Start(Start { now: Some(now.to_owned()), scheduled, cursor: None });
    }
    let compare = || Next::Start(Start { scheduled, ..Start::default() });
    let changed = known.target.comparison.as_deref() != Some(known.comparison);
    let follows = matches!(known.trigger, Trigger::OnPush { .. });
    let retry = time(known.target.retry.as_ref());
    if changed && (follows || retry.is_some()) {
        return compare();
    }
    let pushed = follows && known.pushed && (retry.is_none() || goes_on(known.target));
    let at = match retry {
        Some(at) => Some(at),
        None if scheduled.is_some() => Some(known.now),
        None => resync(known).or_else(|| upcoming(known)),
    };
    match at {
        Some(at) if at <= known.now => compare(),
        _ if pushed => Next::Start(Start { cursor: known.target.cursor.clone(), ..Start::default() }),
        at => Next::Wait(at),
    }
}

/// What people wrote who ask for a run that there was not yet.
fn asked<'a>(known: &Situation<'a>) -> Option<&'a str> {
    known.now_value.filter(|value| known.target.replicate_now.as_deref() != Some(*value))
}

/// When everything is compared although nothing was heard.
fn resync(known: &Situation<'_>) -> Option<Timestamp> {
    let Trigger::OnPush { resync } = known.trigger else { return None };
    let compared = time(known.target.compared.as_ref());
    compared.map_or(Some(known.now), |compared| later(compared, *resync))
}

/// The time of a schedule for which a run is due.
fn scheduled(known: &Situation<'_>) -> Option<Timestamp> {
    let Trigger::Schedule(schedule) = known.trigger else { return None };
    let last = time(known.target.scheduled.as_ref()).unwrap_or(known.created);
    schedule.due(last.max(known.created), known.now)
}

fn upcoming(known: &Situation<'_>) -> Option<Timestamp> {
    let Trigger::Schedule(schedule) = known.trigger else { return None };
    schedule.next(known.now)
}

#[cfg(test)]
mod tests;
