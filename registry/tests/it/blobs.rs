//! Pulling and deleting blobs: points 15 to 18a.

use http::{Method, StatusCode};
use oci::{ErrorCode, manifest::INDEX};
use serde_json::json;

use crate::{
    image::{image, noise, sha256},
    server::Server,
};

#[tokio::test]
async fn p15_ranges() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let content = noise(15, 700_000);
    let digest = client.push_blob("a", content.clone()).await;
    let path = format!("/v2/a/blobs/{digest}");
    for (range, first, end) in [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 700_000),
        ("bytes=-500", 699_500, 700_000),
        ("bytes=699999-900000", 699_999, 700_000),
        ("bytes=200000-600000", 200_000, 600_001),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = client.send(method.clone(), &path, &[("range", range)], "").await;
            let answer = answer.expect(StatusCode::PARTIAL_CONTENT);
            assert_eq!(answer.header("content-range"), format!("bytes {first}-{}/700000", end - 1));
            assert_eq!(answer.header("content-length"), (end - first).to_string());
            if method == Method::GET {
                assert_eq!(answer.body, content.slice(first..end));
            }
        }
    }
    let beyond = client.send(Method::GET, &path, &[("range", "bytes=700000-")], "").await;
    assert_eq!(beyond.expect(StatusCode::RANGE_NOT_SATISFIABLE).header("content-range"), "bytes */700000");
}

#[tokio::test]
async fn p16_head_and_conditions() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let digest = client.push_blob("a", "content").await;
    let path = format!("/v2/a/blobs/{digest}");
    let (head, get) = (client.head(&path).await, client.get(&path).await);
    for answer in [&head, &get] {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-length"), "7");
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert_eq!(answer.header("docker-content-digest"), digest.as_str());
        assert_eq!(answer.header("etag"), format!("\"{digest}\""));
    }
    assert!(head.body.is_empty());
    let etag = format!("\"{digest}\"");
    for known in [&etag, &format!("W/{etag}"), "*", &format!("\"other\", {etag}")] {
        let answer = client.send(Method::GET, &path, &[("if-none-match", known)], "").await;
        assert!(answer.expect(StatusCode::NOT_MODIFIED).body.is_empty());
    }
    let answer = client.send(Method::GET, &path, &[("if-none-match", "\"other\"")], "").await;
    answer.expect(StatusCode::OK);
    for (if_range, status) in [(etag.as_str(), StatusCode::PARTIAL_CONTENT), ("\"other\"", StatusCode::OK)] {
        let headers = [("range", "bytes=0-2"), ("if-range", if_range)];
        client.send(Method::GET, &path, &headers, "").await.expect(status);
    }
}

#[tokio::test]
async fn p17_a_deleted_blob_is_gone_there_and_stays_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let digest = client.push_blob("a", "shared").await;
    client.push_blob("b", "shared").await;
    client.delete(&format!("/v2/a/blobs/{digest}")).await.expect(StatusCode::ACCEPTED);
    let gone = client.get(&format!("/v2/a/blobs/{digest}")).await;
    gone.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown);
    client.delete(&format!("/v2/a/blobs/{digest}")).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(client.get(&format!("/v2/b/blobs/{digest}")).await.body, "shared");
}

#[tokio::test]
async fn p18_content_that_was_cut_short_is_never_served_and_a_push_brings_it_back() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let digest = client.push_blob("a", "content").await;
    server.damage(&digest, |content| content[..3].to_vec());
    let path = format!("/v2/a/blobs/{digest}");
    client.get(&path).await.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown);
    client.head(&path).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(server.stored("quarantine"), 1);
    server.logged(|line| line["message"].as_str().is_some_and(|text| text.contains("has the wrong length")));
    client.push_blob("a", "content").await;
    assert_eq!(client.get(&path).await.expect(StatusCode::OK).body, "content");
}

#[tokio::test]
async fn p18_a_manifest_that_was_changed_is_never_served() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let digest = client.push_image("a", "v1", "layer").await;
    server.damage(&digest, |content| {
        String::from_utf8(content).unwrap().replace("schemaVersion", "schemaversion").into()
    });
    let refused = client.get("/v2/a/manifests/v1").await;
    refused.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown);
    client.push_image("a", "v1", "layer").await;
    client.get("/v2/a/manifests/v1").await.expect(StatusCode::OK);

    // One that may be compared while it is sent.
    let pad = "x".repeat(100_000);
    let large = json!({"schemaVersion": 2, "manifests": [], "annotations": {"pad": pad}}).to_string();
    let push = async || client.put("/v2/a/manifests/v2", &[("content-type", INDEX)], large.clone()).await;
    push().await.expect(StatusCode::CREATED);
    server.damage(&sha256(large.as_bytes()), |content| {
        String::from_utf8(content).unwrap().replace("schemaVersion", "schemaversion").into()
    });
    if let Ok(answer) = client.try_send(Method::GET, "/v2/a/manifests/v2", &[], "").await {
        answer.expect(StatusCode::NOT_FOUND);
    }
    let refused = client.get("/v2/a/manifests/v2").await;
    refused.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown);
    push().await.expect(StatusCode::CREATED);
    assert_eq!(client.get("/v2/a/manifests/v2").await.expect(StatusCode::OK).body, large);
}

#[tokio::test]
async fn p18a_a_blob_that_a_manifest_needs_stays() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let manifest = client.push_image("a", "v1", "layer").await;
    let blob = format!("/v2/a/blobs/{}", sha256(b"layer"));
    let refused = client.delete(&blob).await;
    let refused = refused.expect_error(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported);
    assert!(String::from_utf8_lossy(&refused.body).contains(manifest.as_str()));
    client.delete("/v2/a/manifests/v1").await.expect(StatusCode::ACCEPTED);
    client.delete(&blob).await.expect(StatusCode::METHOD_NOT_ALLOWED);
    client.delete(&format!("/v2/a/manifests/{manifest}")).await.expect(StatusCode::ACCEPTED);
    client.delete(&blob).await.expect(StatusCode::ACCEPTED);
    let again = client.put_manifest("a", "v1", &image(b"{\"of\":\"layer\"}", &[b"layer"])).await;
    again.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown);
}
