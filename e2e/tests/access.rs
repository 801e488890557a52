//! Who may do what: nobody without a login, the reader pulls, the administrator pushes.

use std::time::{Duration, Instant};

use crds::Registry;
use e2e::{
    Context as _, Result, Space, ensure, image,
    node::{self, Throttle},
    pod,
    registry::{self, Login, Who},
    remote::Remote,
    repository, wait, with_namespace, with_patience,
};
use http::{Method, StatusCode, header};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

/// A Registry `demo` with the image `app:1`.
async fn filled(space: &Space) -> Result<Registry> {
    let (registry, _) = registry::running(space, &registry::small("demo")).await?;
    let image = image::build("access", &[1000])?;
    Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:1").await?;
    Ok(registry)
}

#[tokio::test]
async fn anonymous_is_refused() {
    with_namespace("anonymous", async |space| {
        let registry = filled(space).await?;
        let nobody = Remote::open(space, "demo", Who::Nobody).await?;
        for (method, path) in [
            (Method::GET, "/v2/"),
            (Method::GET, "/v2/_catalog"),
            (Method::GET, "/v2/app/manifests/1"),
            (Method::GET, "/v2/app/tags/list"),
            (Method::GET, "/v2/missing/manifests/1"),
            (Method::POST, "/v2/app/blobs/uploads/"),
            (Method::PUT, "/v2/app/manifests/2"),
            (Method::DELETE, "/v2/app/manifests/1"),
        ] {
            let answer = nobody.http().send(method.clone(), path, "").await?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert!(
                answer.headers.contains_key(header::WWW_AUTHENTICATE),
                "{method} {path} has no challenge"
            );
        }
        assert!(nobody.pull("app:1").await.is_err(), "skopeo pulled without a login");

        let worker = node::workers(space).await?.remove(0);
        pod::start(space, "anonymous", &worker, &format!("{}/app:1", registry::endpoint(&registry)?), None)
            .await?;
        let refusal = pod::refused(space, "anonymous").await?;
        ensure!(
            refusal.contains("authorization failed"),
            "the node says of a pod without a pull secret: {refusal}"
        );
        Ok(())
    })
    .await;
}

/// A token lives five minutes. A pull that takes longer gets another one, also where its Secret's password was rotated
/// meanwhile, and nobody notices.
#[tokio::test]
async fn a_pull_outlasts_its_token() {
    const TOKEN: Duration = Duration::from_secs(300);
    const PATIENCE: Duration = Duration::from_secs(540);
    with_patience("long_pull", begin_long_pull, async |space, (slow, began)| {
        pod::running_within(space, "long", PATIENCE).await?;
        drop(slow);
        let took = began.elapsed();
        eprintln!("a pull took {took:.0?}");
        ensure!(took > TOKEN, "the pull was over after {took:.0?}, before its token was");
        assert_eq!(pod::failures(space, "long").await?, Vec::<String>::new());
        Ok(())
    })
    .await;
}

/// A pod begins to pull slowly with a Secret, and then the Secret gets another password.
async fn begin_long_pull(space: &Space) -> Result<(Throttle, Instant)> {
    const KILOBYTES_A_SECOND: u32 = 80;
    // More than nodes pull of one image at once, so that some are asked for late.
    const LAYERS: [usize; 11] = [2_500_000; 11];
    let (registry, _) = registry::running(space, &registry::small("demo")).await?;
    let secrets = json!({"pullSecrets": [{"name": "pull"}]});
    repository::ready(space, &repository::with_spec("app", &secrets)).await?;
    let name = format!("{}/app:1", space.namespace);
    let admin = Remote::open(space, "demo", Who::Admin).await?;
    admin.push(&image::build(&format!("long {}", space.namespace), &LAYERS)?, &name).await?;
    let short = format!("{}/app:short", space.namespace);
    admin.push(&image::build("short", &[1000])?, &short).await?;
    let serving = pod::serving(space, "demo", None).await?;
    let address = serving.status.and_then(|status| status.pod_ip).context("a pod without an address")?;

    // A kubelet pulls one image after the other, so on a node where no other test waits for one.
    let workers = node::workers(space).await?;
    let mut aside = node::all(space).await?;
    aside.retain(|node| !workers.contains(node));
    let node = aside.first().or(workers.last()).context("no nodes")?;
    let endpoint = registry::endpoint(&registry)?;
    pod::make_known(space, node, &format!("{endpoint}/{short}"), "pull").await?;
    let slow = Throttle::new(space, node, (&address, 5000), KILOBYTES_A_SECOND).await?;
    let former = repository::login(space, "pull").await?.password;
    pod::start(space, "long", node, &format!("{endpoint}/{name}"), Some("pull")).await?;
    let began = Instant::now();
    pod::pulling(space, "long").await?;
    let rotate = json!({"metadata": {"annotations": {"berth.dev/rotate": "now"}}});
    repository::change(space, "app", &rotate).await?;
    wait::until(&space.api(), "pull", "another password", |secret: &Secret| {
        repository::in_secret(secret).is_ok_and(|login| login.password != former)
    })
    .await?;
    Ok((slow, began))
}

#[tokio::test]
async fn the_reader_pulls_and_cannot_push() {
    with_namespace("reader", async |space| {
        filled(space).await?;
        let reader = Remote::open(space, "demo", Who::Reader).await?;
        reader.pull("app:1").await?;

        let image = image::build("reader", &[1000])?;
        for name in ["app:1", "app:2", "other:1"] {
            let error = reader.push(&image, name).await.err();
            let error = error.map(|error| format!("{error:#}")).unwrap_or_default().to_lowercase();
            ensure!(
                error.contains("denied") || error.contains("403"),
                "skopeo says of a push to {name}: {error:?}"
            );
        }
        let answer = reader.http().send(Method::DELETE, "/v2/app/manifests/1", "").await?;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "the reader deletes");
        reader.pull("app:1").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn wrong_logins_are_refused() {
    with_namespace("wrong_login", async |space| {
        let registry = filled(space).await?;
        let right =
            registry::login(space, "demo", Who::Reader).await?.map(|it| it.password).unwrap_or_default();
        for (username, password) in
            [("admin", right.as_str()), ("reader", "wrong"), ("reader", ""), ("nobody", &right), ("", "")]
        {
            let login = Login { username: username.into(), password: password.into() };
            let remote = Remote::with_login(space, &registry, Some(&login)).await?;
            let answer = remote.http().send(Method::GET, "/v2/", "").await?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{username:?}");
        }
        Ok(())
    })
    .await;
}
