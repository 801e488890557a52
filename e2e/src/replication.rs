//! Replications: applied, waited for, and what they say of their targets.

use anyhow::Result;
use crds::{Replication, ReplicationSpec, replication::TargetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::{MANAGER, Space},
    wait,
};

/// Applies a Replication with this spec.
///
/// # Panics
///
/// When the spec is none.
pub async fn apply(space: &Space, name: &str, spec: &Value) -> Result<Replication> {
    let spec = match serde_json::from_value::<ReplicationSpec>(spec.clone()) {
        Ok(spec) => spec,
        Err(error) => panic!("{spec} is no spec of a Replication: {error}"),
    };
    let replication = Replication::new(name, spec);
    let parameters = PatchParams::apply(MANAGER).force();
    Ok(space
        .api::<Replication>()
        .patch(&replication.name_any(), &parameters, &Patch::Apply(&replication))
        .await?)
}

/// Begins a run; `word` has to be another one each time.
pub async fn begin(space: &Space, name: &str, word: &str) -> Result<()> {
    let now = json!({"metadata": {"annotations": {"berth.dev/replicate-now": word}}});
    space.api::<Replication>().patch(name, &PatchParams::default(), &Patch::Merge(now)).await?;
    Ok(())
}

/// Waits until something holds of the first target's status.
pub async fn target(
    space: &Space,
    name: &str,
    what: &str,
    holds: impl Fn(&TargetStatus) -> bool,
) -> Result<TargetStatus> {
    target_where(space, name, |_| true, what, holds).await
}

/// The same of the target of this name.
pub async fn target_named(
    space: &Space,
    name: &str,
    target: &str,
    what: &str,
    holds: impl Fn(&TargetStatus) -> bool,
) -> Result<TargetStatus> {
    target_where(space, name, |status| status.name == target, what, holds).await
}

async fn target_where(
    space: &Space,
    name: &str,
    which: impl Fn(&TargetStatus) -> bool,
    what: &str,
    holds: impl Fn(&TargetStatus) -> bool,
) -> Result<TargetStatus> {
    let of = |replication: &Replication| {
        let targets = replication.status.iter().flat_map(|status| &status.targets);
        targets.into_iter().find(|target| which(target)).cloned()
    };
    let found = wait::until(&space.api(), name, what, |replication: &Replication| {
        of(replication).is_some_and(|target| holds(&target))
    })
    .await?;
    Ok(of(&found).unwrap_or_default())
}

/// Waits until the Replication is not ready for this reason, and returns the message.
pub async fn not_ready(space: &Space, name: &str, reason: &str) -> Result<String> {
    let what = format!("it not to be ready for {reason}");
    let replication = wait::until(&space.api(), name, &what, |replication: &Replication| {
        find(replication, "Ready").is_some_and(|it| it.status == "False" && it.reason == reason)
    })
    .await?;
    Ok(find(&replication, "Ready").map(|it| it.message.clone()).unwrap_or_default())
}

/// Waits until the Replication is ready.
pub async fn ready(space: &Space, name: &str) -> Result<Replication> {
    wait::until(&space.api(), name, "it to be ready", |replication: &Replication| {
        find(replication, "Ready").is_some_and(|it| it.status == "True")
    })
    .await
}

fn find<'a>(replication: &'a Replication, type_: &str) -> Option<&'a Condition> {
    replication.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}
