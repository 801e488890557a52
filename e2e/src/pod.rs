//! Pods that run an image of a Registry.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerState, Event, Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
};
use serde_json::json;

use crate::{cluster::Space, wait};

/// Where operator and registries serve their metrics.
const METRICS_PORT: u16 = 8081;

/// Starts a pod with the image on the node. It pulls afresh, with that Secret or without any.
pub async fn start(
    space: &Space,
    name: &str,
    node: &str,
    image: &str,
    pull_secret: Option<&str>,
) -> Result<Pod> {
    let secrets: Vec<_> = pull_secret.iter().map(|name| json!({"name": name})).collect();
    let pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [{"operator": "Exists"}],
            "imagePullSecrets": secrets,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image, "imagePullPolicy": "Always"}],
        },
    }))?;
    Ok(space.api::<Pod>().create(&PostParams::default(), &pod).await?)
}

/// Waits until the pod's container runs, and returns the pod.
pub async fn running(space: &Space, name: &str) -> Result<Pod> {
    running_within(space, name, wait::LIMIT).await
}

/// The same where the pull takes long.
pub async fn running_within(space: &Space, name: &str, limit: Duration) -> Result<Pod> {
    let running = |pod: &Pod| state(pod).is_some_and(|state| state.running.is_some());
    wait::until_within(limit, &space.api(), name, "the pod to run its image", running).await
}

/// What the cluster has reported as failures of this pod.
pub async fn failures(space: &Space, name: &str) -> Result<Vec<String>> {
    let of_pod = format!("involvedObject.kind=Pod,involvedObject.name={name},type=Warning");
    let events = space.api::<Event>().list(&ListParams::default().fields(&of_pod)).await?;
    Ok(events.into_iter().filter_map(|event| event.message).collect())
}

/// Waits until the node has begun to pull the pod's image.
pub async fn pulling(space: &Space, name: &str) -> Result<()> {
    let of_pod = format!("involvedObject.kind=Pod,involvedObject.name={name},reason=Pulling");
    wait::poll(&format!("pod {name} to be pulled"), async || {
        let events = space.api::<Event>().list(&ListParams::default().fields(&of_pod)).await?;
        ensure!(!events.items.is_empty(), "the node does not pull");
        Ok(())
    })
    .await
}

/// The metrics of one of our pods, as text.
pub async fn metrics(space: &Space, name: &str) -> Result<String> {
    let namespace = &space.namespace;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{METRICS_PORT}/proxy/metrics");
    Ok(space.client.request_text(http::Request::get(path).body(Vec::new())?).await?)
}

/// Waits until the pod's image could not be pulled, and returns what the node says about it: which image, and why.
pub async fn refused(space: &Space, name: &str) -> Result<String> {
    let refusal = |pod: &Pod| {
        let waiting = state(pod)?.waiting?;
        let refused = waiting.reason.as_deref() == Some("ErrImagePull");
        refused.then(|| waiting.message.unwrap_or_default())
    };
    let pod = wait::until(&space.api(), name, "the image to be refused", |pod: &Pod| refusal(pod).is_some())
        .await?;
    let said = refusal(&pod).context("not refused any more")?;
    let image = pod.spec.and_then(|spec| spec.containers.into_iter().next()?.image).context("no image")?;
    ensure!(said.contains(&image), "the node does not say which image was refused: {said}");
    Ok(said)
}

/// Fails unless the pod runs the image that was made from this seed.
pub async fn expect_seed(space: &Space, name: &str, seed: &str) -> Result<()> {
    let pods = space.api::<Pod>();
    wait::poll("the container to print its seed", async || {
        let log = pods.logs(name, &LogParams::default()).await?;
        ensure!(!log.is_empty(), "pod {name} has printed nothing");
        Ok(log)
    })
    .await
    .and_then(|log| {
        ensure!(log.trim() == seed, "pod {name} runs the image {log:?} instead of {seed:?}");
        Ok(())
    })
}

/// Starts a pod on each node, waits until all run the image of this seed, and removes them.
pub async fn run_on(
    space: &Space,
    nodes: &[String],
    image: &str,
    pull_secret: &str,
    seed: &str,
) -> Result<()> {
    for node in nodes {
        start(space, &name_on(node), node, image, Some(pull_secret)).await?;
    }
    for node in nodes {
        running(space, &name_on(node)).await?;
        expect_seed(space, &name_on(node), seed).await?;
    }
    for node in nodes {
        remove(space, &name_on(node)).await?;
    }
    Ok(())
}

/// Starts a pod that stays, so that this node's kubelet knows the Secret.
///
/// A kubelet waits one second for a Secret that no pod of its node uses yet, and then pulls without it. That may happen to
/// anybody's first pod on a loaded cluster and is made up for by the next try, but tests that allow no failure start here.
pub async fn make_known(space: &Space, node: &str, image: &str, pull_secret: &str) -> Result<()> {
    start(space, &name_on(node), node, image, Some(pull_secret)).await?;
    running(space, &name_on(node)).await?;
    Ok(())
}

/// Removes the pod and waits until it is gone; nothing happens where there is none.
pub async fn remove(space: &Space, name: &str) -> Result<()> {
    match space.api::<Pod>().delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        result => drop(result?),
    }
    wait::gone(&space.api::<Pod>(), name).await
}

/// What the pods that run on this node are called.
#[must_use]
pub fn name_on(node: &str) -> String {
    format!("on-{node}")
}

/// The serving pod of a Registry, once it is ready and is not the one with this uid.
pub async fn serving(space: &Space, registry: &str, former: Option<&Pod>) -> Result<Pod> {
    let former = former.and_then(ResourceExt::uid);
    let ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
        ready && pod.metadata.deletion_timestamp.is_none() && pod.uid() != former
    };
    wait::until(&space.api(), &format!("{registry}-0"), "the registry's pod to serve", ready).await
}

fn state(pod: &Pod) -> Option<ContainerState> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.clone()
}
