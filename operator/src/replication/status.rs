//! The status of a Replication, as a pure function of how its targets are.

use crds::{
    Replication, ReplicationStatus,
    replication::{Phase, TargetStatus},
};
use jiff::Timestamp;
use kube::runtime::events::{Event, EventType};

use super::{
    end::{self, End},
    grant::{self, Role},
    target::{DELETIONS_STOPPED, IMAGES_FAILED, time},
    terms::role_at_target,
};
use crate::conditions::{Answer, condition};

/// What happens once a person has seen to deletions.
const AFTER_DELETIONS: &str = "it is looked at again within half an hour, or at once where the Replication gets another \
                               value of the annotation berth.dev/replicate-now";
/// Why a Replication waits for its first runs.
pub(super) const PENDING: &str = "Pending";

/// The status that says this. `problem` is what keeps every target from getting anything.
pub(super) fn status(
    replication: &Replication,
    problem: Option<&Answer>,
    source: Option<&End>,
    targets: Vec<TargetStatus>,
    now: Timestamp,
) -> ReplicationStatus {
    let former = replication.status.clone().unwrap_or_default();
    let generation = replication.metadata.generation;
    let say = |type_, answer: &Answer| condition(type_, answer, generation, &former.conditions, now);
    let accepted = problem.cloned().unwrap_or_else(|| Answer::yes("Accepted", "it can be carried out"));
    let well = targets.iter().filter(|target| is_well(target)).count();
    ReplicationStatus {
        conditions: vec![
            say("Ready", &ready(replication, problem, &targets)),
            say("Accepted", &accepted),
            say("Progressing", &progressing(&targets)),
        ],
        observed_generation: generation,
        source: source.map(|source| source.host().to_owned()).or(former.source),
        summary: Some(format!("{well}/{}", targets.len())),
        lag_seconds: targets.iter().filter_map(|target| target.lag_seconds).max(),
        last_success: oldest_success(&targets),
        targets,
    }
}

/// It had everything once, and nothing is known to be wrong.
fn is_well(target: &TargetStatus) -> bool {
    target.reason.is_none() && target.last_success.is_some()
}

fn oldest_success(targets: &[TargetStatus]) -> Option<String> {
    let all: Option<Vec<_>> =
        targets.iter().map(|target| Some((time(target.last_success.as_ref())?, target))).collect();
    all?.into_iter().min_by_key(|(time, _)| *time)?.1.last_success.clone()
}

fn ready(replication: &Replication, problem: Option<&Answer>, targets: &[TargetStatus]) -> Answer {
    if let Some(problem) = problem {
        return problem.clone();
    }
    if replication.spec.suspend {
        return Answer::no("Suspended", "nothing is copied: set suspend to false to go on");
    }
    let mut failing = targets.iter().filter(|target| target.reason.is_some());
    if let Some(target) = failing.next() {
        let more = failing.count();
        let more = if more > 0 { format!(" (and {more} more targets)") } else { String::new() };
        return Answer {
            yes: false,
            reason: target.reason.clone().unwrap_or_default().into(),
            message: format!("{}{more}", sentence(target)),
        };
    }
    match targets.iter().find(|target| !is_well(target)) {
        Some(target) => Answer::no(PENDING, format!("target {} has not had everything yet", target.name)),
        None => Answer::yes("Replicated", "every target had everything when it was last looked at"),
    }
}

/// What is wrong with a target, and that it is this one: a run knows of one target, and calls it that.
fn sentence(target: &TargetStatus) -> String {
    let message = target.message.as_deref().unwrap_or_default();
    format!("target {}: {}", target.name, message.strip_prefix("target: ").unwrap_or(message))
}

fn progressing(targets: &[TargetStatus]) -> Answer {
    let running: Vec<_> = targets.iter().filter(|target| target.job.is_some()).collect();
    let copying = running.iter().find(|target| target.phase != Phase::Following);
    match (copying, running.first()) {
        (Some(target), _) => {
            Answer::yes("Running", format!("target {} is being brought up to date", target.name))
        }
        (None, Some(target)) => {
            Answer::yes("Following", format!("target {} gets what is pushed", target.name))
        }
        (None, None) => Answer::no("Idle", "nothing runs"),
    }
}

/// Says of a login that was refused which grant is missing, and of what waits for a person how it goes on then.
pub(super) fn explain(replication: &Replication, target: &mut TargetStatus) {
    let spec = &replication.spec;
    let there = spec.targets.iter().find(|there| there.name == target.name);
    let (registry, role) = match target.reason.as_deref() {
        Some("SourceUnauthorized") => (spec.source.registry_ref.as_ref(), Role::Source),
        Some("TargetUnauthorized") => {
            (there.and_then(|there| there.registry_ref.as_ref()), role_at_target(spec))
        }
        Some(DELETIONS_STOPPED) => return add(target, AFTER_DELETIONS),
        _ => return,
    };
    let (Some(registry), Some(account)) = (registry, &spec.service_account_name) else { return };
    let registry = end::registry_ref(replication, registry);
    let grant = grant::sentence(replication, &registry, account, role);
    add(target, &grant);
}

/// Says something more, unless it was said before: then nothing new was heard of the run.
fn add(target: &mut TargetStatus, more: &str) {
    let said = target.message.take().unwrap_or_default();
    target.message = Some(if said.contains(more) { said } else { format!("{said}: {more}") });
}

/// What a person would ask about later: that a target began to fail, and that it is well again.
pub(super) fn event(former: &TargetStatus, target: &TargetStatus) -> Option<Event> {
    let name = &target.name;
    match (&former.reason, &target.reason) {
        (None, Some(reason)) => {
            let failure = if reason == IMAGES_FAILED { first_failure(target) } else { String::new() };
            Some(of(EventType::Warning, reason, &format!("{}{failure}", sentence(target))))
        }
        (Some(_), None) => Some(of(EventType::Normal, "Recovered", &format!("target {name} is well again"))),
        (None, None) if former.last_success.is_none() && target.last_success.is_some() => {
            Some(of(EventType::Normal, "Replicated", &format!("target {name} has everything")))
        }
        _ => None,
    }
}

/// That the whole Replication can't be carried out.
pub(super) fn refusal(former: Option<&ReplicationStatus>, problem: &Answer) -> Option<Event> {
    let before =
        former.and_then(|former| former.conditions.iter().find(|condition| condition.type_ == "Accepted"));
    let same = before.is_some_and(|before| before.status == "False" && before.reason == problem.reason);
    (!same).then(|| of(EventType::Warning, &problem.reason, &problem.message))
}

fn of(type_: EventType, reason: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.chars().take(1000).collect()),
        action: "Replicate".into(),
        secondary: None,
    }
}

fn first_failure(target: &TargetStatus) -> String {
    let first = target.failures.first();
    first.map_or(String::new(), |failure| format!("; {}: {}", failure.image, failure.reason))
}

#[cfg(test)]
mod tests;
