//! What a target's Job and its pod say of a run.

use channel::replication::{Phase, Progress};
use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobCondition},
    core::v1::Pod,
};
use kube::ResourceExt as _;

use super::job::{COMPARISON, CONTINUES, NOW, RUN, SCHEDULED, TARGET};
use crate::replicas;

/// A Job has its pod after so long, if there is nothing in the way.
const POD_PATIENCE_SECONDS: i64 = 15;

/// One run, as it is now.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) job: String,
    pub(super) number: i64,
    /// What it compares.
    pub(super) comparison: String,
    /// It went on from a cursor, and compared nothing before.
    pub(super) continues: bool,
    pub(super) scheduled: Option<Timestamp>,
    pub(super) now: Option<String>,
    pub(super) began: Timestamp,
    pub(super) state: State,
    /// The last that is known of how far it is.
    pub(super) progress: Option<Progress>,
}

/// How a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its Job is deleted, and its pod may still run.
    Going,
    /// It runs, or is about to; here is what keeps its pod from running.
    Active { waiting: Option<String> },
    /// It ended with everything the same.
    Succeeded { at: Timestamp },
    /// It ended without; here is what Kubernetes says of it.
    Failed { at: Timestamp, why: String },
}

impl Seen {
    /// What a Job says; none where it is not one of ours.
    pub(super) fn of(job: &Job, pods: &[Pod], progress: Option<Progress>, now: Timestamp) -> Option<Self> {
        let said = |name| job.annotations().get(name).cloned();
        let began = job.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let pod = pod_of(job, pods);
        let told = pod.and_then(last_words);
        Some(Self {
            job: job.name_any(),
            number: said(RUN)?.parse().ok()?,
            comparison: said(COMPARISON)?,
            continues: said(CONTINUES).is_some(),
            scheduled: said(SCHEDULED).and_then(|time| time.parse().ok()),
            now: said(NOW),
            began,
            state: state(job, pod, began, now),
            progress: told.or(progress),
        })
    }

    /// It has not ended.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. } | State::Going)
    }

    /// It copies what is pushed.
    pub(super) fn is_following(&self) -> bool {
        self.is_active() && self.progress.as_ref().is_some_and(|progress| progress.phase == Phase::Following)
    }
}

/// The name of a Job's target.
pub(super) fn target_of(job: &Job) -> Option<&str> {
    job.labels().get(TARGET).map(String::as_str)
}

/// The Job's newest pod: an evicted one is replaced.
pub(super) fn pod_of<'a>(job: &Job, pods: &'a [Pod]) -> Option<&'a Pod> {
    let uid = job.uid()?;
    let is_its = |pod: &&Pod| pod.owner_references().iter().any(|owner| owner.uid == uid);
    pods.iter().filter(is_its).max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn state(job: &Job, pod: Option<&Pod>, began: Timestamp, now: Timestamp) -> State {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut held = conditions.filter(|condition| condition.status == "True");
    let at = |condition: &JobCondition| condition.last_transition_time.as_ref().map_or(now, |time| time.0);
    let ended = held.find_map(|condition| match condition.type_.as_str() {
        "Complete" => Some(State::Succeeded { at: at(condition) }),
        "Failed" => Some(State::Failed { at: at(condition), why: why(condition) }),
        _ => None,
    });
    match ended {
        Some(ended) => ended,
        None if job.metadata.deletion_timestamp.is_some() => State::Going,
        None => State::Active { waiting: waiting(job, pod, began, now) },
    }
}

fn why(condition: &JobCondition) -> String {
    let [reason, message] =
        [&condition.reason, &condition.message].map(|text| text.clone().unwrap_or_default());
    format!("{reason}: {message}")
}

fn waiting(job: &Job, pod: Option<&Pod>, began: Timestamp, now: Timestamp) -> Option<String> {
    let late = now.duration_since(began).as_secs() > POD_PATIENCE_SECONDS;
    match pod {
        Some(pod) => {
            let waiting = replicas::waiting(pod)?;
            Some(format!("pod {} does not run: {waiting}", pod.name_any()))
        }
        None if late => {
            let name = job.name_any();
            Some(format!("Job {name} gets no pod: `kubectl describe job {name}` tells why"))
        }
        None => None,
    }
}

/// What a pod that ended wrote last.
fn last_words(pod: &Pod) -> Option<Progress> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = containers.iter().find_map(|container| container.state.as_ref()?.terminated.as_ref())?;
    serde_json::from_str(ended.message.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn job(status: &Value) -> Job {
        let annotations = json!({RUN: "3", COMPARISON: "c", SCHEDULED: "1970-01-01T00:00:00Z"});
        let metadata = json!({"name": "mirror-1", "uid": "u", "annotations": annotations, "creationTimestamp": "1970-01-01T00:00:00Z"});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    fn pod(container: &Value) -> Pod {
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "mirror-1", "uid": "u"}]);
        let container = json!({"name": "replicate", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": container});
        let metadata = json!({"name": "mirror-1-x", "ownerReferences": owner});
        serde_json::from_value(json!({"metadata": metadata, "status": {"containerStatuses": [container]}}))
            .unwrap()
    }

    fn seen(status: &Value, pods: &[Pod], second: i64) -> Seen {
        Seen::of(&job(status), pods, None, Timestamp::from_second(second).unwrap()).unwrap()
    }

    #[rstest]
    #[case(json!({}), 1, State::Active { waiting: None })]
    #[case(json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "1970-01-01T00:00:05Z"}]}), 60,
        State::Succeeded { at: Timestamp::from_second(5).unwrap() })]
    #[case(json!({"conditions": [{"type": "Complete", "status": "False"}]}), 1, State::Active { waiting: None })]
    #[case(json!({"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "late",
        "lastTransitionTime": "1970-01-01T00:00:05Z"}]}), 60,
        State::Failed { at: Timestamp::from_second(5).unwrap(), why: "DeadlineExceeded: late".into() })]
    fn a_job_says_how_its_run_is(#[case] status: Value, #[case] second: i64, #[case] expected: State) {
        let seen = seen(&status, &[], second);
        assert_eq!(seen.state, expected);
        assert_eq!((seen.number, seen.continues, seen.scheduled), (3, false, Some(Timestamp::UNIX_EPOCH)));
    }

    #[test]
    fn what_keeps_a_pod_from_running_is_said() {
        let stuck = pod(&json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}));
        let waiting = |pods: &[Pod], second| match seen(&json!({}), pods, second).state {
            State::Active { waiting } => waiting.unwrap_or_default(),
            state => panic!("{state:?}"),
        };
        assert!(waiting(&[stuck], 1).contains("ImagePullBackOff: no such image"));
        assert_eq!(waiting(&[], 10), "");
        assert!(waiting(&[], 16).contains("kubectl describe job mirror-1"));
    }

    #[test]
    fn the_last_words_of_a_pod_count() {
        let progress = json!(Progress { done: 5, phase: Phase::Ended, ..Progress::default() }).to_string();
        let ended = pod(&json!({"terminated": {"exitCode": 0, "message": progress}}));
        assert_eq!(seen(&json!({}), &[ended], 1).progress.unwrap().done, 5);
        let cut = pod(&json!({"terminated": {"exitCode": 0, "message": "{\"done\": 5"}}));
        assert_eq!(seen(&json!({}), &[cut], 1).progress, None);
    }
}
