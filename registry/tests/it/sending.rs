//! Large blobs, which are sent as files: points 15, 16, 18 and 37, byte for byte.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{image::noise, pki::Authority, server::Server};

const LARGE: usize = 5_000_000;

#[tokio::test]
async fn p15_every_part_of_a_large_blob_is_right() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let blob = noise(15, LARGE);
    let path = format!("/v2/a/blobs/{}", client.push_blob("a", blob.clone()).await);
    // Compared with its digest the first time, trusted from then on.
    for _ in 0..3 {
        let whole = client.get(&path).await.expect(StatusCode::OK);
        assert_eq!(whole.header("content-length"), LARGE.to_string());
        assert_eq!(whole.body, blob);
    }
    let megabyte = 1 << 20;
    for (first, length) in [
        (0, 1),
        (1, 65_535),
        (1, 65_536),
        (4095, 65_537),
        (0, megabyte),
        (1, megabyte),
        (7, megabyte + 1),
        (123, LARGE - 123),
        (LARGE - 1, 1),
    ] {
        let range = format!("bytes={first}-{}", first + length - 1);
        let part = client.send(Method::GET, &path, &[("range", &range)], "").await;
        let part = part.expect(StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.header("content-length"), length.to_string());
        assert_eq!(part.body, blob.slice(first..first + length), "{range}");
    }
    let head = client.head(&path).await.expect(StatusCode::OK);
    assert_eq!(head.header("content-length"), LARGE.to_string());
}

#[rstest]
#[case(65_535)]
#[case(65_536)]
#[case(65_537)]
#[case(1 << 20)]
#[case((1 << 20) + 1)]
#[tokio::test]
async fn p15_sizes_at_which_the_way_of_sending_changes(#[case] size: usize) {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let blob = noise(16, size);
    let path = format!("/v2/a/blobs/{}", client.push_blob("a", blob.clone()).await);
    for _ in 0..3 {
        assert_eq!(client.get(&path).await.expect(StatusCode::OK).body, blob);
    }
}

/// A request as it is on the wire.
fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: registry\r\n{more}\r\n")
}

/// Reads a response's headers and then as many bytes as they say, unless there is none for this method.
async fn read_answer(connection: &mut TcpStream, has_body: bool) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; if has_body { length.parse().unwrap() } else { 0 }];
    connection.read_exact(&mut body).await.unwrap();
    (head, body)
}

#[tokio::test]
async fn p16_requests_one_after_the_other_on_one_connection() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let (one, other) = (noise(1, LARGE), noise(2, 300_000));
    let paths = [client.push_blob("a", one.clone()).await, client.push_blob("a", other.clone()).await];
    let paths = paths.map(|digest| format!("/v2/a/blobs/{digest}"));
    for path in &paths {
        client.get(path).await.expect(StatusCode::OK);
    }
    let mut connection = TcpStream::connect(server.address("registry")).await.unwrap();
    // All at once: answers come in order all the same.
    let all = [
        request("GET", &paths[0], ""),
        request("HEAD", &paths[0], ""),
        request("GET", &paths[1], ""),
        request("GET", "/v2/", ""),
        request("GET", &paths[1], "range: bytes=100000-299999\r\n"),
        request("GET", &paths[0], ""),
    ];
    connection.write_all(all.concat().as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut connection, true).await.1, one);
    assert!(read_answer(&mut connection, false).await.0.contains("content-length: 5000000"));
    assert_eq!(read_answer(&mut connection, true).await.1, other);
    assert_eq!(read_answer(&mut connection, true).await.1, b"{}");
    assert_eq!(read_answer(&mut connection, true).await.1, other.slice(100_000..));
    assert_eq!(read_answer(&mut connection, true).await.1, one);
}

#[tokio::test]
async fn p16_over_tls_and_again() {
    let (root, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::new();
    let (cert, key) = authority.sign(&["localhost"]).write(files.path(), "serving");
    let server = Server::with(root.path(), |command| {
        command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
    });
    let client = server.client().over_tls(authority.trusted());
    let blob = noise(17, LARGE);
    let path = format!("/v2/a/blobs/{}", client.push_blob("a", blob.clone()).await);
    for _ in 0..3 {
        assert_eq!(client.get(&path).await.expect(StatusCode::OK).body, blob);
    }
    let part = client.send(Method::GET, &path, &[("range", "bytes=99-3000098")], "").await;
    assert_eq!(part.expect(StatusCode::PARTIAL_CONTENT).body, blob.slice(99..3_000_099));
}

fn content(root: &std::path::Path, digest: &oci::Digest) -> std::path::PathBuf {
    root.join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
}

#[tokio::test]
async fn p18_a_flipped_bit_is_never_served_whole() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--health-listen", "127.0.0.1:0"]);
    });
    let client = server.client();
    let mut damaged = 0;
    for size in [100, LARGE] {
        for served_before in [false, true] {
            let blob = noise(size as u64 + u64::from(served_before), size);
            let digest = client.push_blob("a", blob.clone()).await;
            let path = format!("/v2/a/blobs/{digest}");
            if served_before {
                if size == 100 {
                    // Answered from memory afterwards, where nothing flips.
                    continue;
                }
                client.get(&path).await.expect(StatusCode::OK);
            }
            let mut flipped = blob.to_vec();
            flipped[50] ^= 1;
            std::fs::write(content(root.path(), &digest), flipped).unwrap();
            match client.try_send(Method::GET, &path, &[], Bytes::new()).await {
                Err(_) => {}
                Ok(answer) => assert_eq!(answer.status, StatusCode::NOT_FOUND),
            }
            client.get(&path).await.expect(StatusCode::NOT_FOUND);
            client.head(&path).await.expect(StatusCode::NOT_FOUND);
            server.logged(|line| line["digest"] == digest.as_str() && line["level"] == "ERROR");
            let page = server.health().get("/metrics").await.body;
            let page = String::from_utf8_lossy(&page);
            let count = page.lines().find_map(|line| line.strip_prefix("berth_registry_damaged_total "));
            let count: u64 = count.unwrap().parse().unwrap();
            assert!(count > damaged, "{count} after {damaged}");
            damaged = count;
            client.push_blob("a", blob.clone()).await;
            assert_eq!(client.get(&path).await.expect(StatusCode::OK).body, blob);
        }
    }
}

#[tokio::test]
async fn p18_a_file_that_gets_shorter_while_it_is_sent_breaks_the_connection() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    // More than the kernel takes for a client that does not read.
    let blob = noise(18, 30_000_000);
    let digest = client.push_blob("a", blob.clone()).await;
    let path = format!("/v2/a/blobs/{digest}");
    client.get(&path).await.expect(StatusCode::OK);
    let mut connection = TcpStream::connect(server.address("registry")).await.unwrap();
    connection.write_all(request("GET", &path, "").as_bytes()).await.unwrap();
    connection.read_exact(&mut [0; 1000]).await.unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(content(root.path(), &digest)).unwrap();
    file.set_len(20_000_000).unwrap();
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest).await;
    assert!(rest.len() < 20_001_000, "{}", rest.len());
    client.get(&path).await.expect(StatusCode::NOT_FOUND);
    client.get("/v2/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn p37_clients_that_leave_in_the_middle_are_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--health-listen", "127.0.0.1:0"]);
    });
    let client = server.client();
    let blob = noise(37, 30_000_000);
    let path = format!("/v2/a/blobs/{}", client.push_blob("a", blob.clone()).await);
    for _ in 0..2 {
        for taken in [1, 1000, 5_000_000] {
            let mut connection = TcpStream::connect(server.address("registry")).await.unwrap();
            connection.write_all(request("GET", &path, "").as_bytes()).await.unwrap();
            connection.read_exact(&mut vec![0; taken]).await.unwrap();
        }
        assert_eq!(client.get(&path).await.expect(StatusCode::OK).body, blob);
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let page = server.health().get("/metrics").await.body;
        if String::from_utf8_lossy(&page).contains("requests_in_flight 0") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "requests are still in flight");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn p17_and_p27_what_is_in_memory_goes_with_what_is_deleted() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let (small, large) = (client.push_blob("a", "small").await, client.push_blob("a", noise(3, LARGE)).await);
    let digest = client.push_image("a", "v1", "layer").await;
    let blobs = [small, large].map(|digest| format!("/v2/a/blobs/{digest}"));
    let manifests = ["/v2/a/manifests/v1".to_owned(), format!("/v2/a/manifests/{digest}")];
    for path in blobs.iter().chain(&manifests).chain([&"/v2/a/tags/list".to_owned()]) {
        for _ in 0..2 {
            client.get(path).await.expect(StatusCode::OK);
            client.head(path).await.expect(StatusCode::OK);
        }
    }
    let moved = client.push_image("a", "v1", "another layer").await;
    assert_eq!(client.get(&manifests[0]).await.header("docker-content-digest"), moved.as_str());
    assert_eq!(client.head(&manifests[0]).await.header("docker-content-digest"), moved.as_str());
    client.push_image("a", "v2", "layer").await;
    let tags: serde_json::Value = client.get("/v2/a/tags/list").await.json();
    assert_eq!(tags["tags"], serde_json::json!(["v1", "v2"]));
    client.delete(&manifests[0]).await.expect(StatusCode::ACCEPTED);
    client.delete(&manifests[1]).await.expect(StatusCode::ACCEPTED);
    for path in &manifests {
        client.get(path).await.expect(StatusCode::NOT_FOUND);
        client.head(path).await.expect(StatusCode::NOT_FOUND);
    }
    for path in &blobs {
        client.delete(path).await.expect(StatusCode::ACCEPTED);
        client.get(path).await.expect(StatusCode::NOT_FOUND);
        client.head(path).await.expect(StatusCode::NOT_FOUND);
    }
}
