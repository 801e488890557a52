//! kill -9 while a manifest with more tags goes than go in one change: before and after that all of it is there, or nothing.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::{
    client::Client,
    image::{image, sha256},
    server::Server,
};

const ROUNDS: u64 = 6;
/// As many as one push sets, so often.
const PUSHES: usize = 8;
const AT_ONCE: usize = 50;

async fn push(client: &Client, digest: &str, document: &Value) {
    client.push_blob("a", "{}").await;
    for push in 0..PUSHES {
        let tags: Vec<_> = (0..AT_ONCE).map(|n| format!("tag=v{push}-{n}")).collect();
        let reference = format!("{digest}?{}", tags.join("&"));
        client.put_manifest("a", &reference, document).await.expect(StatusCode::CREATED);
    }
}

/// Whether the manifest is there with all of its tags, or gone with all of them.
async fn is_there(client: &Client, path: &str) -> bool {
    let is_there = client.get(path).await.status == StatusCode::OK;
    let listed: Value = client.get("/v2/a/tags/list?n=1000").await.expect(StatusCode::OK).json();
    let count = listed["tags"].as_array().map_or(0, Vec::len);
    assert_eq!(count, if is_there { PUSHES * AT_ONCE } else { 0 });
    let last = client.get(&format!("/v2/a/manifests/v{}-{}", PUSHES - 1, AT_ONCE - 1)).await;
    assert_eq!(last.status == StatusCode::OK, is_there);
    is_there
}

#[tokio::test]
async fn a_manifest_with_many_tags_goes_with_all_of_them_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let document = image(b"{}", &[]);
    let digest = sha256(document.to_string().as_bytes());
    let path = format!("/v2/a/manifests/{digest}");
    for round in 0..ROUNDS {
        let server = Server::start(root.path());
        let client = server.client();
        push(&client, digest.as_str(), &document).await;
        assert!(is_there(&client, &path).await);
        let deleting = tokio::spawn({
            let (client, path) = (server.client(), path.clone());
            async move { client.try_send(Method::DELETE, &path, &[], "").await }
        });
        tokio::time::sleep(Duration::from_micros(round * 7919 % 30_000)).await;
        server.kill();
        let is_acknowledged =
            deleting.await.unwrap().is_ok_and(|answer| answer.status == StatusCode::ACCEPTED);
        let server = Server::start(root.path());
        assert!(!is_there(&server.client(), &path).await || !is_acknowledged);
    }
    super::assert_sound(root.path());
}
