//! Events of a Registry.

use crds::RegistryStatus;
use kube::runtime::events::{Event, EventType};

/// What a person would ask about later: that it became ready, that it is no longer, what has to be mended.
pub(super) fn event(former: Option<&RegistryStatus>, status: &RegistryStatus) -> Option<Event> {
    let ready = status.conditions.first()?;
    let before = former.and_then(|former| former.conditions.first());
    let on_its_way =
        ["Starting", "NodesPending", "PolicyNotApplied", "Stopped"].contains(&ready.reason.as_str());
    let was_ready = before.is_some_and(|before| before.status == "True");
    let same = before.is_some_and(|before| before.reason == ready.reason);
    let type_ = match ready.status.as_str() {
        "True" if !was_ready => EventType::Normal,
        "False" if !same && (was_ready || !on_its_way) => EventType::Warning,
        _ => return None,
    };
    Some(Event {
        type_,
        reason: ready.reason.clone(),
        note: Some(ready.message.chars().take(1000).collect()),
        action: "Reconcile".into(),
        secondary: None,
    })
}
