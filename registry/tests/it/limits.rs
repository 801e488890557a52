//! Limits that whoever runs the registry sets: point 37.

use http::StatusCode;
use oci::{ErrorCode, ErrorList};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    image::{image, noise, sha256},
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

/// Sends all of a body, larger than what fits on the way, before it reads anything, as clients do.
#[rstest]
#[case::manifest("PUT /v2/a/manifests/v1", "413")]
#[case::malformed_digest("PUT SESSION?digest=sha256:nonsense", "400")]
#[case::no_digest("PUT SESSION", "400")]
#[case::unknown_session("PATCH /v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000", "404")]
#[case::another_digest("POST /v2/a/blobs/uploads/?digest=md5:0", "400")]
#[case::no_name("PUT /v2/A/manifests/v1", "400")]
#[case::no_method("PUT /v2/a/tags/list", "405")]
#[tokio::test]
async fn p06_a_refusal_reaches_who_is_still_sending(#[case] request: &str, #[case] status: &str) {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let session = server.client().start_upload("a").await;
    let request = request.replace("SESSION", &session);
    let body = vec![b'x'; 64 << 20];
    let mut stream = TcpStream::connect(server.address("registry")).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
}

#[tokio::test]
async fn p06_who_waits_to_be_asked_for_a_body_is_refused_at_once() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let mut stream = TcpStream::connect(server.address("registry")).await.unwrap();
    let head = "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 64000000\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
}

#[tokio::test]
async fn p37_a_manifest_that_needs_much_gets_a_small_answer() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let layers: Vec<_> = (0..2000).map(|n: u32| n.to_be_bytes()).collect();
    let layers: Vec<&[u8]> = layers.iter().map(<[u8; 4]>::as_slice).collect();
    let refused = server.client().put_manifest("a", "v1", &image(b"{}", &layers)).await;
    let refused = refused.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown);
    let list: ErrorList = refused.json();
    assert_eq!(list.errors.len(), 101);
    assert_eq!(list.errors[100].message, "and 1901 more");
    let many = image(b"{}", &vec![b"layer".as_slice(); 4000]);
    let refused = server.client().put_manifest("a", "v1", &many).await;
    refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid);
}
