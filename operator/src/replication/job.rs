//! The Job of one run, and how what belongs to a Replication is called.
//!
//! A Job's name follows from the Replication, the target and the number of the run: whoever starts the same run again, such
//! as an operator that takes over, finds that it is there. The plan lies in the pod's own annotations, so that it comes
//! and goes with the Job and stays as it was.

use std::collections::BTreeMap;

use channel::replication::Plan;
use crds::Replication;
use k8s_openapi::{
    api::{
        batch::v1::{
            Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
        },
        core::v1::{
            Container, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
            VolumeMount,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{Resource as _, ResourceExt as _};
use sha2::{Digest as _, Sha256};

use super::{
    due::Start,
    end::{End, Trust},
    plan::{PLAN, PLAN_FILE},
};
use crate::{
    desired::workload::{CHANNEL_PORT, hardened, port},
    names::{MANAGED_BY, MANAGER},
};

mod volumes;

/// Names the Replication on everything that belongs to one.
pub(crate) const REPLICATION: &str = "berth.dev/replication";
/// Names the target on a Job and its pod.
pub(super) const TARGET: &str = "berth.dev/target";
/// The number of a run, on its Job.
pub(super) const RUN: &str = "berth.dev/run";
/// What a run compares, on its Job.
pub(super) const COMPARISON: &str = "berth.dev/comparison";
/// On the Job of a run that goes on from a cursor, and compares nothing before.
pub(super) const CONTINUES: &str = "berth.dev/continues";
/// The time of the schedule for which a run began, on its Job.
pub(super) const SCHEDULED: &str = "berth.dev/scheduled";
/// Another value begins a run, on a Replication; the value for which it began, on a Job.
pub(super) const NOW: &str = "berth.dev/replicate-now";
/// Bytes of an annotation's value that are believed to be a run's.
pub(super) const MAX_VALUE: usize = 64;
/// The plan, on a pod.
const PLAN_ANNOTATION: &str = "berth.dev/plan";
/// The operator's CA, on a pod.
const CA_ANNOTATION: &str = "berth.dev/ca";

const CHANNEL: &str = "/etc/berth/channel";
/// How long a Job that ended is there to be looked at.
const KEPT_SECONDS: i32 = 900;
/// A run ends by itself when its time is over; a Job whose pod does not is ended so much later.
const DEADLINE_MARGIN: i64 = 60;
/// User and group in the container.
const USER: i64 = 65532;
const GRACE_SECONDS: i64 = 30;

/// What a Job is made of.
pub(super) struct Run<'a> {
    pub(super) replication: &'a Replication,
    pub(super) target: &'a str,
    pub(super) number: i64,
    pub(super) start: &'a Start,
    pub(super) plan: &'a Plan,
    pub(super) comparison: &'a str,
    pub(super) source: &'a End,
    pub(super) there: &'a End,
    /// The operator's CA.
    pub(super) ca: &'a str,
    pub(super) image: &'a str,
}

/// Labels of everything that belongs to one Replication.
pub(super) fn labels(replication: &Replication) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "berth-replication"),
        ("app.kubernetes.io/instance", &replication.name_any()),
        (MANAGED_BY, MANAGER),
        (REPLICATION, &replication.name_any()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Selects what belongs to any Replication.
pub(crate) fn any() -> String {
    format!("{REPLICATION},{MANAGED_BY}={MANAGER}")
}

/// Selects what belongs to this Replication.
pub(super) fn selector(replication: &Replication) -> String {
    format!("{REPLICATION}={},{MANAGED_BY}={MANAGER}", replication.name_any())
}

/// Metadata of an object that goes with the Replication.
pub(super) fn owned(replication: &Replication, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: replication.namespace(),
        labels: Some(labels(replication)),
        owner_references: replication.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// Name of the Secret with the pods' end of the channel. No Registry's object has a dot.
pub(super) fn channel_secret(replication: &Replication) -> String {
    format!("{}.channel", replication.name_any())
}

/// The name that a pod's end of the channel proves.
pub(super) fn channel_name(replication: &Replication) -> String {
    let namespace = replication.namespace().unwrap_or_default();
    format!("replication.{namespace}.{}.channel.berth", replication.name_any())
}

/// What tells a value of [`NOW`] from others: itself, or a hash of one that is long.
pub(super) fn now_value(value: &str) -> String {
    if value.len() <= MAX_VALUE { value.to_owned() } else { hex::encode(&Sha256::digest(value)[..8]) }
}

/// Name of the Job of this run.
pub(super) fn name(replication: &Replication, target: &str, number: i64) -> String {
    let uid = replication.uid().unwrap_or_default();
    let run = hex::encode(&Sha256::digest(format!("{uid}/{target}/{number}"))[..4]);
    format!("{}-{run}", replication.name_any())
}

/// The Job.
pub(super) fn job(run: &Run<'_>) -> Job {
    let metadata = owned(run.replication, name(run.replication, run.target, run.number));
    Job {
        metadata: ObjectMeta { labels: Some(labelled(run)), annotations: Some(annotations(run)), ..metadata },
        spec: Some(JobSpec {
            // The operator tries again, later and later, and tells of it.
            backoff_limit: Some(0),
            // Who is evicted has not failed.
            pod_failure_policy: Some(PodFailurePolicy { rules: vec![disrupted()] }),
            pod_replacement_policy: Some("Failed".into()),
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            active_deadline_seconds: deadline(run.plan),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labelled(run)),
                    annotations: Some(told(run)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(run)),
            },
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

fn labelled(run: &Run<'_>) -> BTreeMap<String, String> {
    let mut labels = labels(run.replication);
    labels.insert(TARGET.into(), run.target.into());
    labels
}

fn annotations(run: &Run<'_>) -> BTreeMap<String, String> {
    let Start { cursor, scheduled, now } = run.start;
    let all = [
        (RUN, Some(run.number.to_string())),
        (COMPARISON, Some(run.comparison.to_owned())),
        (CONTINUES, cursor.is_some().then(|| "true".to_owned())),
        (SCHEDULED, scheduled.map(|time| time.to_string())),
        (NOW, now.clone()),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// What the pod reads as files.
fn told(run: &Run<'_>) -> BTreeMap<String, String> {
    let plan = serde_json::json!(run.plan).to_string();
    let mut told = BTreeMap::from([(PLAN_ANNOTATION.to_owned(), plan)]);
    if trusts_berth(run) {
        told.insert(CA_ANNOTATION.into(), run.ca.into());
    }
    told
}

fn trusts_berth(run: &Run<'_>) -> bool {
    [run.source, run.there].iter().any(|end| end.trust == Trust::Berth)
}

fn disrupted() -> PodFailurePolicyRule {
    PodFailurePolicyRule {
        action: "Ignore".into(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
        }]),
        ..PodFailurePolicyRule::default()
    }
}

fn deadline(plan: &Plan) -> Option<i64> {
    let seconds = plan.limits.timeout_seconds.filter(|_| plan.follow.is_none())?;
    Some(i64::try_from(seconds).ok()?.saturating_add(DEADLINE_MARGIN))
}

fn pod(run: &Run<'_>) -> PodSpec {
    let (volumes, mounts) = volumes::volumes(run).into_iter().unzip();
    PodSpec {
        containers: vec![container(run, mounts)],
        restart_policy: Some("Never".into()),
        service_account_name: run.replication.spec.service_account_name.clone(),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn container(run: &Run<'_>, mounts: Vec<VolumeMount>) -> Container {
    let amounts = |amounts: [(&str, &str); 2]| {
        Some(amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.into()))).into())
    };
    Container {
        name: "replicate".into(),
        image: Some(run.image.into()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(arguments()),
        ports: Some(vec![port("channel", CHANNEL_PORT.into())]),
        resources: Some(ResourceRequirements {
            requests: amounts([("cpu", "50m"), ("memory", "48Mi")]),
            limits: amounts([("cpu", "1"), ("memory", "128Mi")]),
            ..ResourceRequirements::default()
        }),
        security_context: Some(hardened()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn arguments() -> Vec<String> {
    let channel = |file: &str| format!("{CHANNEL}/{file}");
    let options = [
        ("plan", format!("{PLAN}/{PLAN_FILE}")),
        ("channel-listen", format!("0.0.0.0:{CHANNEL_PORT}")),
        ("channel-cert", channel("tls.crt")),
        ("channel-key", channel("tls.key")),
        ("channel-ca", channel("ca.crt")),
        ("termination-log", "/dev/termination-log".to_owned()),
    ];
    let options = options.map(|(name, value)| format!("--{name}={value}"));
    std::iter::once("replicate".to_owned()).chain(options).collect()
}

#[cfg(test)]
mod tests;
