//! Protocol: points 32 and 34 to 37 without credentials.

use http::{Method, StatusCode};
use oci::{ErrorCode, ErrorList};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{image::sha256, server::Server};

#[tokio::test]
async fn p32_the_base_says_that_this_is_a_registry() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    for path in ["/v2/", "/v2"] {
        let answer = server.client().get(path).await.expect(StatusCode::OK);
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        server.client().head(path).await.expect(StatusCode::OK);
    }
    server.client().get("/").await.expect(StatusCode::NOT_FOUND);
}

#[rstest]
#[case::upper_case("/v2/A/tags/list", ErrorCode::NameInvalid)]
#[case::parent("/v2/a/../../b/tags/list", ErrorCode::NameInvalid)]
#[case::encoded_parent("/v2/%2e%2e/tags/list", ErrorCode::NameInvalid)]
#[case::encoded_slash("/v2/a%2fb/manifests/v1", ErrorCode::NameInvalid)]
#[case::nul("/v2/a%00/manifests/v1", ErrorCode::NameInvalid)]
#[case::empty_component("/v2/a//b/tags/list", ErrorCode::NameInvalid)]
#[case::reserved("/v2/a/_blobs/tags/list", ErrorCode::NameInvalid)]
#[case::too_long(&format!("/v2/{}/tags/list", "a".repeat(256)), ErrorCode::NameInvalid)]
#[case::digest("/v2/a/blobs/..%2f..%2fetc", ErrorCode::DigestInvalid)]
#[tokio::test]
async fn p36_names_outside_the_grammar_touch_no_file(#[case] path: &str, #[case] code: ErrorCode) {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    for method in [Method::GET, Method::DELETE] {
        let answer = server.client().send(method, path, &[], "").await;
        if answer.status != StatusCode::METHOD_NOT_ALLOWED {
            answer.expect_error(StatusCode::BAD_REQUEST, code);
        }
    }
    // Pushing there is as impossible, in whatever way.
    let (start, _) = path.rsplit_once("/tags/list").unwrap_or((path, ""));
    let (start, _) = start.rsplit_once("/manifests/").unwrap_or((start, ""));
    for (method, path) in [
        (Method::POST, format!("{start}/blobs/uploads/")),
        (Method::POST, format!("{start}/blobs/uploads/?digest={}", sha256(b"x"))),
        (Method::PATCH, format!("{start}/blobs/uploads/00000000-0000-4000-8000-000000000000")),
        (Method::PUT, format!("{start}/blobs/uploads/00000000-0000-4000-8000-000000000000?digest=sha256:0")),
        (Method::PUT, format!("{start}/manifests/v1")),
    ] {
        let answer = server.client().send(method, &path, &[], "x").await;
        if code == ErrorCode::NameInvalid {
            answer.expect_error(StatusCode::BAD_REQUEST, code);
        } else {
            assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
        }
    }
    assert_eq!(server.stored("repositories"), 0);
    assert_eq!(server.stored("uploads"), 0);
}

#[tokio::test]
async fn p36_what_is_no_tag_is_not_there_and_can_not_be_pushed() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    for tag in [&"a".repeat(129), "..%2f..%2fetc", ".hidden", "a%20b"] {
        let path = format!("/v2/a/manifests/{tag}");
        let refused = server.client().get(&path).await;
        refused.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown);
        let refused = server.client().put(&path, &[], "{}").await;
        refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid);
    }
    assert_eq!(server.stored("repositories"), 0);
}

#[tokio::test]
async fn p35_errors_are_json_and_carry_the_requests_id() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let refused = client.send(Method::PATCH, "/v2/a/manifests/v1", &[], "").await;
    let refused = refused.expect_error(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported);
    assert_eq!(refused.header("allow"), "GET, HEAD, PUT, DELETE");
    client.get("/v2/a/nothing").await.expect_error(StatusCode::NOT_FOUND, ErrorCode::Unsupported);

    // A tag that can't be read is the server's fault: no internals for the client, all of them in the log.
    client.push_image("a", "v1", "layer").await;
    server.obstruct("repositories/a/_tags/v1");
    let failed = client.get("/v2/a/manifests/v1").await.expect(StatusCode::INTERNAL_SERVER_ERROR);
    let list: ErrorList = failed.json();
    let id = failed.header("x-request-id");
    assert!(list.errors[0].message.contains(id) && !list.errors[0].message.contains("_tags"), "{list:?}");
    server.logged(|line| {
        line["request"] == id && line["error"].as_str().is_some_and(|why| why.contains("_tags/v1"))
    });
}

#[tokio::test]
async fn every_request_is_one_log_line_with_what_one_asks_for_later() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let digest = client.push_blob("team/app", "content").await;
    let pulled = client.get(&format!("/v2/team/app/blobs/{digest}")).await;
    let id = pulled.header("x-request-id").to_owned();
    let line = server.logged(|line| line["request"] == id);
    assert_eq!(line["repository"], "team/app");
    assert_eq!(line["digest"], digest.as_str());
    assert_eq!(line["status"], 200);
    assert_eq!(line["sent_bytes"], 7);
    assert_eq!(line["complete"], true);
    assert!(line["duration_ms"].is_u64());
    let pushed = server.logged(|line| line["message"] == "request" && line["method"] == "POST");
    assert_eq!((&pushed["received_bytes"], &pushed["status"]), (&7.into(), &201.into()), "{pushed}");
    assert_eq!((&pushed["repository"], &pushed["digest"]), (&"team/app".into(), &digest.as_str().into()));
}

#[tokio::test]
async fn p37_endless_headers_are_cut_off() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let mut stream = TcpStream::connect(server.address("registry")).await.unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let line = format!("X-Padding: {}\r\n", "x".repeat(8000));
    let mut sent = 0;
    // A hundred megabytes, if the server let us.
    while sent < 100 << 20 && stream.write_all(line.as_bytes()).await.is_ok() {
        sent += line.len();
    }
    assert!(sent < 20 << 20, "{sent} bytes of headers were taken");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    server.client().get("/v2/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn health_and_metrics() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--health-listen", "127.0.0.1:0"]);
    });
    server.client().push_blob("a", "content").await;
    let health = server.health();
    health.get("/healthz").await.expect(StatusCode::OK);
    health.get("/readyz").await.expect(StatusCode::OK);
    let page = health.get("/metrics").await.expect(StatusCode::OK);
    let page = String::from_utf8_lossy(&page.body);
    assert!(page.contains("berth_registry_storage_size_bytes "), "{page}");
    assert!(page.contains("berth_registry_requests_in_flight "), "{page}");
}
