//! Who needs no Secret: jobs with their ServiceAccount's own token, pods of the whole cluster, pods that come early.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use e2e::{
    Context as _, Result, account, ensure, image, node, pod,
    registry::{self, Who},
    remote::Remote,
    repository, wait, with_namespace,
};
use http::{Method, StatusCode};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::api::{LogParams, PostParams};
use serde_json::{Value, json};

/// A pod that comes with its namespace runs within this.
const EARLY: Duration = Duration::from_secs(20);

/// A Job pushes with the token that Kubernetes gives it, and no Secret.
#[tokio::test]
async fn a_job_pushes_with_its_own_token() {
    with_namespace("job", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let public = json!({"visibility": "Public"});
        repository::ready(space, &repository::with_spec("tools", &public)).await?;
        let access = json!({"access": [{"serviceAccount": {"name": "ci"}, "role": "Writer"}]});
        repository::ready(space, &repository::with_spec("app", &access)).await?;
        account::create(space, "ci").await?;
        account::create(space, "other").await?;

        let endpoint = registry::endpoint(&registry)?;
        let namespace = &space.namespace;
        let tools = image::with_programs("tools", &[1000], &["/usr/bin/skopeo"])?;
        let admin = Remote::open(space, "demo", Who::Admin).await?;
        admin.push(&tools, &format!("{namespace}/tools:1")).await?;

        let audience = account::audience(space, "demo");
        let copy = format!(
            "skopeo --insecure-policy --tmpdir /tmp copy --preserve-digests --src-no-creds --src-cert-dir /ca --dest-cert-dir /ca \
             --dest-creds \"serviceaccount:$(cat /token/token)\" \
             docker://{endpoint}/{namespace}/tools:1 docker://{endpoint}/{namespace}/app:1"
        );
        let job: Job = serde_json::from_value(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "push"},
            "spec": {"backoffLimit": 0, "template": {"spec": {
                "serviceAccountName": "ci", "automountServiceAccountToken": false, "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": format!("{endpoint}/{namespace}/tools:1"),
                    "command": ["/bin/sh", "-c", copy],
                    "volumeMounts": [
                        {"name": "token", "mountPath": "/token"}, {"name": "ca", "mountPath": "/ca"},
                        {"name": "tmp", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/var/tmp"},
                    ],
                }],
                "volumes": [
                    {"name": "token", "projected": {"sources": [
                        {"serviceAccountToken": {"audience": audience, "path": "token"}},
                    ]}},
                    {"name": "ca", "configMap": {"name": "demo-ca"}},
                    {"name": "tmp", "emptyDir": {}},
                ],
            }}},
        }))?;
        space.api::<Job>().create(&PostParams::default(), &job).await?;
        let ended = |job: &Job| {
            let status = job.status.clone().unwrap_or_default();
            status.succeeded.unwrap_or(0) + status.failed.unwrap_or(0) > 0
        };
        let job = wait::until(&space.api(), "push", "the job to end", ended).await?;
        if job.status.and_then(|status| status.succeeded).unwrap_or(0) == 0 {
            let pods = space.api::<Pod>();
            let name = pods.list(&kube::api::ListParams::default().labels("job-name=push")).await?.items;
            let name = name.first().and_then(|pod| pod.metadata.name.clone()).unwrap_or_default();
            let log = pods.logs(&name, &LogParams::default()).await.unwrap_or_default();
            e2e::bail!("the job failed: {log}");
        }
        assert_eq!(admin.pull(&format!("{namespace}/app:1")).await?, tools.digest);

        // Where nothing is declared, who the Registry names.
        let undeclared = json!({"undeclared": [{"serviceAccount": {"name": "ci"}, "role": "Writer"}]});
        let upload = "/v2/declared/by/nobody/blobs/uploads/";
        let ci = Remote::with_login(space, &registry, Some(&account::token(space, "ci", &audience).await?)).await?;
        assert_eq!(ci.http().send(Method::POST, upload, "").await?.status, StatusCode::FORBIDDEN);
        registry::change(space, "demo", undeclared).await?;
        wait::poll("the account to be let in where nothing is declared", async || {
            let status = ci.http().send(Method::POST, upload, "").await?.status;
            ensure!(status == StatusCode::ACCEPTED, "it is answered {status}");
            Ok(())
        })
        .await?;

        // Others, and tokens for somebody else, are refused.
        let manifest = format!("/v2/{namespace}/app/manifests/1");
        for (name, audience, wanted) in [
            ("ci", audience.as_str(), StatusCode::OK),
            ("other", audience.as_str(), StatusCode::FORBIDDEN),
            ("ci", "berth.dev/elsewhere/demo", StatusCode::UNAUTHORIZED),
        ] {
            let login = account::token(space, name, audience).await?;
            let remote = Remote::with_login(space, &registry, Some(&login)).await?;
            let status = remote.http().send(Method::GET, &manifest, "").await?.status;
            assert_eq!(status, wanted, "{name} with a token for {audience}");
        }
        Ok(())
    })
    .await;
}

/// What is for the cluster, every pod pulls without a Secret, and nobody else; what is private stays so.
#[tokio::test]
async fn every_pod_pulls_what_is_for_the_cluster() {
    with_namespace("for_the_cluster", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        repository::ready(space, &repository::with_spec("shared", &json!({"visibility": "Cluster"}))).await?;
        let secrets = json!({"pullSecrets": [{"name": "pull"}]});
        repository::ready(space, &repository::with_spec("own", &secrets)).await?;
        let admin = Remote::open(space, "demo", Who::Admin).await?;
        let image = image::build("cluster", &[1000])?;
        let namespace = &space.namespace;
        for name in ["shared", "own"] {
            admin.push(&image, &format!("{namespace}/{name}:1")).await?;
        }
        let anywhere = space.another().await?;
        let reference =
            |name| Ok::<_, e2e::Error>(format!("{}/{namespace}/{name}:1", registry::endpoint(&registry)?));
        for worker in node::workers(space).await? {
            pod::start(&anywhere, &pod::name_on(&worker), &worker, &reference("shared")?, None).await?;
            pod::running(&anywhere, &pod::name_on(&worker)).await?;
        }
        // Also where the node shows its own credential first, the pod's secret decides.
        let worker = node::workers(space).await?.remove(0);
        pod::start(space, "with-secret", &worker, &reference("own")?, Some("pull")).await?;
        pod::running(space, "with-secret").await?;
        pod::start(&anywhere, "without-secret", &worker, &reference("own")?, None).await?;
        pod::refused(&anywhere, "without-secret").await?;

        let nobody = Remote::open(space, "demo", Who::Nobody).await?;
        let manifest = format!("/v2/{namespace}/shared/manifests/1");
        assert_eq!(nobody.http().send(Method::GET, &manifest, "").await?.status, StatusCode::UNAUTHORIZED);
        Ok(())
    })
    .await;
}

/// What nodes show is in a file of root's, is for one registry, and bound to the node and its pod.
#[tokio::test]
async fn a_nodes_credential_opens_one_registry_for_an_hour_at_most() {
    with_namespace("node_credential", async |space| {
        for name in ["demo", "other"] {
            registry::apply(space, &registry::small(name)).await?;
        }
        let shared = json!({"visibility": "Cluster"});
        repository::ready(space, &repository::with_spec("shared", &shared)).await?;
        repository::ready(space, &repository::with_spec("own", &json!({}))).await?;
        let there = json!({"registryRef": {"name": "other"}, "path": "there", "visibility": "Cluster"});
        repository::ready(space, &repository::with_spec("there", &there)).await?;
        let (demo, other) = (registry::ready(space, "demo").await?, registry::ready(space, "other").await?);
        let worker = node::workers(space).await?.remove(0);
        let endpoint = registry::endpoint(&demo)?;
        let login = node::credential(space, &worker, &endpoint).await?;

        let file = format!("{}/{endpoint}/hosts.toml", node::CERTS);
        let mode = node::shell(space, &worker, &format!("stat -c '%a %U' {file}")).await?;
        assert_eq!(mode.trim(), "600 root");
        let claims = claims(&login.password)?;
        assert_eq!(claims["aud"], json!([account::audience(space, "demo")]));
        let life = claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(end, begin)| end - begin);
        ensure!(life.is_some_and(|life| life <= 3600), "it lives {life:?} s");
        assert_eq!(claims["kubernetes.io"]["node"]["name"], json!(worker));
        ensure!(claims["kubernetes.io"]["pod"]["uid"].is_string(), "it is bound to no pod: {claims}");

        let own = |name: &str| format!("{}/{name}", space.namespace);
        for (registry, path, wanted) in [
            (&demo, own("shared"), StatusCode::NOT_FOUND),
            (&demo, own("own"), StatusCode::UNAUTHORIZED),
            (&demo, own("none"), StatusCode::UNAUTHORIZED),
            (&other, "there".into(), StatusCode::UNAUTHORIZED),
        ] {
            let remote = Remote::with_login(space, registry, Some(&login)).await?;
            let manifest = format!("/v2/{path}/manifests/1");
            let status = remote.http().send(Method::GET, &manifest, "").await?.status;
            assert_eq!(status, wanted, "{path}");
        }
        Ok(())
    })
    .await;
}

/// What a token says of itself.
fn claims(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).context("no token")?;
    Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// A pod that is created as soon as its namespace takes pods runs, although nothing was there when it came.
#[tokio::test]
async fn the_first_pod_of_a_namespace_runs() {
    with_namespace("first_pod", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let spec = json!({"pullSecrets": [{
            "name": "pull",
            "namespaces": {"selector": {"matchLabels": {"team": "early"}}},
            "serviceAccounts": {"selector": {}},
        }]});
        repository::ready(space, &repository::with_spec("app", &spec)).await?;
        let image = image::build("early", &[1000])?;
        let name = format!("{}/app:1", space.namespace);
        Remote::open(space, "demo", Who::Admin).await?.push(&image, &name).await?;
        let reference = format!("{}/{name}", registry::endpoint(&registry)?);
        let worker = node::workers(space).await?.remove(0);
        for turn in 0..3 {
            let labels = [("team", "early"), ("berth.dev/accept-secrets-from", space.namespace.as_str())];
            let early = space.labelled(&labels).await?;
            let began = Instant::now();
            // The API server takes no pods before the namespace has its account; the very first chance is taken.
            loop {
                match pod::start(&early, "early", &worker, &reference, None).await {
                    Ok(_) => break,
                    Err(error) if began.elapsed() > EARLY => return Err(error),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            let created = Instant::now();
            pod::running(&early, "early").await?;
            let took = created.elapsed();
            eprintln!("first pod {turn}: running after {took:.1?}");
            ensure!(took < EARLY, "the first pod of a namespace ran after {took:.1?}");
        }
        Ok(())
    })
    .await;
}
