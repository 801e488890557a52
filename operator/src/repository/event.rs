//! Events of a Repository.

use crds::RepositoryStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};

use super::status::UPDATING;

/// What a person would ask about later: that it can be used, and that its Registry does not have it.
pub(super) fn event(former: Option<&RepositoryStatus>, status: &RepositoryStatus) -> Option<Event> {
    let before = |type_| former.and_then(|former| find(former, type_));
    let (ready, accepted) = (find(status, "Ready")?, find(status, "Accepted")?);
    let was_used = before("Ready").is_some_and(|ready| ready.status == "True" || ready.reason == UPDATING);
    if ready.status == "True" && !was_used {
        return Some(of(ready, EventType::Normal));
    }
    let same = before("Accepted").is_some_and(|before| before.reason == accepted.reason);
    (accepted.status == "False" && !same).then(|| of(accepted, EventType::Warning))
}

fn of(condition: &Condition, type_: EventType) -> Event {
    Event {
        type_,
        reason: condition.reason.clone(),
        note: Some(condition.message.chars().take(1000).collect()),
        action: "Reconcile".into(),
        secondary: None,
    }
}

fn find<'a>(status: &'a RepositoryStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}
