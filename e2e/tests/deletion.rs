//! What stays and what goes when a Registry is deleted.

use e2e::{
    Result, Space, ensure, image, node,
    owned::{ALL, CLAIM},
    pod,
    registry::{self, Who},
    remote::Remote,
    wait, with_namespace,
};
use serde_json::json;

/// Waits until no object of the Registry is left but perhaps its claim, and no file on any node.
async fn all_gone(space: &Space, name: &str, host: &str) -> Result<()> {
    for owned in &ALL {
        wait::gone(&space.dynamic(&owned.resource()), &owned.name(name)).await?;
    }
    for node in node::all(space).await? {
        let folder = format!("{}/{host}", node::CERTS);
        wait::poll(&format!("{folder} to be gone from {node}"), async || {
            ensure!(!node::exists(space, &node, &folder).await?, "it is there");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn retain_keeps_the_images_for_the_next_one() {
    with_namespace("retain", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let image = image::build("retain", &[200_000])?;
        Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:1").await?;
        let claims = space.dynamic(&CLAIM.resource());
        let claim = claims.get("demo-data").await?;

        registry::delete(space, "demo").await?;
        all_gone(space, "demo", &registry::endpoint(&registry)?).await?;
        let kept = claims.get("demo-data").await?;
        ensure!(kept.metadata.uid == claim.metadata.uid, "the claim is another one");
        ensure!(kept.metadata.deletion_timestamp.is_none(), "the claim is about to go");

        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let pulled = Remote::open(space, "demo", Who::Reader).await?.pull("app:1").await?;
        assert_eq!(pulled, image.digest);
        let workers = node::workers(space).await?;
        pod::run_on(
            space,
            &workers,
            &format!("{}/app:1", registry::endpoint(&registry)?),
            "demo-reader",
            "retain",
        )
        .await
    })
    .await;
}

#[tokio::test]
async fn delete_leaves_nothing() {
    with_namespace("delete", async |space| {
        let spec = json!({"storage": {"volume": {"size": "1Gi"}}, "deletionPolicy": "Delete"});
        let (registry, _) = registry::running(space, &registry::with_spec("demo", &spec)).await?;
        let host = registry::endpoint(&registry)?;
        for node in node::all(space).await? {
            let there = node::exists(space, &node, &format!("{}/{host}/hosts.toml", node::CERTS)).await?;
            ensure!(there, "{node} has no hosts.toml for {host} although the Registry is Ready");
        }
        let image = image::build("delete", &[1000])?;
        Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:1").await?;

        registry::delete(space, "demo").await?;
        all_gone(space, "demo", &host).await?;
        wait::gone(&space.dynamic(&CLAIM.resource()), "demo-data").await?;

        // A new one of the same name starts empty.
        registry::running(space, &registry::with_spec("demo", &spec)).await?;
        let pulled = Remote::open(space, "demo", Who::Admin).await?.pull("app:1").await;
        ensure!(pulled.is_err(), "the image is still there");
        Ok(())
    })
    .await;
}

/// Whoever deletes a namespace does not delete the Registries in it first.
#[tokio::test]
async fn a_deleted_namespace_does_not_hang() {
    with_namespace("namespace", async |space| {
        let doomed = space.another().await?;
        let (registry, _) = registry::running(&doomed, &registry::small("demo")).await?;
        let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(space.client.clone());
        namespaces.delete(&doomed.namespace, &kube::api::DeleteParams::default()).await?;
        wait::gone(&namespaces, &doomed.namespace).await?;
        all_gone(&doomed, "demo", &registry::endpoint(&registry)?).await
    })
    .await;
}
