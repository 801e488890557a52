//! Limits that whoever runs the registry sets: point 37.

use http::StatusCode;
use oci::ErrorCode;

use crate::{
    image::{noise, sha256},
    server::Server,
};

#[tokio::test]
async fn p37_blobs_larger_than_allowed_are_refused_and_leave_nothing() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--max-blob-size", "1Mi"]);
    });
    let client = server.client();
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid);
    let (largest, larger) = (noise(1, 1 << 20), noise(2, (1 << 20) + 1));
    client.push_blob("a", largest).await;
    let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(&larger));
    let refused = client.post(&path, larger.clone()).await.expect_error(too_large.0, too_large.1);
    assert!(String::from_utf8_lossy(&refused.body).contains("1048576 bytes"));
    assert_eq!(server.stored("uploads"), 0);

    // In pieces: the one that is too much is forgotten, what came before it stays.
    let session = client.start_upload("a").await;
    client.patch(&session, &[], larger.slice(..1_000_000)).await.expect(StatusCode::ACCEPTED);
    client.patch(&session, &[], larger.slice(1_000_000..)).await.expect_error(too_large.0, too_large.1);
    assert_eq!(client.get(&session).await.header("range"), "0-999999");
}
