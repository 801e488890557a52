//! A registry in a bucket keeps neither stamps nor a feed, and says so.

use http::{Method, StatusCode};
use oci::{ErrorCode, manifest};

use crate::{image::image, server::Server};

#[tokio::test]
async fn a_bucket_keeps_neither_stamps_nor_a_feed() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_image("a", "v1", "layer").await;
    for path in ["/v2/a/_berth/replication/state", "/v2/_berth/replication/feed"] {
        let answer = client.get(path).await.expect_error(StatusCode::NOT_FOUND, ErrorCode::Unsupported);
        assert!(!answer.headers.contains_key("berth-registry"));
    }
    client.push_blob("a", "config").await;
    let path = "/v2/a/manifests/v1";
    let origin = ("berth-origin", "elsewhere; time=2026-01-01T00:00:00Z");
    let headers = [("content-type", manifest::IMAGE), origin];
    let refused = client.put(path, &headers, image(b"config", &[]).to_string()).await;
    refused.expect_error(StatusCode::NOT_FOUND, ErrorCode::Unsupported);
    let refused = client.send(Method::DELETE, path, &[origin], "").await;
    refused.expect_error(StatusCode::NOT_FOUND, ErrorCode::Unsupported);
    client.get(path).await.expect(StatusCode::OK);
}
