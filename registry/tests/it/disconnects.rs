//! Clients that go away at every stage of every request: nothing of theirs is half there, nothing stays behind, and who
//! comes next does not notice.

use bytes::Bytes;
use http::StatusCode;
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::Client,
    image::{image, noise, sha256},
    server::Server,
};

/// A request as bytes, and where its head ends.
fn request(method: &str, path: &str, kind: &str, body: &[u8]) -> (Vec<u8>, usize) {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    ([head.as_bytes(), body].concat(), head.len())
}

/// Sends the beginning of a request and goes away: in order, or as a machine that lost its connection.
async fn send(client: &Client, bytes: &[u8], is_reset: bool) {
    let mut stream = TcpStream::connect(client.address()).await.unwrap();
    if is_reset {
        set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    }
    // The server may have answered and closed already.
    let _ = stream.write_all(bytes).await;
}

/// Everything that a push, a pull and a delete ask for, each in a session and repository of its own.
async fn requests(client: &Client, round: usize) -> Vec<(Vec<u8>, usize)> {
    let layer = noise(7, 300_000);
    let digest = sha256(&layer);
    let name = format!("cut/r{round}");
    let (patched, closed) = (client.start_upload(&name).await, client.start_upload(&name).await);
    client.push_blob(&name, "{}").await;
    client.push_blob(&name, "small").await;
    let document = image(b"{}", &[b"small"]).to_string();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let bytes = "application/octet-stream";
    vec![
        request("POST", &format!("/v2/{name}/blobs/uploads/"), bytes, b""),
        request("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), bytes, &layer),
        request(
            "POST",
            &format!("/v2/{name}/blobs/uploads/?mount={}&from=whole", sha256(b"small")),
            bytes,
            b"",
        ),
        request("PATCH", &patched, bytes, &layer),
        request("PUT", &format!("{closed}?digest={digest}"), bytes, &layer),
        request("PUT", &format!("/v2/{name}/manifests/v1"), kind, document.as_bytes()),
        request("GET", &format!("/v2/{name}/manifests/v1"), bytes, b""),
        request("DELETE", &format!("/v2/{name}/manifests/v1"), bytes, b""),
    ]
}

#[tokio::test]
async fn clients_may_go_away_at_every_stage() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--health-listen", "127.0.0.1:0"]);
    });
    let client = server.client();
    client.push_image("whole", "v1", "small").await;
    let large = noise(8, 9_000_000);
    let large_path = format!("/v2/whole/blobs/{}", client.push_blob("whole", large.clone()).await);
    for round in 0..8 {
        for (bytes, head) in requests(&client, round).await {
            // How far they come: the parts of the head and of the body, to all of it without waiting for the answer.
            let far = match round {
                0 => 1,
                1 => head / 2,
                2 => head - 1,
                3 => head,
                4 => head + (bytes.len() - head) / 2,
                5 => bytes.len() - 1,
                _ => bytes.len(),
            };
            send(&client, &bytes[..far], round % 2 == 0).await;
        }
        // In the middle of a pull, too.
        let mut stream = TcpStream::connect(client.address()).await.unwrap();
        stream.write_all(&request("GET", &large_path, "a/b", b"").0).await.unwrap();
        stream.read_exact(&mut vec![0; round * 1_000_000 + 1]).await.unwrap();
    }
    // Every request has ended, whether its client was there or not.
    loop {
        let metrics = server.health().get("/metrics").await;
        let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
        if metrics.contains("berth_registry_requests_in_flight 0\n") {
            break;
        }
    }
    for round in 0..8 {
        let name = format!("cut/r{round}");
        let digest = client.push_image(&name, "v1", "small").await;
        let layer = noise(7, 300_000);
        let blob: Bytes = client
            .get(&format!("/v2/{name}/blobs/{}", client.push_blob(&name, layer.clone()).await))
            .await
            .body;
        assert_eq!(blob, layer);
        client.get(&format!("/v2/{name}/manifests/{digest}")).await.expect(StatusCode::OK);
    }
    assert_eq!(client.get(&large_path).await.expect(StatusCode::OK).body, large);
    let log = server.log();
    let failed = log.lines().find(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        line["status"].as_u64().is_some_and(|status| status >= 500) || line["level"] == "ERROR"
    });
    assert_eq!(failed, None);
    drop(server);
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_berth-registry"));
    let check = check.env_clear().args(["check", "--root"]).arg(root.path()).output().unwrap();
    assert!(
        check.status.success() && !String::from_utf8_lossy(&check.stdout).contains("damage:"),
        "{check:?}"
    );
}
