//! Images whose manifests name each other in many ways: each is asked for and sent once, whoever made them.

use std::collections::BTreeMap;

use http::StatusCode;
use oci::manifest::{IMAGE, INDEX};
use serde_json::{Value, json};

use crate::{
    client::Client,
    image::{descriptor, sha256},
    proxy::{Asked, Proxy},
    world::World,
};

/// How often anything was asked for, at most.
fn most(proxy: &Proxy, kind: &str) -> usize {
    let mut counts = BTreeMap::new();
    for asked in proxy.asked().iter().filter(|asked| asked.kind() == kind) {
        *counts.entry(asked.path.clone()).or_insert(0) += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

/// Indexes of the same manifests, which are different ones.
async fn alike(client: &Client, children: &[Value], tag: Option<&str>, number: usize) -> Value {
    let document = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": children,
        "annotations": {"number": number.to_string()},
    });
    let digest = sha256(document.to_string().as_bytes()).to_string();
    client.put_manifest("a", tag.unwrap_or(&digest), &document).await.expect(StatusCode::CREATED);
    descriptor(INDEX, document.to_string().as_bytes())
}

/// A million ways lead from the top to the bottom.
#[tokio::test]
async fn what_many_indexes_name_is_brought_once() {
    let world = World::new().await;
    let client = world.source.client();
    let mut level = vec![client.push_noise("a", None, 1, None).await];
    for _ in 0..10 {
        let mut above = Vec::new();
        for number in 0..4 {
            let mut index = alike(&client, &level, None, number).await;
            if number == 3 {
                // Nobody has to say what it is.
                index["mediaType"] = json!(IMAGE);
            }
            above.push(index);
        }
        level = above;
    }
    alike(&client, &level, Some("v1"), 0).await;
    world.copy().await;
    world.target.client().head("/v2/a/manifests/v1").await.expect(StatusCode::OK);
    assert_eq!(most(&world.to, "PUT manifest"), 1);
    assert_eq!(most(&world.to, "HEAD blob"), 1);
    // What a wrong descriptor names is looked at, and again in its turn.
    assert!(most(&world.to, "HEAD manifest") <= 8, "{}", most(&world.to, "HEAD manifest"));
    assert!(most(&world.from, "GET manifest") <= 8, "{}", most(&world.from, "GET manifest"));
    assert_eq!(most(&world.from, "GET referrers"), 1);
}

#[tokio::test]
async fn lists_of_referrers_may_name_each_other() {
    let world = World::new().await;
    let client = world.source.client();
    let subject = client.push_noise("a", Some("v1"), 1, None).await;
    let mut all = vec![subject.clone()];
    for seed in 2..8 {
        all.push(client.push_noise("a", None, seed, Some(&subject)).await);
    }
    // One that refers to what it consists of.
    let mut own = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [subject], "subject": subject});
    own["artifactType"] = json!("application/vnd.example");
    let digest = sha256(own.to_string().as_bytes()).to_string();
    client.put_manifest("a", &digest, &own).await.expect(StatusCode::CREATED);
    all.push(descriptor(INDEX, own.to_string().as_bytes()));
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": all}).to_string();
    for one in &all {
        let path = format!("/v2/a/referrers/{}", one["digest"].as_str().unwrap());
        world.from.answer(&path, &[(StatusCode::OK, list.clone())]);
    }
    world.copy().await;
    world.is_equal(&["a"]).await;
    assert!(most(&world.from, "GET referrers") <= 2, "{}", most(&world.from, "GET referrers"));
    assert_eq!(most(&world.to, "PUT manifest"), 1);
    // Also where all of it is there.
    drop((world.from.take(), world.to.take()));
    world.copy().await;
    assert_eq!(most(&world.from, "GET referrers"), 1);
    let puts = world.to.take().into_iter().filter(|asked: &Asked| asked.method == http::Method::PUT);
    assert_eq!(puts.count(), 0);
}

/// The record of its deletion is later than the tag, which needs it all the same.
#[tokio::test]
async fn what_an_index_needs_comes_back_where_it_was_deleted() {
    let world = World::new().await;
    world.from.say("berth-registry", "11111111-1111-1111-1111-111111111111");
    world.to.say("berth-registry", "22222222-2222-2222-2222-222222222222");
    let client = world.source.client();
    let child = client.push_noise("a", None, 1, None).await;
    client.push_index("a", Some("v1"), INDEX, std::slice::from_ref(&child)).await;
    let target = world.target.client();
    target.push_noise("a", None, 1, None).await;
    let path = format!("/v2/a/manifests/{}", child["digest"].as_str().unwrap());
    target.delete(&path).await.expect(StatusCode::ACCEPTED);
    world.copy().await;
    world.is_equal(&["a"]).await;
    let puts =
        world.to.take().into_iter().filter(|asked| asked.method == http::Method::PUT && asked.path == path);
    let answers: Vec<_> = puts.map(|asked| asked.status.unwrap()).collect();
    assert_eq!(answers, [StatusCode::PRECONDITION_FAILED, StatusCode::CREATED]);
}

/// A run that follows may last longer than the target keeps what nothing needs.
#[tokio::test]
async fn what_the_target_has_collected_meanwhile_is_brought_again() {
    let world = World::new().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    let (target, layer) = (world.target.client(), sha256(&crate::image::noise(1, 300_000)));
    let gone = std::sync::Arc::new(tokio::sync::OnceCell::new());
    world.to.hook(move |asked| {
        let (target, gone, path) = (target.clone(), gone.clone(), format!("/v2/a/blobs/{layer}"));
        let last = asked.kind() == "PUT manifest" && asked.path.ends_with("/v1");
        Box::pin(async move {
            if last {
                gone.get_or_init(async || drop(target.delete(&path).await.expect(StatusCode::ACCEPTED)))
                    .await;
            }
        })
    });
    let ran = world.copy().await;
    world.is_equal(&["a"]).await;
    assert!(ran.progress.bytes_moved >= 600_000, "{ran:#?}");
    let refused = world
        .to
        .take()
        .into_iter()
        .filter(|asked| asked.path.ends_with("/v1") && asked.method == http::Method::PUT);
    assert_eq!(refused.count(), 2, "the image is not tried again");
}
