//! Secrets that Berth delivers: when they come, what is in their way, and how pods get to use them.

use std::time::{Duration, Instant};

use crds::{Registry, Repository};
use e2e::{
    Result, Space, ensure, image, node, pod,
    registry::{self, Login, Who},
    remote::Remote,
    repository, wait, with_namespace,
};
use http::StatusCode;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

/// Secrets are there and attached within this.
const DELIVERED: Duration = Duration::from_secs(5);

async fn demo(space: &Space) -> Result<Registry> {
    Ok(registry::running(space, &registry::small("demo")).await?.0)
}

/// Secrets are there and attached, and open the registry, within seconds after a Repository or a namespace came.
#[tokio::test]
async fn secrets_appear_within_seconds() {
    with_namespace("soon", async |space| {
        let registry = demo(space).await?;
        let spec = json!({"pullSecrets": [{
            "name": "pull",
            "namespaces": {"names": [space.namespace], "selector": {"matchLabels": {"team": "web"}}},
            "serviceAccounts": {"names": ["default"]},
        }]});
        repository::apply(space, &repository::with_spec("app", &spec)).await?;
        let declared = Instant::now();
        let login = delivered(space, declared).await?;
        let labels = [("team", "web"), ("berth.dev/accept-secrets-from", space.namespace.as_str())];
        let later = space.labelled(&labels).await?;
        let created = Instant::now();
        let other = delivered(&later, created).await?;
        ensure!(login.password != other.password, "two copies have the same password");
        let tags = format!("/v2/{}/app/tags/list", space.namespace);
        for login in [login, other] {
            let remote = Remote::with_login(space, &registry, Some(&login)).await?;
            remote.http().answered(&tags, StatusCode::NOT_FOUND).await?;
        }
        Ok(())
    })
    .await;
}

/// The login of the Secret `pull`, which is there and attached in time.
async fn delivered(space: &Space, since: Instant) -> Result<Login> {
    let login = repository::login(space, "pull").await?;
    repository::attached(space, "default", "pull", true).await?;
    let took = since.elapsed();
    eprintln!("a Secret was there and attached after {took:.1?}");
    ensure!(took < DELIVERED, "the Secret was there and attached after {took:.1?}");
    Ok(login)
}

/// A Secret that somebody made is neither changed nor handed out; Berth's own comes once it is gone.
#[tokio::test]
async fn somebody_elses_secret_is_left_alone_and_reported() {
    with_namespace("foreign_secret", async |space| {
        demo(space).await?;
        let metadata = json!({"name": "pull"});
        let theirs = serde_json::from_value(json!({"metadata": metadata, "stringData": {"of": "somebody"}}))?;
        let secrets = space.api::<Secret>();
        let theirs = secrets.create(&PostParams::default(), &theirs).await?;
        let spec = json!({"pullSecrets": [{"name": "pull"}]});
        repository::apply(space, &repository::with_spec("app", &spec)).await?;
        let told = |repository: &Repository| {
            let said = repository::find(repository, "SecretsReady");
            said.is_some_and(|it| it.status == "False" && it.message.contains("Secret pull exists"))
        };
        wait::until(&space.api(), "app", "the Secret in the way to be reported", told).await?;
        assert_eq!(secrets.get("pull").await?, theirs);

        secrets.delete("pull", &DeleteParams::default()).await?;
        repository::condition(space, "app", "SecretsReady", "True").await?;
        let ours = secrets.get("pull").await?;
        ensure!(repository::in_secret(&ours).is_ok(), "no login in the Secret");

        // The Repository takes its own along, and nothing else.
        repository::delete(space, "app").await?;
        wait::gone(&secrets, "pull").await
    })
    .await;
}

/// A pod that names Secrets of its own gets the one that it needs besides, and only where its image is from there.
#[tokio::test]
async fn a_pod_that_names_its_own_secrets_gets_ours_as_well() {
    with_namespace("own_secrets", async |space| {
        let registry = demo(space).await?;
        let secret = json!({"name": "pull", "serviceAccounts": {"names": ["default"]}});
        let spec = json!({"pullSecrets": [secret]});
        repository::ready(space, &repository::with_spec("app", &spec)).await?;
        let name = format!("{}/app:1", space.namespace);
        let image = image::build("own secrets", &[1000])?;
        Remote::open(space, "demo", Who::Admin).await?.push(&image, &name).await?;
        let endpoint = registry::endpoint(&registry)?;
        let worker = node::workers(space).await?.remove(0);

        let pod = pod::start(space, "own", &worker, &format!("{endpoint}/{name}"), Some("mine")).await?;
        assert_eq!(named(&pod), ["mine", "pull"]);
        pod::running(space, "own").await?;
        for image in [format!("{endpoint}/other/app:1"), "registry.example/app:1".into()] {
            let pod = pod::start(space, "elsewhere", &worker, &image, Some("mine")).await?;
            assert_eq!(named(&pod), ["mine"], "{image}");
            pod::remove(space, "elsewhere").await?;
        }
        Ok(())
    })
    .await;
}

/// The Secrets that a pod pulls with.
fn named(pod: &Pod) -> Vec<&str> {
    let secrets = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    secrets.map(|secret| secret.name.as_str()).collect()
}
