//! A Registry is applied, an image pushed, and pods on all workers run it.

use std::time::Instant;

use e2e::{
    ensure, image, node, operator, pod,
    registry::{self, Who},
    remote::Remote,
    wait, with_namespace,
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::ListParams};

#[tokio::test]
async fn pods_on_all_workers_run_a_pushed_image() {
    with_namespace("pull", async |space| {
        let (registry, until_ready) = registry::running(space, &registry::small("demo")).await?;
        let endpoint = registry::endpoint(&registry)?;
        assert_eq!(endpoint, format!("demo.{}.svc:5000", space.namespace));

        let image = image::build("pull", &[5 << 20, 70_000])?;
        let remote = Remote::open(space, "demo", Who::Admin).await?;
        remote.push(&image, "team/app:1").await?;
        let pushed = Instant::now();

        let workers = node::workers(space).await?;
        ensure!(workers.len() >= 2, "this test needs two workers");
        for worker in &workers {
            pod::start(
                space,
                &pod::name_on(worker),
                worker,
                &format!("{endpoint}/team/app:1"),
                Some("demo-reader"),
            )
            .await?;
        }
        for worker in &workers {
            pod::running(space, &pod::name_on(worker)).await?;
        }
        let until_running = pushed.elapsed();
        for worker in &workers {
            pod::expect_seed(space, &pod::name_on(worker), "pull").await?;
        }
        eprintln!(
            "applied to Ready: {until_ready:.1?}; pushed to running on all workers: {until_running:.1?}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_status_says_how_the_registry_is() {
    with_namespace("status", async |space| {
        registry::running(space, &registry::small("demo")).await?;
        let total = i32::try_from(node::all(space).await?.len())?;
        let what = "the status to know replicas, nodes, storage, certificate and version";
        let registry = wait::until(&space.api(), "demo", what, |registry: &crds::Registry| {
            let Some(status) = &registry.status else {
                return false;
            };
            let nodes = status.nodes.clone().unwrap_or_default();
            status.observed_generation == registry.metadata.generation
                && (status.replicas, status.ready_replicas) == (1, 1)
                && (nodes.ready, nodes.total) == (total, total)
                && nodes.summary == format!("{total}/{total}")
                && status
                    .storage
                    .as_ref()
                    .is_some_and(|it| it.total_bytes > 0 && it.used_bytes <= it.total_bytes)
                && status.certificate_expires.is_some()
                && status.version.is_some()
                && status.policy_revision.is_some()
                && status.cluster_ip.is_some()
        })
        .await?;
        for type_ in ["Ready", "Available", "NodesReady"] {
            let condition = registry::find(&registry, type_);
            let holds = condition.is_some_and(|it| {
                it.status == "True" && it.observed_generation == registry.metadata.generation
            });
            assert!(holds, "{type_} is {condition:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_image_count_arrives_in_the_status() {
    with_namespace("repositories", async |space| {
        registry::running(space, &registry::small("demo")).await?;
        let remote = Remote::open(space, "demo", Who::Admin).await?;
        let image = image::build("count", &[1000])?;
        for name in ["a:1", "a:2", "b/c:1"] {
            remote.push(&image, name).await?;
        }
        let counted =
            |registry: &crds::Registry| registry.status.as_ref().and_then(|it| it.repositories) == Some(2);
        wait::until(&space.api(), "demo", "two repositories to be counted", counted).await?;
        Ok(())
    })
    .await;
}

/// What a node gets to know of a Registry is in the pull secret and in its own files.
#[tokio::test]
async fn the_administrators_password_is_on_no_node() {
    with_namespace("no_admin_on_nodes", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let admin =
            registry::login(space, "demo", Who::Admin).await?.map(|login| login.password).unwrap_or_default();
        let reader: Secret = space.api().get("demo-reader").await?;
        ensure!(
            !admin.is_empty() && !contains(&reader, &admin),
            "the reader's Secret holds the administrator's password"
        );
        // The operator's and node access' own Secrets hold no password that could be read off a node.
        let secrets: Api<Secret> = operator::space(space).api();
        for secret in secrets.list(&ListParams::default()).await? {
            ensure!(
                !contains(&secret, &admin),
                "{:?} holds the administrator's password",
                secret.metadata.name
            );
        }
        let host = registry::endpoint(&registry)?;
        for node in node::all(space).await? {
            let files = node::shell(space, &node, &format!("cat {}/{host}/*", node::CERTS)).await?;
            ensure!(!files.contains(&admin), "{node} has the administrator's password in its files");
        }
        Ok(())
    })
    .await;
}

fn contains(secret: &Secret, text: &str) -> bool {
    let holds = |value: &ByteString| {
        let value = String::from_utf8_lossy(&value.0);
        value.contains(text) || value.contains(&base64_of(&format!("admin:{text}")))
    };
    secret.data.iter().flatten().any(|(_, value)| holds(value))
}

fn base64_of(text: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(text)
}
