//! A Registry that is stopped, and another one that has the same images.

use crds::Registry;
use e2e::{
    Context as _, Result, Space, ensure, image, node, pod,
    registry::{self, Who},
    remote::Remote,
    repository, wait, with_namespace,
};
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// `demo`, which falls back on `other`.
async fn pair(space: &Space) -> Result<[Registry; 2]> {
    registry::apply(space, &registry::small("other")).await?;
    let spec = json!({
        "storage": {"volume": {"size": "1Gi"}},
        "fallbacks": [{"registryRef": {"name": "other"}}],
    });
    registry::apply(space, &registry::with_spec("demo", &spec)).await?;
    let demo = registry::ready(space, "demo").await?;
    let other = registry::ready(space, "other").await?;
    registry::condition(space, "demo", "FallbacksReady", "True").await?;
    Ok([demo, other])
}

/// Waits until the nodes know where else to turn.
async fn known_to_nodes(space: &Space, nodes: &[String], demo: &Registry, other: &Registry) -> Result<()> {
    let address = other.status.as_ref().and_then(|status| status.cluster_ip.clone()).context("no address")?;
    let path = format!("{}/{}/hosts.toml", node::CERTS, registry::endpoint(demo)?);
    for node in nodes {
        wait::poll("the node to know the fallback", async || {
            let file = node::read(space, node, &path).await?;
            ensure!(file.contains(&format!("[host.\"https://{address}:")), "{node} has {file}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Stops the Registry and waits until nothing of it answers.
async fn stop(space: &Space, name: &str) -> Result<()> {
    registry::change(space, name, json!({"replicas": 0})).await?;
    registry::condition(space, name, "Available", "False").await?;
    wait::gone(&space.api::<Pod>(), &format!("{name}-0")).await
}

#[tokio::test]
async fn pulls_go_on_while_a_registry_is_stopped() {
    with_namespace("fallback", async |space| {
        let [demo, other] = pair(space).await?;
        let own = json!({"pullSecrets": [{"name": "pull"}]});
        repository::ready(space, &repository::with_spec("web", &own)).await?;
        let shared = json!({"visibility": "Cluster"});
        repository::ready(space, &repository::with_spec("shared", &shared)).await?;
        let image = image::build("fallback", &[1000])?;
        for name in ["demo", "other"] {
            let remote = Remote::open(space, name, Who::Admin).await?;
            for repository in ["web", "shared"] {
                remote.push(&image, &format!("{}/{repository}:1", space.namespace)).await?;
            }
            remote.push(&image, "private:1").await?;
        }

        // Who may read at the one reads the same at the other, and does nothing else.
        let login = repository::login(space, "pull").await?;
        let guest = Remote::with_login(space, &other, Some(&login)).await?;
        guest.http().answered(&format!("/v2/{}/web/manifests/1", space.namespace), StatusCode::OK).await?;
        let upload = format!("/v2/{}/web/blobs/uploads/", space.namespace);
        assert_eq!(guest.http().send(Method::POST, &upload, "").await?.status, StatusCode::FORBIDDEN);
        for repository in ["shared", "none"] {
            let path = format!("/v2/{}/{repository}/manifests/1", space.namespace);
            assert_eq!(guest.http().send(Method::GET, &path, "").await?.status, StatusCode::FORBIDDEN);
        }
        let reader = registry::login(space, "demo", Who::Reader).await?;
        let guest = Remote::with_login(space, &other, reader.as_ref()).await?;
        guest.http().answered(&format!("/v2/{}/web/manifests/1", space.namespace), StatusCode::OK).await?;
        let undeclared = guest.http().send(Method::GET, "/v2/private/manifests/1", "").await?;
        assert_eq!(undeclared.status, StatusCode::FORBIDDEN, "what no Repository of the primary declares");

        let workers = node::workers(space).await?;
        known_to_nodes(space, &workers, &demo, &other).await?;
        stop(space, "demo").await?;
        let reference = |name: &str| -> Result<String> {
            Ok(format!("{}/{}/{name}:1", registry::endpoint(&demo)?, space.namespace))
        };
        for secret in ["pull", "demo-reader"] {
            pod::run_on(space, &workers, &reference("web")?, secret, "fallback").await?;
        }
        for worker in &workers {
            pod::start(space, &pod::name_on(worker), worker, &reference("shared")?, None).await?;
            pod::running(space, &pod::name_on(worker)).await?;
            pod::expect_seed(space, &pod::name_on(worker), "fallback").await?;
        }
        pod::start(space, "stranger", &workers[0], &reference("web")?, None).await?;
        pod::refused(space, "stranger").await?;

        registry::change(space, "demo", json!({"replicas": 1})).await?;
        registry::ready(space, "demo").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn what_keeps_a_fallback_from_standing_in_is_said_and_heals() {
    with_namespace("fallback_missing", async |space| {
        let spec = json!({
            "storage": {"volume": {"size": "1Gi"}},
            "fallbacks": [{"registryRef": {"name": "other"}}],
        });
        registry::apply(space, &registry::with_spec("demo", &spec)).await?;
        let demo = registry::condition(space, "demo", "FallbacksReady", "False").await?;
        let why = registry::why(&demo, "FallbacksReady");
        ensure!(why.starts_with("RegistryNotFound: there is no Registry other"), "it says: {why}");
        registry::ready(space, "demo").await?;

        registry::apply(space, &registry::small("other")).await?;
        let demo = registry::condition(space, "demo", "FallbacksReady", "True").await?;
        let fallbacks = demo.status.map(|status| status.fallbacks).unwrap_or_default();
        assert_eq!(fallbacks, [format!("other.{}.svc:5000", space.namespace)]);

        registry::change(space, "other", json!({"replicas": 0})).await?;
        let demo = registry::condition(space, "demo", "FallbacksReady", "False").await?;
        let why = registry::why(&demo, "FallbacksReady");
        ensure!(why.starts_with("FallbackDown: "), "it says: {why}");
        Ok(())
    })
    .await;
}
