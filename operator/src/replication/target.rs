//! How a target is after what was seen of its runs, as a pure function: what was done, what failed, when it is tried again.

use channel::replication::{Phase as RunPhase, Progress};
use crds::replication::{Bytes, Failure, Images, Phase, TargetStatus};
use jiff::{SignedDuration, Timestamp};

use super::seen::{Seen, State};

/// Reason where single images failed, and everything else is the same.
pub(super) const IMAGES_FAILED: &str = "ImagesFailed";
/// Reason where deletions wait for a person, and everything else is the same.
pub(super) const DELETIONS_STOPPED: &str = "DeletionsStopped";
/// Reason where nothing helps but a change of the Replication, or of what an end is.
const INVALID_PLAN: &str = "InvalidPlan";
/// Reason where a run's pod is not there or does not run.
const NOT_RUNNING: &str = "PodNotRunning";
/// How soon after the first failure in a row it is tried again; then later and later.
const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(10);
const LAST_RETRY: SignedDuration = SignedDuration::from_mins(2);
/// The same where a comparison found nothing wrong but single images, which a person may have to see to.
const LAST_RETRY_OF_IMAGES: SignedDuration = SignedDuration::from_mins(30);
/// A push that began a run was made no more seconds before.
const SLOW_START: i64 = 60;
/// The same where only a person can help: looked at again in case one did.
const FOR_A_PERSON: SignedDuration = LAST_RETRY_OF_IMAGES;
/// Images of which a status says why they failed.
pub(super) const FAILURES: usize = 20;
/// Characters of what a pod says that are shown.
const MAX_TEXT: usize = 500;

/// The target after what was seen of the last run, of those that the status does not tell of yet.
pub(super) fn after(former: TargetStatus, run: Option<&Seen>, now: Timestamp) -> TargetStatus {
    let Some(run) = run.filter(|run| run.number >= former.runs) else {
        return match former.job.clone() {
            Some(job) => vanished(former, &job, now),
            None => at_rest(former, now),
        };
    };
    let mut target = began(former, run);
    if let Some(progress) = &run.progress {
        advance(&mut target, run, progress, now);
    }
    match &run.state {
        State::Active { waiting } => {
            target.phase = if run.is_following() { Phase::Following } else { Phase::Running };
            target.job = Some(run.job.clone());
            if let Some(waiting) = waiting {
                (target.reason, target.message) = (Some(NOT_RUNNING.into()), Some(short(waiting)));
            } else if target.reason.as_deref() == Some(NOT_RUNNING) && target.retry.is_none() {
                (target.reason, target.message) = (None, None);
            }
        }
        State::Going => target.job = Some(run.job.clone()),
        State::Succeeded { at } => succeed(&mut target, run, *at),
        State::Failed { at, why } => fail(&mut target, run, *at, now, why),
    }
    target
}

/// The target once its run is stopped: what that left behind is compared again.
pub(super) fn stopped(mut target: TargetStatus, run: &Seen, now: Timestamp) -> TargetStatus {
    if target.images.failed > 0 {
        target.failed_runs = target.failed_runs.saturating_add(1);
        target.retry = Some(now.to_string());
    }
    let runs = target.runs.max(run.number.saturating_add(1));
    ended(&mut target, runs, now);
    target
}

/// The target once the Job of a run is gone that nobody has seen the end of: what came of it is found out by a comparison.
fn vanished(mut target: TargetStatus, job: &str, now: Timestamp) -> TargetStatus {
    target.failed_runs = target.failed_runs.saturating_add(1);
    target.retry = Some(now.to_string());
    if target.reason.as_deref().is_none_or(|reason| reason == NOT_RUNNING) {
        target.reason = Some("RunFailed".into());
        target.message =
            Some(format!("Job {job} was gone before it told how it ended: everything is compared again"));
    }
    let runs = target.runs.saturating_add(1);
    ended(&mut target, runs, now);
    target
}

/// When a target's time is; none where it is none.
pub(super) fn time(text: Option<&String>) -> Option<Timestamp> {
    text?.parse().ok()
}

/// Of a run that was not seen before, nothing is known yet; and a cursor is worth nothing where another comparison begins.
fn began(former: TargetStatus, run: &Seen) -> TargetStatus {
    let mut target = former;
    if target.comparison.as_ref() != Some(&run.comparison) {
        (target.cursor, target.compared) = (None, None);
        target.comparison = Some(run.comparison.clone());
    }
    target.scheduled = run.scheduled.map(|time| time.to_string()).or(target.scheduled);
    target.replicate_now = run.now.clone().or(target.replicate_now);
    if target.job.as_ref() != Some(&run.job) {
        (target.images, target.bytes) = (Images::default(), Bytes::default());
    }
    target
}

fn advance(target: &mut TargetStatus, run: &Seen, progress: &Progress, now: Timestamp) {
    let images = images(progress);
    let arrived = (target.images.done, target.images.deleted) != (images.done, images.deleted);
    target.images = images;
    target.bytes = Bytes { moved: number(progress.bytes_moved), skipped: number(progress.bytes_skipped) };
    if !progress.failures.is_empty() {
        target.failures = failures(progress);
    }
    // Before a comparison has ended, a cursor says nothing of what was there before.
    if matches!(progress.phase, RunPhase::Following | RunPhase::Ended) && believable(progress) {
        target.cursor = progress
            .cursor
            .as_deref()
            .filter(|cursor| cursor.len() <= MAX_TEXT)
            .map(str::to_owned)
            .or(target.cursor.take());
    }
    let behind = behind_since(target, run, progress);
    let caught_up = target.behind_since.is_some() && behind.is_none();
    target.behind_since = behind;
    let former = if caught_up { Some(0) } else { target.lag_seconds };
    target.lag_seconds = lag(target, run, progress, now).or(former);
    if let Some(problem) = &progress.problem {
        target.reason = Some(reason(problem.reason));
        target.message = Some(short(&problem.message));
        return;
    }
    let equal = progress.equal_at.as_ref().and_then(|time| time.parse::<Timestamp>().ok());
    if let Some(at) = equal.filter(|_| progress.failed == 0) {
        equal_since(target, run, at);
    }
    if run.is_following() {
        follow(target, progress.failed, arrived, now);
    }
}

/// What a run leaves behind that goes on all the same is told before it ends.
fn follow(target: &mut TargetStatus, failed: u64, arrived: bool, now: Timestamp) {
    if failed > 0 {
        target.reason = Some(IMAGES_FAILED.into());
        target.message = Some(format!("{failed} images were not copied; the failures say why"));
        return;
    }
    if target.reason.as_deref() == Some(IMAGES_FAILED) && target.retry.is_none() {
        (target.reason, target.message) = (None, None);
        target.failures.clear();
    }
    if arrived && target.behind_since.is_none() {
        target.last_success = Some(now.to_string());
    }
}

/// Since when a target lacks something: as its run says, or since a pushed image failed first. What it lacked before, it
/// lacks until a run has seen to it; what a comparison leaves behind is told by the failures.
fn behind_since(target: &TargetStatus, run: &Seen, progress: &Progress) -> Option<String> {
    let compared = matches!(progress.phase, RunPhase::Following | RunPhase::Ended) && believable(progress);
    let seen_to = if run.continues { progress.failed == 0 && target.retry.is_none() } else { true };
    let former = target.behind_since.as_ref().filter(|_| !(compared && seen_to));
    let pushed = run.continues || progress.equal_at.is_some();
    let failed = progress.failures.values().map(|failure| &failure.last_try).filter(|_| pushed);
    let all = progress.behind_since.iter().chain(former).chain(failed);
    let known = all.filter_map(|text| Some((text.parse::<Timestamp>().ok()?, text)));
    known.min_by_key(|(time, _)| *time).map(|(_, text)| text.clone())
}

/// How far a target is behind. What a comparison finds may have been pushed long ago, and is no lag once it is there.
fn lag(target: &TargetStatus, run: &Seen, progress: &Progress, now: Timestamp) -> Option<i64> {
    if let Some(since) = time(target.behind_since.as_ref()) {
        return Some(now.duration_since(since).as_secs().max(0));
    }
    let took = number(progress.lag_milliseconds?.saturating_add(500) / 1000);
    let recent = now.duration_since(run.began).as_secs().max(0).saturating_add(SLOW_START);
    Some(if took <= recent { took } else { 0 })
}

/// A cursor of a run that could not go on may stand before what it did not do.
fn believable(progress: &Progress) -> bool {
    progress.problem.as_ref().is_none_or(|problem| is_of_single_images(&reason(problem.reason)))
}

/// Whether a run went to its end, and left behind only what the next comparison finds.
fn is_of_single_images(reason: &str) -> bool {
    [IMAGES_FAILED, DELETIONS_STOPPED].contains(&reason)
}

/// Whether pushes go on while a comparison is waited for.
pub(super) fn goes_on(target: &TargetStatus) -> bool {
    target.reason.as_deref().is_some_and(is_of_single_images)
}

/// Everything was compared and is the same; or, in a run that went on from a cursor, what came after that is.
fn equal_since(target: &mut TargetStatus, run: &Seen, at: Timestamp) {
    if time(target.last_success.as_ref()).is_none_or(|last| last < at) {
        target.last_success = Some(at.to_string());
    }
    if run.continues && target.retry.is_some() {
        return;
    }
    if !run.continues {
        target.compared = Some(at.to_string());
    }
    (target.failed_runs, target.retry, target.reason, target.message) = (0, None, None, None);
    target.failures.clear();
}

fn succeed(target: &mut TargetStatus, run: &Seen, at: Timestamp) {
    equal_since(target, run, at);
    target.behind_since = None;
    target.lag_seconds = target.lag_seconds.or(Some(0));
    ended(target, run.number.saturating_add(1), at);
}

fn fail(target: &mut TargetStatus, run: &Seen, at: Timestamp, now: Timestamp, why: &str) {
    target.failed_runs = target.failed_runs.saturating_add(1);
    let wait = match target.reason.as_deref() {
        Some(DELETIONS_STOPPED | INVALID_PLAN) => FOR_A_PERSON,
        // An image that was just pushed is tried again soon.
        Some(IMAGES_FAILED) if !run.continues => wait(target.failed_runs),
        _ => wait(target.failed_runs).min(LAST_RETRY),
    };
    target.retry = Some((now + wait).to_string());
    let told = run.progress.as_ref().is_some_and(|progress| progress.problem.is_some());
    if !told {
        target.reason = Some("RunFailed".into());
        target.message = Some(format!(
            "Job {} failed ({}): `kubectl logs job/{}` tells more",
            run.job,
            short(why),
            run.job
        ));
    }
    ended(target, run.number.saturating_add(1), at);
}

fn ended(target: &mut TargetStatus, runs: i64, at: Timestamp) {
    target.job = None;
    target.runs = runs;
    target.last_run = Some(at.to_string());
    target.phase = rest(target);
}

fn at_rest(mut target: TargetStatus, now: Timestamp) -> TargetStatus {
    target.phase = rest(&target);
    // What kept a run from beginning is found out anew.
    if target.retry.is_none() {
        (target.reason, target.message) = (None, None);
    }
    if let Some(since) = time(target.behind_since.as_ref()) {
        target.lag_seconds = Some(now.duration_since(since).as_secs().max(0));
    }
    target
}

fn rest(target: &TargetStatus) -> Phase {
    match target {
        _ if target.retry.is_some() => Phase::Failing,
        TargetStatus { runs: 0, .. } => Phase::Pending,
        _ => Phase::Idle,
    }
}

/// How long until single images that failed so often in a row are tried again.
pub(super) fn wait(failed_runs: i64) -> SignedDuration {
    let doublings = u32::try_from(failed_runs.saturating_sub(1)).unwrap_or_default().min(8);
    (FIRST_RETRY * 2_i32.pow(doublings)).min(LAST_RETRY_OF_IMAGES)
}

fn images(progress: &Progress) -> Images {
    let Progress { total, done, skipped, failed, deleted, .. } = progress;
    let [total, done, skipped, failed, deleted] = [total, done, skipped, failed, deleted].map(|n| number(*n));
    Images { total, done, skipped, failed, deleted }
}

fn failures(progress: &Progress) -> Vec<Failure> {
    let failure = |(image, failure): (&String, &channel::replication::Failure)| Failure {
        image: short(image),
        reason: short(&failure.reason),
        attempts: failure.attempts.into(),
        last_try: short(&failure.last_try),
    };
    progress.failures.iter().take(FAILURES).map(failure).collect()
}

/// As its name is on the wire.
fn reason(reason: channel::replication::Reason) -> String {
    format!("{reason:?}")
}

fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect()
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
