//! The serving pods of a Registry: whether each is ready, and decides by the current policy.

use std::net::{IpAddr, SocketAddr};

use channel::{
    client::Client,
    policy::{Policy, ReplicaStatus},
};
use crds::Registry;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};

use crate::{
    context::Context,
    desired::workload::{CHANNEL_PORT, selector_text},
    names,
};

/// Characters of what a replica says that are logged.
const MAX_REASON: usize = 200;

/// One serving pod.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) pod: String,
    /// The kubelet finds it ready.
    pub(crate) ready: bool,
    /// What it says of itself, or why it can't be asked.
    pub(crate) status: Result<ReplicaStatus, String>,
    /// What the kubelet says of a container that does not run.
    pub(crate) waiting: Option<String>,
}

/// Finds the Registry's pods and brings the policy to each.
pub(crate) async fn sync(
    context: &Context,
    registry: &Registry,
    policy: &Policy,
) -> Result<Vec<Replica>, kube::Error> {
    let api = Api::<Pod>::namespaced(context.applier.client.clone(), &names::namespace(registry));
    let pods =
        api.list(&ListParams::default().labels(&selector_text(&names::pod_selector(registry)))).await?;
    let client = context.channel().map_err(|error| error.to_string());
    let name = names::channel(registry);
    // Labels can be on any pod; a StatefulSet's pods have these names, so there are no more than replicas.
    let expected: Vec<_> = (0..registry.spec.replicas)
        .map(|ordinal| names::with_suffix(registry, &ordinal.to_string()))
        .collect();
    let serving = pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let serving = serving.filter(|pod| expected.contains(&pod.name_any()));
    let asked = serving.map(async |pod| {
        let status = match (&client, address(pod)) {
            (Err(error), _) => Err(error.clone()),
            (Ok(_), None) => Err("it has no address yet".to_owned()),
            (Ok(client), Some(address)) => {
                bring(client, address, &name, policy).await.map_err(|error| error.to_string())
            }
        };
        Replica { pod: pod.name_any(), ready: is_ready(pod), waiting: waiting(pod), status }
    });
    Ok(futures::future::join_all(asked).await)
}

/// A replica that is too busy to say how it is doing gets the policy all the same: it may shut somebody out.
async fn bring(
    client: &Client,
    address: SocketAddr,
    name: &str,
    policy: &Policy,
) -> Result<ReplicaStatus, channel::client::Error> {
    let asked: Result<ReplicaStatus, _> = client.get(address, name, "/v1/status").await;
    let status = match asked {
        Ok(status) if has(&status, policy) => status,
        _ => client.put(address, name, "/v1/policy", policy).await?,
    };
    if let Some(reason) = status.left_out.first() {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        tracing::error!(replica = name, reason, "a login of the policy does not count");
    }
    Ok(status)
}

/// Whether every replica that there should be decides by the policy.
pub(crate) fn all_have(registry: &Registry, replicas: &[Replica], policy: &Policy) -> bool {
    let having =
        replicas.iter().filter(|replica| replica.status.as_ref().is_ok_and(|status| has(status, policy)));
    !replicas.is_empty() && having.count() == usize::try_from(registry.spec.replicas).unwrap_or_default()
}

/// Whether a replica decides by the policy, after a restart too.
fn has(status: &ReplicaStatus, policy: &Policy) -> bool {
    status.policy_revision.as_deref() == Some(&policy.revision()) && !status.policy_unsaved
}

/// Where a pod's channel listens, once it has an address.
pub(crate) fn address(pod: &Pod) -> Option<SocketAddr> {
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    Some(SocketAddr::new(ip, CHANNEL_PORT))
}

/// The kubelet finds the pod ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why a pod does not run: `ImagePullBackOff: …`, or the scheduler's sentence.
pub(crate) fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        // On the way, and no news.
        let reason = waiting
            .reason
            .clone()
            .filter(|reason| reason != "ContainerCreating" && reason != "PodInitializing")?;
        Some(waiting.message.as_ref().map_or(reason.clone(), |message| format!("{reason}: {message}")))
    });
    container.or_else(|| {
        let conditions = status.conditions.iter().flatten();
        let unscheduled =
            conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        unscheduled.message.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_not_kept_is_sent_again() {
        let policy = Policy::default();
        let status = ReplicaStatus { policy_revision: Some(policy.revision()), ..ReplicaStatus::default() };
        assert!(has(&status, &policy));
        assert!(!has(&ReplicaStatus { policy_unsaved: true, ..status }, &policy));
        assert!(!has(&ReplicaStatus::default(), &policy));
    }
}
