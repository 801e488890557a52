//! What only shows where several instances share a bucket, or where blobs are larger than a part.

use http::StatusCode;
use oci::{Algorithm, Digest};

use crate::{
    image::{image, noise, sha256},
    server::Server,
};

#[tokio::test]
async fn blobs_of_several_parts_in_chunks_of_any_size() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let content = noise(1, 30_000_000);
    for chunk in [30_000_000, 11_000_000, 8 << 20, 3_000_000] {
        let digest = Digest::of(Algorithm::Sha256, &content[chunk % 7..]);
        let session = client.start_upload("a").await;
        let mut first = chunk % 7;
        while first < content.len() {
            let end = (first + chunk).min(content.len());
            client.patch(&session, &[], content.slice(first..end)).await.expect(StatusCode::ACCEPTED);
            first = end;
        }
        client.put(&format!("{session}?digest={digest}"), &[], "").await.expect(StatusCode::CREATED);
        let path = format!("/v2/a/blobs/{digest}");
        assert!(client.get(&path).await.expect(StatusCode::OK).body == content[chunk % 7..], "{chunk}");
        let range = [("range", "bytes=8388000-17000000")];
        let part = client.send(http::Method::GET, &path, &range, "").await;
        let whole = content.slice(chunk % 7..);
        assert!(part.expect(StatusCode::PARTIAL_CONTENT).body == whole[8_388_000..=17_000_000]);
    }
    assert_eq!(server.stored("uploads"), 0);
    assert_eq!(server.bucket.unfinished(), 0);
}

#[tokio::test]
async fn a_chunk_that_is_forgotten_leaves_the_parts_before_it() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let content = noise(2, 40_000_000);
    let session = client.start_upload("a").await;
    client.patch(&session, &[], content.slice(..10_000_000)).await.expect(StatusCode::ACCEPTED);
    // Parts of what is not what it says are written, and then forgotten.
    let wrong = [("content-range", "10000000-39999999"), ("transfer-encoding", "chunked")];
    let refused = client.patch(&session, &wrong, content.slice(..25_000_000)).await;
    refused.expect(StatusCode::BAD_REQUEST);
    assert_eq!(client.get(&session).await.header("range"), "0-9999999");
    client.patch(&session, &[], content.slice(10_000_000..)).await.expect(StatusCode::ACCEPTED);
    let digest = sha256(&content);
    client.put(&format!("{session}?digest={digest}"), &[], "").await.expect(StatusCode::CREATED);
    assert!(client.get(&format!("/v2/a/blobs/{digest}")).await.body == content);
}

#[tokio::test]
async fn a_large_blob_that_was_changed_is_never_served_whole() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let digest = client.push_blob("a", noise(3, 1_000_000)).await;
    server.damage(&digest, |mut content| {
        content[999_999] ^= 1;
        content
    });
    let path = format!("/v2/a/blobs/{digest}");
    // The connection breaks before the last bytes.
    assert!(client.try_send(http::Method::GET, &path, &[], "").await.is_err());
    client.get(&path).await.expect(StatusCode::NOT_FOUND);
    client.push_blob("a", noise(3, 1_000_000)).await;
    assert!(client.get(&path).await.expect(StatusCode::OK).body == noise(3, 1_000_000));
}

#[tokio::test]
async fn what_requests_cost() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let cost = async |method: &str, path: &str| {
        let before = server.bucket.operations();
        client.send(method.parse().unwrap(), path, &[], "").await.expect(StatusCode::OK);
        server.bucket.operations() - before
    };
    let pushed = async |bytes| {
        let before = server.bucket.operations();
        client.push_blob("a", bytes).await;
        server.bucket.operations() - before
    };
    assert_eq!(pushed(noise(5, 1000)).await, 11);
    // In three parts.
    assert_eq!(pushed(noise(6, 20_000_000)).await, 18);
    assert_eq!(pushed("{}".into()).await, 11);
    for n in 0..30 {
        client.put_manifest("a", &format!("v{n}"), &image(b"{}", &[])).await.expect(StatusCode::CREATED);
    }
    let blob = client.push_blob("a", noise(4, 100_000)).await;
    assert_eq!(cost("HEAD", &format!("/v2/a/blobs/{blob}")).await, 4);
    assert_eq!(cost("GET", &format!("/v2/a/blobs/{blob}")).await, 4);
    assert_eq!(cost("HEAD", "/v2/a/manifests/v1").await, 2);
    assert_eq!(cost("GET", "/v2/a/manifests/v1").await, 2);
    assert_eq!(cost("GET", "/v2/a/tags/list?n=10").await, 1);
    assert_eq!(cost("GET", &format!("/v2/a/referrers/{blob}")).await, 1);
    assert_eq!(cost("GET", "/v2/_catalog").await, 3);
}
