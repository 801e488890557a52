//! A Registry is stopped and started again; its images stay.

use crds::Registry;
use e2e::{
    Result, Space, ensure, image, node, pod,
    registry::{self, Who},
    remote::Remote,
    wait, with_namespace,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// As `kubectl scale` does it.
async fn scale(space: &Space, replicas: i32) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    space.api::<Registry>().patch_scale("demo", &PatchParams::default(), &patch).await?;
    Ok(())
}

#[tokio::test]
async fn a_stopped_registry_keeps_its_images() {
    with_namespace("scale", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let image = image::build("scale", &[1 << 20])?;
        Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:1").await?;

        scale(space, 0).await?;
        wait::gone(&space.api::<Pod>(), "demo-0").await?;
        let stopped = registry::condition(space, "demo", "Ready", "False").await?;
        let why = registry::why(&stopped, "Ready");
        ensure!(why.starts_with("Stopped: "), "it says {why}");
        let none = |registry: &Registry| {
            registry.status.as_ref().is_some_and(|status| (status.replicas, status.ready_replicas) == (0, 0))
        };
        wait::until(&space.api(), "demo", "the status to count no replicas", none).await?;

        scale(space, 1).await?;
        registry::ready(space, "demo").await?;
        assert_eq!(Remote::open(space, "demo", Who::Reader).await?.pull("app:1").await?, image.digest);
        let workers = node::workers(space).await?;
        pod::run_on(
            space,
            &workers,
            &format!("{}/app:1", registry::endpoint(&registry)?),
            "demo-reader",
            "scale",
        )
        .await
    })
    .await;
}
