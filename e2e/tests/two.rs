//! Registries side by side: neither images nor logins mix.

use e2e::{
    Result, Space, ensure, image, node, pod,
    registry::{self, Who},
    remote::Remote,
    with_namespace,
};
use http::{Method, StatusCode};

/// Pushes an image of this seed under the same name everywhere, and returns its digest and reference.
async fn push(space: &Space, name: &str, seed: &str) -> Result<(String, String)> {
    let registry = registry::ready(space, name).await?;
    let image = image::build(seed, &[1000])?;
    Remote::open(space, name, Who::Admin).await?.push(&image, "app:1").await?;
    Ok((image.digest, format!("{}/app:1", registry::endpoint(&registry)?)))
}

/// Fails unless each of two Registries serves its own image only, to its own reader only.
async fn keep_apart([one, other]: [(&Space, &str); 2]) -> Result<()> {
    let (digest, reference) = push(one.0, one.1, "one").await?;
    let (other_digest, other_reference) = push(other.0, other.1, "other").await?;
    let workers = node::workers(one.0).await?;
    for ((space, name), reference, seed) in [(one, reference, "one"), (other, other_reference, "other")] {
        pod::run_on(space, &workers, &reference, &format!("{name}-reader"), seed).await?;
    }

    let login = registry::login(one.0, one.1, Who::Reader).await?;
    let strange =
        Remote::with_login(other.0, &registry::ready(other.0, other.1).await?, login.as_ref()).await?;
    let answer = strange.http().send(Method::GET, "/v2/app/manifests/1", "").await?;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "the reader of one Registry at the other");

    for ((space, name), own, foreign) in [(one, &digest, &other_digest), (other, &other_digest, &digest)] {
        let remote = Remote::open(space, name, Who::Admin).await?;
        ensure!(remote.pull("app:1").await? == *own, "{name} in {} serves another image", space.namespace);
        let answer = remote.http().send(Method::GET, &format!("/v2/app/manifests/{foreign}"), "").await?;
        assert_eq!(
            answer.status,
            StatusCode::NOT_FOUND,
            "{name} in {} has the other's image",
            space.namespace
        );
    }
    Ok(())
}

#[tokio::test]
async fn two_in_one_namespace() {
    with_namespace("two", async |space| {
        for name in ["one", "other"] {
            registry::apply(space, &registry::small(name)).await?;
        }
        keep_apart([(space, "one"), (space, "other")]).await
    })
    .await;
}

#[tokio::test]
async fn the_same_name_in_two_namespaces() {
    with_namespace("same_name", async |space| {
        let beside = space.another().await?;
        for space in [space, &beside] {
            registry::apply(space, &registry::small("demo")).await?;
        }
        keep_apart([(space, "demo"), (&beside, "demo")]).await?;

        registry::delete(&beside, "demo").await?;
        let registry = registry::ready(space, "demo").await?;
        let workers = node::workers(space).await?;
        let reference = format!("{}/app:1", registry::endpoint(&registry)?);
        pod::run_on(space, &workers, &reference, "demo-reader", "one").await
    })
    .await;
}
