//! Many namespaces and one Registry: each keeps to what it was given.

use std::time::{Duration, Instant};

use crds::{Registry, Repository};
use e2e::{
    Context as _, Result, Space, ensure,
    http::Http,
    image::{self, Image},
    registry::{self, Who},
    remote::Remote,
    repository, wait, with_namespace,
};
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

/// Secrets are everywhere and attached within this.
const DELIVERED: Duration = Duration::from_secs(5);

/// A Registry `demo`, and a namespace that may declare Repositories in it.
async fn shared(space: &Space) -> Result<(Registry, Space)> {
    let tenant = space.another().await?;
    let spec = json!({
        "storage": {"volume": {"size": "1Gi"}},
        "tenancy": {"namespaces": {"names": [tenant.namespace]}},
    });
    let (registry, _) = registry::running(space, &registry::with_spec("demo", &spec)).await?;
    Ok((registry, tenant))
}

/// The spec of a Repository in the Registry of another namespace.
fn declared(owner: &Space, path: &str) -> Value {
    json!({"registryRef": {"name": "demo", "namespace": owner.namespace}, "path": path})
}

/// Which paths a tenant gets.
#[tokio::test]
async fn tenants_keep_to_what_they_were_given() {
    with_namespace("tenants", async |space| {
        registry::running(space, &registry::small("demo")).await?;
        let tenant = space.another().await?;
        let path = format!("{}/one", tenant.namespace);

        // Not granted, and it is not told whether there is such a Registry.
        repository::apply(&tenant, &repository::with_spec("holder", &declared(space, &path))).await?;
        let message = repository::refused(&tenant, "holder", "NotGranted").await?;
        let nowhere = json!({"registryRef": {"name": "nowhere", "namespace": space.namespace}});
        repository::apply(&tenant, &repository::with_spec("two", &nowhere)).await?;
        let other = repository::refused(&tenant, "two", "NotGranted").await?;
        assert_eq!(message.replace("demo", "nowhere"), other);

        // Granted from now on: below its own name only, and nothing that is taken.
        let tenancy = json!({"tenancy": {"namespaces": {"names": [tenant.namespace]}}});
        registry::change(space, "demo", tenancy).await?;
        repository::condition(&tenant, "holder", "Ready", "True").await?;
        let owner = &space.namespace;
        repository::ready(space, &repository::with_spec("app", &json!({}))).await?;
        for (name, path) in [
            ("same", format!("{owner}/app")),
            ("above", format!("{owner}/*")),
            ("below", format!("{owner}/app/deep")),
            ("beside", format!("{owner}/other")),
            ("nobodys", "other/app".into()),
        ] {
            repository::apply(&tenant, &repository::with_spec(name, &declared(space, &path))).await?;
            repository::refused(&tenant, name, "PathNotGranted").await?;
        }

        // Two claims for one path: the second one waits until the first one goes.
        repository::apply(space, &repository::with_spec("late", &json!({"path": path}))).await?;
        let message = repository::refused(space, "late", "PathTaken").await?;
        ensure!(!message.contains("holder"), "it names who has it: {message}");
        repository::delete(&tenant, "holder").await?;
        repository::condition(space, "late", "Ready", "True").await.map(drop)
    })
    .await;
}

/// Secrets appear only where they are welcome, whoever sends them, and as soon as they are.
#[tokio::test]
async fn secrets_come_to_namespaces_that_agree_and_to_no_other() {
    with_namespace("welcome", async |space| {
        let (_, tenant) = shared(space).await?;
        let to = |to: &Space| json!([{"name": "pull", "namespaces": {"names": [to.namespace]}}]);
        let sent = repository::with_spec("sent", &json!({"pullSecrets": to(&tenant)}));
        repository::apply(space, &sent).await?;
        let mut spec = declared(space, &format!("{}/sent", tenant.namespace));
        spec["pullSecrets"] = to(space);
        repository::apply(&tenant, &repository::with_spec("sent", &spec)).await?;
        for (from, to) in [(space, &tenant), (&tenant, space)] {
            let what = "the namespace that has not agreed to be told of";
            let told = wait::until(&from.api(), "sent", what, |repository: &Repository| {
                let secrets = repository.status.iter().flat_map(|status| &status.secrets);
                secrets.into_iter().any(|secret| secret.problems.contains_key(&to.namespace))
            })
            .await?;
            ensure!(to.api::<Secret>().get_opt("pull").await?.is_none(), "a Secret came unasked");
            let problem = repository::find(&told, "SecretsReady").context("no condition")?;
            ensure!(problem.status == "False", "SecretsReady is {}", problem.status);
            ensure!(problem.message.contains("accept-secrets-from"), "it says: {}", problem.message);
        }

        // It agrees: the Secret is there soon, and the condition says so.
        tenant.label(json!({"berth.dev/accept-secrets-from": space.namespace})).await?;
        let agreed = Instant::now();
        repository::login(&tenant, "pull").await?;
        let took = agreed.elapsed();
        ensure!(took < DELIVERED, "the Secret came after {took:.1?}");
        repository::condition(space, "sent", "SecretsReady", "True").await?;
        repository::condition(space, "sent", "Ready", "True").await?;
        ensure!(space.api::<Secret>().get_opt("pull").await?.is_none(), "a Secret came unasked");
        Ok(())
    })
    .await;
}

/// What is asked of a repository, with something that is there or something that is not.
fn requests(repository: &str, tag: &str, digest: &str, blob: &str) -> Vec<(Method, String)> {
    let at = |rest: String| format!("/v2/{repository}/{rest}");
    vec![
        (Method::HEAD, at(format!("blobs/{blob}"))),
        (Method::GET, at(format!("blobs/{blob}"))),
        (Method::HEAD, at(format!("manifests/{tag}"))),
        (Method::GET, at(format!("manifests/{tag}"))),
        (Method::GET, at(format!("manifests/{digest}"))),
        (Method::GET, at("tags/list".into())),
        (Method::GET, at(format!("referrers/{digest}"))),
        (Method::GET, at("_berth/replication/state".into())),
        (Method::PUT, at(format!("manifests/{tag}"))),
        (Method::POST, at("blobs/uploads/".into())),
        (Method::POST, at(format!("blobs/uploads/?digest={blob}"))),
        (Method::DELETE, at(format!("manifests/{tag}"))),
        (Method::DELETE, at(format!("manifests/{digest}"))),
        (Method::DELETE, at(format!("blobs/{blob}"))),
    ]
}

/// Compares what is answered where something is there and where not.
async fn tells_nothing_apart(stranger: &Http, theirs: &str, none: &str, image: &Image) -> Result<()> {
    let nothing = format!("sha256:{}", "0".repeat(64));
    let there = requests(theirs, "1", &image.digest, &image.layers[0]);
    let not_there = requests(theirs, "none", &nothing, &nothing);
    let nowhere = requests(none, "1", &image.digest, &image.layers[0]);
    for ((there, not_there), nowhere) in there.into_iter().zip(not_there).zip(nowhere) {
        let (method, path) = there;
        let answer = stranger.send(method.clone(), &path, "{}").await?;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
        for (other_method, other) in [not_there, nowhere] {
            let same = stranger.send(other_method, &other, "{}").await?;
            assert_eq!(same.status, answer.status, "{method} {path} and {other}");
            // That is the caller's own word.
            let body = String::from_utf8_lossy(&same.body).replace(none, theirs);
            assert_eq!(body, String::from_utf8_lossy(&answer.body), "{method} {path} and {other}");
        }
    }
    Ok(())
}

/// A tenant's login neither reads nor changes nor mounts what is somebody else's, nor learns whether it is there.
#[tokio::test]
async fn a_tenants_login_learns_nothing_of_others() {
    with_namespace("strangers", async |space| {
        let (registry, tenant) = shared(space).await?;
        let mine = format!("{}/mine", tenant.namespace);
        let mut spec = declared(space, &mine);
        spec["pushSecrets"] = json!([{"name": "push"}]);
        repository::ready(&tenant, &repository::with_spec("mine", &spec)).await?;
        repository::ready(space, &repository::with_spec("app", &json!({}))).await?;
        let theirs = format!("{}/app", space.namespace);
        let login = repository::login(&tenant, "push").await?;
        let stranger = Remote::with_login(space, &registry, Some(&login)).await?;
        let http = stranger.http();
        let feed = async |query: &str| -> Result<Value> {
            let path = format!("/v2/_berth/replication/feed{query}");
            Ok(serde_json::from_slice(&http.send(Method::GET, &path, "").await?.body)?)
        };
        let before = feed("").await?;

        let (image, own) = (image::build("tenants", &[1000])?, image::build("own", &[1000])?);
        let admin = Remote::open(space, "demo", Who::Admin).await?;
        admin.push(&image, &format!("{theirs}:1")).await?;
        stranger.push(&own, &format!("{mine}:1")).await?;

        tells_nothing_apart(http, &theirs, &format!("{}/none", space.namespace), &image).await?;

        // What they mount becomes an upload, as where there is nothing to mount.
        let secret = &image.layers[1];
        for from in [format!("&from={theirs}"), format!("&from={}/none", space.namespace), String::new()] {
            for blob in [secret, &format!("sha256:{}", "0".repeat(64))] {
                let mount = format!("/v2/{mine}/blobs/uploads/?mount={blob}{from}");
                let answer = http.send(Method::POST, &mount, "").await?;
                assert_eq!((answer.status, answer.body.len()), (StatusCode::ACCEPTED, 0), "{mount}");
            }
        }

        let cursor = before["cursor"].as_str().context("no cursor")?;
        let news = feed(&format!("?after={cursor}")).await?.to_string();
        let catalog = http.send(Method::GET, "/v2/_catalog", "").await?;
        for list in [news, String::from_utf8_lossy(&catalog.body).into_owned()] {
            ensure!(
                list.contains(&mine) && !list.contains(&theirs),
                "others' repositories are named: {list}"
            );
        }
        assert_eq!(admin.pull(&format!("{theirs}:1")).await?, image.digest);
        Ok(())
    })
    .await;
}
