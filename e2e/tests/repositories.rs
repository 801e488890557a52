//! Repositories: who may pull and push, with Secrets that look after themselves.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crds::Registry;
use e2e::{
    Context as _, Result, Space, ensure, image, node, pod,
    registry::{self, Login, Who},
    remote::Remote,
    repository, told, wait, with_namespace,
};
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::watch;

/// What must be in force everywhere after a change.
const IN_FORCE: Duration = Duration::from_secs(5);

async fn demo(space: &Space) -> Result<Registry> {
    Ok(registry::running(space, &registry::small("demo")).await?.0)
}

/// A namespace whose owner agrees to get Secrets from another.
async fn agreeing(space: &Space) -> Result<Space> {
    let other = space.another().await?;
    other.label(json!({"berth.dev/accept-secrets-from": space.namespace, "team": "web"})).await?;
    Ok(other)
}

/// A private image is pushed with a push Secret, and run by a pod that names no Secret, in a namespace that came later.
#[tokio::test]
async fn pods_of_later_namespaces_pull_with_a_secret_that_comes_by_itself() {
    with_namespace("delivery", async |space| {
        let registry = demo(space).await?;
        let spec = json!({
            "pullSecrets": [{
                "name": "web-pull",
                "namespaces": {"selector": {"matchLabels": {"team": "web"}}},
                "serviceAccounts": {"names": ["default"]},
            }],
            "pushSecrets": [{"name": "web-push"}],
        });
        let ready = repository::ready(space, &repository::with_spec("web", &spec)).await?;
        let reference = ready.status.and_then(|status| status.reference).context("no reference")?;
        assert_eq!(reference, format!("{}/{}/web", registry::endpoint(&registry)?, space.namespace));

        let path = format!("{}/web:1", space.namespace);
        let image = image::build("delivery", &[1000])?;
        let push = repository::login(space, "web-push").await?;
        Remote::with_login(space, &registry, Some(&push)).await?.push(&image, &path).await?;

        let later = agreeing(space).await?;
        repository::attached(&later, "default", "web-pull", true).await?;
        for worker in node::workers(space).await? {
            pod::start(&later, &pod::name_on(&worker), &worker, &format!("{reference}:1"), None).await?;
            pod::running(&later, &pod::name_on(&worker)).await?;
            pod::expect_seed(&later, &pod::name_on(&worker), "delivery").await?;
        }

        // The reader's login reads and nothing more, and this path only.
        let pull = repository::login(&later, "web-pull").await?;
        let reader = Remote::with_login(space, &registry, Some(&pull)).await?;
        reader.pull(&path).await?;
        let upload = format!("/v2/{}/web/blobs/uploads/", space.namespace);
        assert_eq!(reader.http().send(Method::POST, &upload, "").await?.status, StatusCode::FORBIDDEN);
        let elsewhere = reader.http().send(Method::GET, "/v2/other/tags/list", "").await?.status;
        assert_eq!(elsewhere, StatusCode::FORBIDDEN);

        // Without access, the node says so.
        let stranger = space.another().await?;
        let worker = node::workers(space).await?.remove(0);
        pod::start(&stranger, "stranger", &worker, &format!("{reference}:1"), None).await?;
        let refusal = pod::refused(&stranger, "stranger").await?;
        ensure!(refusal.contains("authorization failed"), "the node says: {refusal}");

        // The namespace takes its agreement back.
        later.label(json!({"berth.dev/accept-secrets-from": null})).await?;
        wait::gone(&later.api::<Secret>(), "web-pull").await?;
        repository::attached(&later, "default", "web-pull", false).await?;
        reader
            .http()
            .answered(&format!("/v2/{}/web/manifests/1", space.namespace), StatusCode::UNAUTHORIZED)
            .await?;
        Ok(())
    })
    .await;
}

/// Three rotations while somebody pulls all the time; then one copy is revoked.
#[tokio::test]
async fn rotation_is_not_noticed_and_revocation_is() {
    with_namespace("rotation", async |space| {
        let registry = demo(space).await?;
        let spec = json!({"pullSecrets": [{"name": "pull"}], "pushSecrets": [{"name": "push"}]});
        repository::ready(space, &repository::with_spec("app", &spec)).await?;
        let path = format!("{}/app:1", space.namespace);
        let push = repository::login(space, "push").await?;
        let image = image::build("rotation", &[1000])?;
        Remote::with_login(space, &registry, Some(&push)).await?.push(&image, &path).await?;

        let manifest = format!("/v2/{}/app/manifests/1", space.namespace);
        let mut former = repository::login(space, "pull").await?;
        let mut seen = vec![push.clone(), former.clone()];
        for turn in 1..=3 {
            let rotate = json!({"metadata": {"annotations": {"berth.dev/rotate": turn.to_string()}}});
            repository::change(space, "app", &rotate).await?;
            let secrets: Api<Secret> = space.api();
            let remote = Remote::with_login(space, &registry, Some(&former)).await?;
            // As nodes do it: with what is in the Secret now, and with what was a moment ago.
            let next = wait::poll("another password while pulls go on", async || {
                let status = remote.http().send(Method::GET, &manifest, "").await?.status;
                assert_eq!(status, StatusCode::OK, "the former login, rotation {turn}");
                let now = repository::in_secret(&secrets.get("pull").await?)?;
                let fresh = Remote::with_login(space, &registry, Some(&now)).await?;
                ensure!(now.password != former.password, "still the former password");
                let status = fresh.http().send(Method::GET, &manifest, "").await?.status;
                assert_eq!(status, StatusCode::OK, "the new login, rotation {turn}");
                Ok(now)
            })
            .await?;
            seen.push(next.clone());
            former = next;
        }

        // A robot whose Secret is not declared any more.
        let pusher = Remote::with_login(space, &registry, Some(&push)).await?;
        pusher.http().answered(&manifest, StatusCode::OK).await?;
        repository::change(space, "app", &json!({"spec": {"pushSecrets": []}})).await?;
        let took = pusher.http().answered(&manifest, StatusCode::UNAUTHORIZED).await?;
        ensure!(took < IN_FORCE, "the robot was let in for {took:.1?}");
        eprintln!("a robot without its Secret was refused after {took:.1?}");

        // Who has the password is shut out as soon as the copy is taken away; its place is taken by another one.
        let revoked = Remote::with_login(space, &registry, Some(&former)).await?;
        revoked.http().answered(&manifest, StatusCode::OK).await?;
        space.api::<Secret>().delete("pull", &DeleteParams::default()).await?;
        let took = revoked.http().answered(&manifest, StatusCode::UNAUTHORIZED).await?;
        ensure!(took < IN_FORCE, "the revoked login was let in for {took:.1?}");
        let next = repository::login(space, "pull").await?;
        ensure!(next.password != former.password && next.password.len() >= 43, "the same password again");
        seen.push(next.clone());
        Remote::with_login(space, &registry, Some(&next))
            .await?
            .http()
            .answered(&manifest, StatusCode::OK)
            .await?;
        eprintln!("a revoked login was refused after {took:.1?}");

        // What somebody writes into the Secret opens nothing, and is repaired.
        let guessable = Login { username: next.username.clone(), password: "secret".into() };
        let config = json!({"auths": {"demo": {"username": guessable.username, "password": "secret"}}});
        let edited = Patch::Merge(json!({"stringData": {".dockerconfigjson": config.to_string()}}));
        space.api::<Secret>().patch("pull", &PatchParams::default(), &edited).await?;
        let repaired = wait::until(&space.api(), "pull", "the Secret to be repaired", |secret: &Secret| {
            repository::in_secret(secret).is_ok_and(|login| login.password.len() >= 43)
        })
        .await?;
        let guessed = Remote::with_login(space, &registry, Some(&guessable)).await?;
        guessed.http().answered(&manifest, StatusCode::UNAUTHORIZED).await?;

        // None of all these passwords is told anywhere.
        seen.push(repository::in_secret(&repaired)?);
        for who in [Who::Admin, Who::Reader] {
            seen.extend(registry::login(space, "demo", who).await?);
        }
        told::nothing_of(&seen, &[space]).await
    })
    .await;
}

/// Nodes pull while the Secret's password is rotated three times: no pull fails.
#[tokio::test]
async fn nodes_pull_while_passwords_rotate() {
    with_namespace("rotating_pulls", async |space| {
        let registry = demo(space).await?;
        let spec = json!({"pullSecrets": [{"name": "pull"}]});
        repository::ready(space, &repository::with_spec("app", &spec)).await?;
        let name = format!("{}/app:1", space.namespace);
        let image = image::build("rotating", &[1000])?;
        Remote::open(space, "demo", Who::Admin).await?.push(&image, &name).await?;
        let reference = format!("{}/{name}", registry::endpoint(&registry)?);
        let workers = node::workers(space).await?;

        for worker in &workers {
            pod::make_known(space, worker, &reference, "pull").await?;
        }
        let (pulled, mut pulls_so_far) = watch::channel(0);
        let rotated = AtomicBool::new(false);
        let rotations = async {
            for turn in 1..=3 {
                let former = repository::login(space, "pull").await?.password;
                let rotate = json!({"metadata": {"annotations": {"berth.dev/rotate": turn.to_string()}}});
                repository::change(space, "app", &rotate).await?;
                wait::until(&space.api(), "pull", "another password", |secret: &Secret| {
                    repository::in_secret(secret).is_ok_and(|login| login.password != former)
                })
                .await?;
                let enough = *pulls_so_far.borrow() + 3 * workers.len();
                pulls_so_far.wait_for(|pulls| *pulls >= enough).await?;
            }
            rotated.store(true, Ordering::Relaxed);
            Ok::<_, e2e::Error>(())
        };
        let pulls = async |worker: &String| {
            let mut pulls = 0;
            loop {
                let last = rotated.load(Ordering::Relaxed);
                let name = format!("pull-{pulls}-{worker}");
                pod::start(space, &name, worker, &reference, Some("pull")).await?;
                pod::running(space, &name).await?;
                let failures = pod::failures(space, &name).await?;
                ensure!(failures.is_empty(), "pull {pulls} on {worker}: {failures:?}");
                pod::remove(space, &name).await?;
                pulls += 1;
                pulled.send_modify(|pulls| *pulls += 1);
                if last {
                    return Ok::<_, e2e::Error>(pulls);
                }
            }
        };
        let pulls = futures::future::try_join_all(workers.iter().map(pulls));
        let ((), pulls) = futures::future::try_join(rotations, pulls).await?;
        eprintln!("pulls during three rotations: {pulls:?}");
        Ok(())
    })
    .await;
}

/// Secrets and attachments go with the Repository; other entries stay, and so do the images.
#[tokio::test]
async fn a_deleted_repository_takes_its_secrets_along() {
    with_namespace("repository_gone", async |space| {
        let registry = demo(space).await?;
        let accounts: Api<ServiceAccount> = space.api();
        let own = Patch::Merge(json!({"imagePullSecrets": [{"name": "of-somebody-else"}]}));
        accounts.patch("default", &PatchParams::default(), &own).await?;
        let secrets = json!([{"name": "pull", "serviceAccounts": {"names": ["default"]}}]);
        for (name, policy) in [("kept", "Retain"), ("dropped", "Delete")] {
            let spec = json!({
                "deletionPolicy": policy,
                "pullSecrets": if policy == "Retain" { secrets.clone() } else { json!([]) },
            });
            repository::ready(space, &repository::with_spec(name, &spec)).await?;
        }
        let admin = Remote::open(space, "demo", Who::Admin).await?;
        let image = image::build("gone", &[1000])?;
        for name in ["kept", "dropped"] {
            admin.push(&image, &format!("{}/{name}:1", space.namespace)).await?;
        }
        repository::attached(space, "default", "pull", true).await?;
        let pull = repository::login(space, "pull").await?;

        for name in ["kept", "dropped"] {
            repository::delete(space, name).await?;
        }
        wait::gone(&space.api::<Secret>(), "pull").await?;
        let account = repository::attached(space, "default", "pull", false).await?;
        assert_eq!(repository::names(&account).collect::<Vec<_>>(), ["of-somebody-else"]);
        let remote = Remote::with_login(space, &registry, Some(&pull)).await?;
        let manifest = |name| format!("/v2/{}/{name}/manifests/1", space.namespace);
        remote.http().answered(&manifest("kept"), StatusCode::UNAUTHORIZED).await?;
        admin.http().answered(&manifest("kept"), StatusCode::OK).await?;
        admin.http().answered(&manifest("dropped"), StatusCode::NOT_FOUND).await?;
        Ok(())
    })
    .await;
}

/// Everybody pulls what is public, and nobody what is not.
#[tokio::test]
async fn public_is_for_everybody_and_a_change_is_in_force_soon() {
    with_namespace("visibility", async |space| {
        let registry = demo(space).await?;
        repository::ready(space, &repository::with_spec("app", &json!({"visibility": "Public"}))).await?;
        let image = image::build("public", &[1000])?;
        let name = format!("{}/app:1", space.namespace);
        Remote::open(space, "demo", Who::Admin).await?.push(&image, &name).await?;
        let worker = node::workers(space).await?.remove(0);
        let endpoint = registry::endpoint(&registry)?;
        pod::start(space, "public", &worker, &format!("{endpoint}/{name}"), None).await?;
        pod::running(space, "public").await?;

        let nobody = Remote::open(space, "demo", Who::Nobody).await?;
        let manifest = format!("/v2/{}/app/manifests/1", space.namespace);
        repository::change(space, "app", &json!({"spec": {"visibility": "Private"}})).await?;
        let took = nobody.http().answered(&manifest, StatusCode::UNAUTHORIZED).await?;
        ensure!(took < IN_FORCE, "what became private was public for {took:.1?}");
        eprintln!("what became private was refused after {took:.1?}");
        Ok(())
    })
    .await;
}

/// Tags stay, and the path holds no more than it may.
#[tokio::test]
async fn immutable_tags_and_quota() {
    with_namespace("rules", async |space| {
        let registry = demo(space).await?;
        let spec = json!({
            "tags": {"mutability": "Immutable", "except": ["dev-*"]},
            "quota": "8Mi",
            "pushSecrets": [{"name": "push"}],
        });
        repository::ready(space, &repository::with_spec("app", &spec)).await?;
        let push = repository::login(space, "push").await?;
        let writer = Remote::with_login(space, &registry, Some(&push)).await?;
        let name = |tag: &str| format!("{}/app:{tag}", space.namespace);
        let (one, two) = (image::build("one", &[1000])?, image::build("two", &[1000])?);
        writer.push(&one, &name("1")).await?;
        writer.push(&one, &name("1")).await.context("the same again")?;
        let error = writer.push(&two, &name("1")).await.err().context("an immutable tag moved")?;
        ensure!(format!("{error:#}").contains("immutable"), "skopeo says: {error:#}");
        writer.push(&one, &name("dev-1")).await?;
        writer.push(&two, &name("dev-1")).await.context("an exempt tag")?;
        assert_eq!(writer.pull(&name("1")).await?, one.digest);

        let large = image::build("large", &[9 << 20])?;
        let error = writer.push(&large, &name("2")).await.err().context("more than the quota was taken")?;
        ensure!(format!("{error:#}").to_lowercase().contains("quota"), "skopeo says: {error:#}");
        let used = |repository: &crds::Repository| {
            let status = repository.status.clone().unwrap_or_default();
            status.tags == Some(2)
                && status.bytes.is_some_and(|bytes| bytes > 0 && bytes <= 8 << 20)
                && status.last_push.is_some_and(|push| push.digest == two.digest)
        };
        wait::until(&space.api(), "app", "tags, bytes and the last push in the status", used).await?;
        Ok(())
    })
    .await;
}
