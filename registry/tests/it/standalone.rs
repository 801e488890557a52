//! Starting, refusing to start, and ending.

use std::{process::Stdio, time::Duration};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    image::{noise, sha256},
    policy_file::Standalone,
    server::{Server, berth_registry},
};

fn refusal(root: &std::path::Path, arguments: &[&str]) -> String {
    let mut command = berth_registry();
    let output = command.arg("--root").arg(root).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn anonymous_access_is_for_loopback_unless_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let message = refusal(root.path(), &["--listen", "0.0.0.0:0"]);
    assert!(message.contains("refusing to serve anonymously") && message.contains("--open"), "{message}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "nothing was touched");
}

#[tokio::test]
async fn a_root_has_one_server() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let message = refusal(root.path(), &["--listen", "127.0.0.1:0"]);
    assert!(message.contains("in use by another berth-registry"), "{message}");
    server.client().get("/v2/").await.expect(StatusCode::OK);
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("thesis.txt"), "").unwrap();
    let message = refusal(root.path(), &["--listen", "127.0.0.1:0"]);
    assert!(message.contains("not empty") && message.contains("thesis.txt"), "{message}");
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("berth.json"), r#"{"layout":9}"#).unwrap();
    let message = refusal(other.path(), &["--listen", "127.0.0.1:0"]);
    assert!(message.contains("layout version 9"), "{message}");
}

#[tokio::test]
async fn sigterm_lets_a_running_push_finish_and_nobody_new_in() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::with(root.path(), |command| {
        command.args(["--health-listen", "127.0.0.1:0"]);
    });
    let content = noise(1, 600_000);
    let digest = sha256(&content);
    let mut push = TcpStream::connect(server.address("registry")).await.unwrap();
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    push.write_all(head.as_bytes()).await.unwrap();
    push.write_all(&content[..300_000]).await.unwrap();
    // The push has begun for certain once its session is there.
    while std::fs::read_dir(root.path().join("uploads")).unwrap().count() == 0 {
        tokio::task::yield_now().await;
    }

    server.terminate();
    loop {
        let ready = server.health().get("/readyz").await;
        if ready.status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(ready.body, "shutting down\n");
            break;
        }
    }
    server.health().get("/healthz").await.expect(StatusCode::OK);
    while TcpStream::connect(server.address("registry")).await.is_ok() {}

    push.write_all(&content[300_000..]).await.unwrap();
    let mut answer = String::new();
    push.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(server.wait().success());

    let server = Server::start(root.path());
    assert_eq!(server.client().get(&format!("/v2/a/blobs/{digest}")).await.body, content);
}

#[tokio::test]
async fn sigterm_turns_readiness_before_anybody_is_kept_out() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::with(root.path(), |command| {
        command.args(["--health-listen", "127.0.0.1:0", "--drain-delay-seconds", "3600"]);
    });
    server.terminate();
    while server.health().get("/readyz").await.status == StatusCode::OK {}
    for _ in 0..10 {
        server.client().get("/v2/").await.expect(StatusCode::OK);
    }
    server.terminate();
    assert!(server.wait().success());
}

#[tokio::test]
async fn a_stuck_client_does_not_hold_up_the_end_beyond_the_grace_time() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::with(root.path(), |command| {
        command.args(["--grace-seconds", "1"]);
    });
    let session = server.client().start_upload("a").await;
    let mut stuck = TcpStream::connect(server.address("registry")).await.unwrap();
    let head = format!("PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nfew");
    stuck.write_all(head.as_bytes()).await.unwrap();
    let started = std::time::Instant::now();
    server.terminate();
    assert!(server.wait().success());
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_key_of_tokens_is_readable_by_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let standalone = Standalone::start();
    let key = standalone.folder.path().join("root/token.key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
}
