//! Starting, refusing to start, and ending.

use std::{process::Stdio, time::Duration};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    image::noise,
    pki::Authority,
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

#[tokio::test]
async fn there_are_as_many_metrics_whatever_lies_in_the_registry() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--health-listen", "127.0.0.1:0"]);
    });
    let use_all = async |repository: &str| {
        let client = server.client();
        let digest = client.push_image(repository, "v1", "layer").await;
        for path in [format!("manifests/{digest}"), "manifests/none".to_owned(), "tags/list".to_owned()] {
            client.get(&format!("/v2/{repository}/{path}")).await;
        }
    };
    let series = async || {
        let page = server.health().get("/metrics").await.expect(StatusCode::OK);
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        page.lines().filter(|line| !line.starts_with('#')).count()
    };
    use_all("first").await;
    let before = series().await;
    for number in 0..100 {
        use_all(&format!("team/app{number}")).await;
    }
    assert_eq!(series().await, before);
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_old_ones_go_on() {
    let (root, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (Authority::new(), Authority::new());
    let (cert, key) = first.sign(&["localhost"]).write(files.path(), "serving");
    let server = Server::with(root.path(), |command| {
        command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
    });
    let before = server.client().over_tls(first.trusted());
    // More than the kernel takes for a client that does not read.
    let blob = noise(32, 30_000_000);
    let path = format!("/v2/a/blobs/{}", before.push_blob("a", blob.clone()).await);
    let tcp = TcpStream::connect(server.address("registry")).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(first.trusted()));
    let mut pull = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    pull.write_all(head.as_bytes()).await.unwrap();
    let mut begun = vec![0; 1000];
    pull.read_exact(&mut begun).await.unwrap();

    second.sign(&["localhost"]).write(files.path(), "serving");
    let after = server.client().over_tls(second.trusted());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while after.try_send(http::Method::GET, "/v2/", &[], "").await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(before.try_send(http::Method::GET, "/v2/", &[], "").await.is_err(), "nor is the former one");
    pull.read_to_end(&mut begun).await.unwrap();
    assert_eq!(&begun[begun.len() - blob.len()..], &blob[..]);
}

#[tokio::test]
async fn memory_does_not_grow_with_the_size_of_a_blob() {
    const PIECES: usize = 512;
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let server = Server::start(folder.path());
    let piece = noise(512, 1 << 20);
    let mut hasher = oci::Hasher::new(oci::Algorithm::Sha256);
    (0..PIECES).for_each(|_| hasher.update(&piece));
    let digest = hasher.finish();
    let mut stream = TcpStream::connect(server.address("registry")).await.unwrap();
    let length = PIECES * piece.len();
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut most = 0;
    for _ in 0..PIECES {
        stream.write_all(&piece).await.unwrap();
        most = most.max(server.memory());
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 201");
    drop(stream);
    // Compared with its digest the first time, sent as a file the second.
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address("registry")).await.unwrap();
        let head = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut buffer, mut taken) = (vec![0; 1 << 20], 0);
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            if read == 0 {
                break;
            }
            taken += read;
            most = most.max(server.memory());
        }
        assert!(taken > length, "{taken}");
    }
    assert!(most < 30 << 20, "{most} bytes");
}

#[test]
fn the_key_of_tokens_is_readable_by_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let standalone = Standalone::start();
    let key = standalone.folder.path().join("root/token.key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
}
