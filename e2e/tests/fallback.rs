//! A Registry that is stopped, and another one that has the same images.

use crds::Registry;
use e2e::{
    Context as _, Result, Space, ensure, image, node, operator,
    outside::Outside,
    pod,
    registry::{self, Who},
    remote::Remote,
    repository, wait, with_namespace, with_whole_cluster,
};
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// Hosts outside of the cluster to which nodes may turn.
const GRANTED: &str = "BERTH_FALLBACK_HOSTS";

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
async fn known_to_nodes(space: &Space, nodes: &[String], demo: &Registry, host: &str) -> Result<()> {
    let path = format!("{}/{}/hosts.toml", node::CERTS, registry::endpoint(demo)?);
    for node in nodes {
        wait::poll("the node to know the fallback", async || {
            let file = node::read(space, node, &path).await?;
            ensure!(file.contains(&format!("[host.\"https://{host}\"]")), "{node} has {file}");
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
        let address = other.status.as_ref().and_then(|status| status.cluster_ip.clone());
        let address = format!("{}:{}", address.context("no address")?, other.spec.service.port);
        known_to_nodes(space, &workers, &demo, &address).await?;
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

/// A registry outside of the cluster stands in for what is public, where the operator's configuration names its host.
#[tokio::test]
async fn nodes_turn_to_a_registry_outside_of_the_cluster_for_what_is_public() {
    with_whole_cluster("outside_fallback", async |space| {
        let Some(outside) = Outside::start(space).await? else { return Ok(()) };
        let spec = json!({
            "storage": {"volume": {"size": "1Gi"}},
            "fallbacks": [{"endpoint": {"url": outside.url(), "ca": outside.ca}}],
        });
        registry::apply(space, &registry::with_spec("demo", &spec)).await?;
        let demo = registry::condition(space, "demo", "FallbacksReady", "False").await?;
        let why = registry::why(&demo, "FallbacksReady");
        ensure!(why.starts_with("HostNotGranted: "), "it says: {why}");
        let demo = registry::ready(space, "demo").await?;
        repository::ready(space, &repository::with_spec("web", &json!({"visibility": "Public"}))).await?;
        repository::ready(space, &repository::with_spec("shared", &json!({"visibility": "Cluster"}))).await?;
        let image = image::build("outside", &[1000])?;
        let name = format!("{}/web:1", space.namespace);
        Remote::open(space, "demo", Who::Admin).await?.push(&image, &name).await?;
        outside.push(&image, &name).await?;

        let host = outside.url().replacen("https://", "", 1);
        operator::configure(space, GRANTED, Some(&host)).await?;
        let turned = turns_to(space, &demo, &host, &name).await;
        operator::configure(space, GRANTED, None).await?;
        turned?;
        let demo = registry::condition(space, "demo", "FallbacksReady", "False").await?;
        ensure!(demo.status.is_some_and(|status| status.fallbacks.is_empty()), "it stands in all the same");
        Ok(())
    })
    .await;
}

async fn turns_to(space: &Space, demo: &Registry, host: &str, name: &str) -> Result<()> {
    let ready = registry::condition(space, "demo", "FallbacksReady", "True").await?;
    let why = registry::why(&ready, "FallbacksReady");
    ensure!(why.contains(&format!("at {host}, only what is Public")), "it says: {why}");
    let workers = node::workers(space).await?;
    known_to_nodes(space, &workers, demo, host).await?;
    // Nodes show it no credential of theirs.
    let path = format!("{}/{}/hosts.toml", node::CERTS, registry::endpoint(demo)?);
    let file = node::read(space, &workers[0], &path).await?;
    let of_outside = file.split_once(&format!("[host.\"https://{host}\"]")).context("not there")?.1;
    ensure!(file.contains("Authorization") && !of_outside.contains("Authorization"), "{file}");

    stop(space, "demo").await?;
    let reference = format!("{}/{name}", registry::endpoint(demo)?);
    for worker in &workers {
        pod::start(space, &pod::name_on(worker), worker, &reference, None).await?;
        pod::running(space, &pod::name_on(worker)).await?;
        pod::expect_seed(space, &pod::name_on(worker), "outside").await?;
    }
    Ok(())
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
