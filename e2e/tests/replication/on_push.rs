//! As images are pushed: what is pushed arrives by itself, signatures too; what is deleted goes there as well.

use std::{collections::BTreeSet, time::Instant};

use crds::replication::Phase;
use e2e::{Result, ensure, image, pair, remote::Remote, replication, tiny, wait, with_namespace};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode};
use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{FOLLOWING, FROM_NONE};

/// Pushes at once.
const BURST: usize = 300;

#[tokio::test]
async fn what_is_pushed_arrives_and_what_is_deleted_goes() {
    with_namespace("on_push", async |space| {
        let (here, there) = pair::two(space, "Admin").await?;
        replication::apply(space, "pair", &pair::between(&json!({"type": "OnPush"}), "Propagate")).await?;
        replication::ready(space, "pair").await?;
        let first = image::build("first", &[1000, 100_000])?;
        here.push(&first, "team/app:1").await?;
        let took = pair::arrived(&there, "1", &first.digest).await?;
        eprintln!("the first push arrived after {took:.1?}");
        ensure!(took < FROM_NONE, "the first push arrived after {took:.1?}");
        assert_eq!(there.pull("team/app:1").await?, first.digest);

        replication::target(space, "pair", "it to follow what is pushed", |target| {
            target.phase == Phase::Following
        })
        .await?;
        let mut times = Vec::new();
        for number in 2..=8 {
            let next = image::build(&format!("next-{number}"), &[1000])?;
            let tag = number.to_string();
            here.push(&next, &format!("team/app:{tag}")).await?;
            times.push(pair::arrived(&there, &tag, &next.digest).await?);
        }
        times.sort();
        eprintln!("pushes arrived after {:.2?} to {:.2?} while a run followed", times[0], times[6]);
        ensure!(times[6] < FOLLOWING, "a push arrived after {:.1?}", times[6]);

        // A tag that is there already moves.
        let other = image::build("other", &[1000])?;
        here.push(&other, "team/app:3").await?;
        let took = pair::arrived(&there, "3", &other.digest).await?;
        ensure!(took < FOLLOWING, "a tag moved after {took:.1?}");

        // A signature is a manifest of its own that names the image.
        let signature = sign(&here, &first).await?;
        wait::poll("the signature to arrive", async || {
            let path = format!("/v2/team/app/referrers/{}", first.digest);
            let answer = there.http().send(Method::GET, &path, "").await?;
            let list = String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(list.contains(&signature), "what refers to the image there: {list}");
            Ok(())
        })
        .await?;

        let gone = here.http().send(Method::DELETE, "/v2/team/app/manifests/2", "").await?;
        assert_eq!(gone.status, StatusCode::ACCEPTED);
        there.http().answered("/v2/team/app/manifests/2", StatusCode::NOT_FOUND).await?;

        burst(&here, &there).await?;
        let told = replication::target(space, "pair", "what came to be told", |target| {
            target.images.deleted >= 1 && target.last_success.is_some() && target.reason.is_none()
        })
        .await?;
        ensure!(told.images.done >= 8 && told.bytes.moved > 0, "the status tells {told:?}");
        let jobs = space.api::<Job>().list(&ListParams::default()).await?.items.len();
        ensure!(jobs <= 3, "it took {jobs} Jobs");
        Ok(())
    })
    .await;
}

/// Many pushes at once all arrive.
async fn burst(here: &Remote, there: &Remote) -> Result<()> {
    let http = here.http();
    http.push_blob(pair::APP, tiny::EMPTY.as_bytes()).await?;
    let began = Instant::now();
    let all = (0..BURST).map(async |number| {
        let tag = format!("burst-{number}");
        http.push_tag(pair::APP, &tag, &tiny::manifest(tiny::EMPTY, &tag)).await
    });
    let digests: Vec<_> = stream::iter(all).buffer_unordered(50).try_collect().await?;
    let pushed = Instant::now();
    assert_eq!(digests.iter().collect::<BTreeSet<_>>().len(), BURST);
    let wanted = tags(here).await?;
    ensure!(wanted.iter().filter(|tag| tag.starts_with("burst-")).count() == BURST, "here are {wanted:?}");
    wait::poll("the tags to be the same", async || {
        let found = tags(there).await?;
        let missing: Vec<_> = wanted.difference(&found).collect();
        let more: Vec<_> = found.difference(&wanted).collect();
        ensure!(missing.is_empty() && more.is_empty(), "missing are {missing:?}, too many are {more:?}");
        Ok(())
    })
    .await?;
    let took = pushed.duration_since(began);
    eprintln!("{BURST} pushes took {took:.1?}, and had arrived {:.1?} later", pushed.elapsed());
    Ok(())
}

async fn tags(remote: &Remote) -> Result<BTreeSet<String>> {
    let answer = remote.http().send(Method::GET, "/v2/team/app/tags/list?n=1000", "").await?;
    ensure!(answer.status == StatusCode::OK, "the tags are answered {}", answer.status);
    let list: Value = serde_json::from_slice(&answer.body)?;
    Ok(serde_json::from_value(list["tags"].clone())?)
}

/// Pushes a manifest that refers to the image, and returns its digest.
async fn sign(here: &Remote, image: &image::Image) -> Result<String> {
    const EMPTY: &str = "{}";
    let config = here.http().push_blob("team/app", EMPTY.as_bytes()).await?;
    let answer = here.http().send(Method::GET, "/v2/team/app/manifests/1", "").await?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.signature",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": EMPTY.len()},
        "layers": [{"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": EMPTY.len()}],
        "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.digest,
            "size": answer.body.len(),
        },
    });
    here.http().push_manifest("team/app", &manifest).await
}
