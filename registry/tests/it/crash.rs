//! kill -9 in the middle of pushes: what was acknowledged is there and whole afterwards, and nothing half is served.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use oci::{Digest, manifest};
use serde_json::Value;

use crate::{
    client::{Client, Failure},
    image::{image, noise, sha256},
    server::Server,
};

const ROUNDS: usize = 8;
const PUSHERS: u64 = 4;

/// What the server said is stored.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<Digest>,
    tags: Vec<(String, Digest)>,
}

/// Pushes images until the server is gone.
async fn push_until_the_end(client: Client, seed: u64, count: Arc<AtomicUsize>) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    for n in 0.. {
        if push_one(&client, seed * 1_000_000 + n, &mut acknowledged).await.is_err() {
            break;
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

async fn push_one(client: &Client, seed: u64, acknowledged: &mut Acknowledged) -> Result<(), Failure> {
    let config = Bytes::from(format!("{{\"seed\":{seed}}}"));
    let layer = noise(seed, usize::try_from(seed % 7).unwrap() * 50_000 + 1000);
    for content in [&config, &layer] {
        acknowledged.blobs.push(client.try_push_blob("crash/test", content.clone()).await?);
    }
    let document = image(&config, &[&layer]).to_string();
    let tag = format!("t{}", seed % 50);
    let path = format!("/v2/crash/test/manifests/{tag}");
    let headers = [("content-type", manifest::IMAGE)];
    let pushed = client.try_send(Method::PUT, &path, &headers, document.clone()).await?;
    pushed.expect(StatusCode::CREATED);
    acknowledged.tags.push((tag, sha256(document.as_bytes())));
    Ok(())
}

async fn check(client: &Client, acknowledged: &Acknowledged) {
    for digest in &acknowledged.blobs {
        let answer = client.get(&format!("/v2/crash/test/blobs/{digest}")).await.expect(StatusCode::OK);
        assert_eq!(sha256(&answer.body), *digest);
    }
    for (_, digest) in &acknowledged.tags {
        let answer = client.get(&format!("/v2/crash/test/manifests/{digest}")).await.expect(StatusCode::OK);
        assert_eq!(sha256(&answer.body), *digest);
    }
}

/// Every tag that is listed can be pulled whole.
async fn check_what_is_visible(client: &Client) {
    let listed: Value = client.get("/v2/crash/test/tags/list").await.expect(StatusCode::OK).json();
    for tag in listed["tags"].as_array().unwrap() {
        let path = format!("/v2/crash/test/manifests/{}", tag.as_str().unwrap());
        let document: Value = client.get(&path).await.expect(StatusCode::OK).json();
        for descriptor in document["layers"].as_array().unwrap().iter().chain([&document["config"]]) {
            let digest = descriptor["digest"].as_str().unwrap();
            client.get(&format!("/v2/crash/test/blobs/{digest}")).await.expect(StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let root = tempfile::tempdir().unwrap();
    let mut all = Acknowledged::default();
    for round in 0..ROUNDS {
        let server = Server::start(root.path());
        let client = server.client();
        check(&client, &all).await;
        if round > 0 {
            check_what_is_visible(&client).await;
        }
        let count = Arc::new(AtomicUsize::new(0));
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                let seed = round as u64 * PUSHERS + pusher;
                tokio::spawn(push_until_the_end(client.clone(), seed, Arc::clone(&count)))
            })
            .collect();
        // At another point of the pushes each time.
        while count.load(Ordering::Relaxed) < 3 + round * 2 {
            tokio::task::yield_now().await;
        }
        server.kill();
        for pusher in pushers {
            let acknowledged = pusher.await.unwrap();
            all.blobs.extend(acknowledged.blobs);
            all.tags.extend(acknowledged.tags);
        }
    }
    let server = Server::start(root.path());
    check(&server.client(), &all).await;
    check_what_is_visible(&server.client()).await;
    assert_eq!(std::fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(root.path().join("quarantine")).unwrap().count(), 0);
    assert!(all.tags.len() >= ROUNDS * 3, "too little was pushed to say anything");
}
