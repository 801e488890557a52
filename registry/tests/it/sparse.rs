//! Sparse manifests, point 22: what may be missing where the registry allows it, and what holds then.

use http::StatusCode;
use oci::{ErrorCode, manifest};
use serde_json::{Value, json};

use crate::{
    image::{descriptor, image, sha256},
    server::Server,
};

fn index(children: &[&Value]) -> Value {
    let children: Vec<_> =
        children.iter().map(|child| descriptor(manifest::IMAGE, child.to_string().as_bytes())).collect();
    json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": children})
}

fn start(root: &std::path::Path, allowed: &str) -> Server {
    Server::with(root, |command| {
        command.args(["--allow-sparse", allowed]);
    })
}

#[tokio::test]
async fn p22_an_index_may_come_before_its_manifests() {
    let root = tempfile::tempdir().unwrap();
    let server = start(root.path(), "indexes");
    let client = server.client();
    let amd64 = client.push_image("a", "amd64", "amd64").await;
    let arm64 = image(b"{}", &[b"arm64"]);
    let there = client.get("/v2/a/manifests/amd64").await.json();
    let index = index(&[&there, &arm64]);
    client.put_manifest("a", "v1", &index).await.expect(StatusCode::CREATED);
    client.get(&format!("/v2/a/manifests/{amd64}")).await.expect(StatusCode::OK);
    let missing = format!("/v2/a/manifests/{}", sha256(arm64.to_string().as_bytes()));
    client.get(&missing).await.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown);

    // An image comes after its blobs all the same.
    let refused = client.put_manifest("a", "arm64", &arm64).await;
    refused.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown);
    client.push_blob("a", "{}").await;
    client.push_blob("a", "arm64").await;
    client.put_manifest("a", "arm64", &arm64).await.expect(StatusCode::CREATED);
    for child in [missing, format!("/v2/a/manifests/{amd64}")] {
        let refused = client.delete(&child).await;
        let refused = refused.expect_error(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported);
        let parent = sha256(index.to_string().as_bytes());
        assert!(String::from_utf8_lossy(&refused.body).contains(parent.as_str()));
    }
}

#[tokio::test]
async fn p22_images_may_lack_blobs() {
    let root = tempfile::tempdir().unwrap();
    let server = start(root.path(), "all");
    let client = server.client();
    client.push_blob("a", "{}").await;
    // That another repository has it gives this one no right to it.
    client.push_blob("secret", "layer").await;
    client.put_manifest("a", "v1", &image(b"{}", &[b"layer", b"later"])).await.expect(StatusCode::CREATED);
    client.put_manifest("a", "index", &index(&[&image(b"{}", &[b"x"])])).await.expect(StatusCode::CREATED);
    client.get(&format!("/v2/a/blobs/{}", sha256(b"layer"))).await.expect(StatusCode::NOT_FOUND);

    let later = client.push_blob("a", "later").await;
    client.delete(&format!("/v2/a/blobs/{later}")).await.expect(StatusCode::METHOD_NOT_ALLOWED);
}
