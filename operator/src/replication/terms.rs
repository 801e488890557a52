//! What a spec says, parsed: what the API server can't check is wrong here, with a sentence.

use crds::{
    ReplicationSpec,
    replication::{Deletions, TriggerType},
};
use jiff::SignedDuration;

use super::{grant::Role, pattern, schedule::Schedule};
use crate::{conditions::Answer, durations::duration, quantity};

/// How often everything is compared although no push was heard of.
const RESYNC: SignedDuration = SignedDuration::from_hours(6);

/// A spec that can be carried out.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) trigger: Trigger,
    pub(super) timeout: Option<SignedDuration>,
    pub(super) bytes_per_second: Option<u64>,
}

/// When runs begin.
#[derive(Clone, Debug)]
pub(super) enum Trigger {
    /// As images are pushed, and so often besides.
    OnPush { resync: SignedDuration },
    /// At certain times.
    Schedule(Box<Schedule>),
    /// When told so.
    Manual,
}

impl Terms {
    /// What the spec says, or what is wrong with it.
    pub(super) fn parse(spec: &ReplicationSpec) -> Result<Self, Answer> {
        if let Some(range) = &spec.filters.tags.semver
            && let Err(error) = semver::VersionReq::parse(range)
        {
            let sentence =
                format!("filters.tags.semver is no range of versions such as `>=1.2, <2`: {error}");
            return Err(Answer::no("InvalidVersions", sentence));
        }
        Ok(Self {
            trigger: trigger(spec)?,
            timeout: spec.limits.timeout.as_deref().map(|text| span("limits.timeout", text)).transpose()?,
            bytes_per_second: spec.limits.bytes_per_second.as_deref().map(bytes).transpose()?,
        })
    }
}

fn trigger(spec: &ReplicationSpec) -> Result<Trigger, Answer> {
    let foreign = spec.source.registry_ref.is_none();
    match (spec.trigger.type_, &spec.trigger.schedule) {
        (TriggerType::OnPush, _) if foreign => Err(Answer::no(
            "NotABerthRegistry",
            "only Registries of this cluster tell of pushes: use trigger.type Schedule or Manual for this source, or declare the Replication in the source's own cluster",
        )),
        (TriggerType::OnPush, _) => {
            let text = spec.trigger.resync_interval.as_deref();
            let resync = text.map_or(Ok(RESYNC), |text| span("trigger.resyncInterval", text))?;
            Ok(Trigger::OnPush { resync })
        }
        (TriggerType::Schedule, Some(schedule)) => {
            Schedule::parse(schedule).map(Box::new).map(Trigger::Schedule)
        }
        (TriggerType::Schedule, None) => Err(Answer::no("InvalidSchedule", "trigger.schedule is missing")),
        (TriggerType::Manual, _) => Ok(Trigger::Manual),
    }
}

fn span(field: &str, text: &str) -> Result<SignedDuration, Answer> {
    let span = duration(text).and_then(|span| span.try_into().ok());
    span.ok_or_else(|| Answer::no("InvalidDuration", format!("{field} is no duration such as 6h")))
}

fn bytes(text: &str) -> Result<u64, Answer> {
    let bytes = quantity::bytes(text).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| {
        Answer::no("InvalidQuantity", "limits.bytesPerSecond is no quantity of bytes such as 10Mi")
    })
}

/// What is wrong where source and target are the same registry: copies would be copied again and again.
pub(super) fn circular(spec: &ReplicationSpec) -> Option<Answer> {
    let prefix = spec.destination.prefix.as_deref();
    let apart = prefix.is_some_and(|prefix| !pattern::may_pass_below(&spec.filters.repositories, prefix));
    (!apart).then(|| {
        Answer::no(
            "TargetIsSource",
            "the target is the source: name another one, or give destination.prefix and filters.repositories that let nothing below that prefix pass",
        )
    })
}

/// What the service account has to be granted at the target.
pub(super) fn role_at_target(spec: &ReplicationSpec) -> Role {
    Role::Target { deletes: spec.deletions == Deletions::Propagate }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::replication;

    #[rstest]
    #[case(json!({}), true)]
    #[case(json!({"destination": {"flatten": 1}}), true)]
    #[case(json!({"destination": {"prefix": "mirror"}}), true)]
    #[case(json!({"destination": {"prefix": "mirror"}, "filters": {"repositories": ["team/**"]}}), false)]
    fn copies_are_not_copied_again(#[case] fields: Value, #[case] circular: bool) {
        assert_eq!(super::circular(&replication("apps", &fields).spec).is_some(), circular);
    }

    #[rstest]
    #[case(json!({}), None)]
    #[case(json!({"filters": {"tags": {"semver": ">=1.2, <2"}}}), None)]
    #[case(json!({"filters": {"tags": {"semver": "newer"}}}), Some("InvalidVersions"))]
    #[case(json!({"limits": {"bytesPerSecond": "10Mi", "timeout": "2h"}}), None)]
    #[case(json!({"source": {"endpoint": {"url": "https://ghcr.io"}}}), Some("NotABerthRegistry"))]
    #[case(json!({"source": {"endpoint": {"url": "https://ghcr.io"}}, "trigger": {"type": "Manual"}}), None)]
    #[case(json!({"trigger": {"type": "Schedule", "schedule": {"cron": "x x x x x"}}}), Some("InvalidSchedule"))]
    fn what_the_api_server_cannot_check_is_said(#[case] fields: Value, #[case] reason: Option<&str>) {
        let wrong = Terms::parse(&replication("apps", &fields).spec).err();
        assert_eq!(wrong.as_ref().map(|answer| &*answer.reason), reason);
    }
}
