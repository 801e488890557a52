//! Clients that go away at every stage of every request: nothing of theirs is half there, nothing stays behind, and who
//! comes next does not notice.

use bytes::Bytes;
use http::StatusCode;
use rstest::rstest;
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
    wire::{Protocol, Wire},
};

/// As much of a body as may be sent over HTTP/2 before the server has said more.
const WINDOW: usize = 60_000;

/// A request in pieces, which are frames over HTTP/2; the first of them is the head.
type Pieces = Vec<Vec<u8>>;

fn request(protocol: Protocol, method: &str, path: &str, kind: &str, body: &[u8]) -> Pieces {
    if protocol == Protocol::Http2 {
        return frames(method, path, kind, body);
    }
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    vec![head.into_bytes(), body.to_vec()]
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// The preface and a header frame, and then the body.
fn frames(method: &str, path: &str, kind: &str, body: &[u8]) -> Pieces {
    let length = body.len().to_string();
    let fields = [
        (":method", method),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("content-type", kind),
        ("content-length", &length),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal that is not indexed, with a new name.
        block.push(0);
        for text in [name, value] {
            match text.len().checked_sub(127) {
                None => block.push(u8::try_from(text.len()).unwrap()),
                Some(more) => {
                    assert!(more < 1 << 14);
                    block.extend([
                        127,
                        u8::try_from(more & 127).unwrap() | 128,
                        u8::try_from(more >> 7).unwrap(),
                    ]);
                }
            }
            block.extend(text.as_bytes());
        }
    }
    let end_of_stream = |is_last: bool| u8::from(is_last);
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat();
    let head = frame(1, 4 | end_of_stream(body.is_empty()), 1, &block);
    let chunks: Vec<_> = body.chunks(16 << 10).collect();
    let data =
        chunks.iter().enumerate().map(|(n, data)| frame(0, end_of_stream(n + 1 == chunks.len()), 1, data));
    [[preface, head].concat()].into_iter().chain(data).collect()
}

async fn connect(client: &Client, wire: &Wire, is_reset: bool) -> Box<dyn crate::wire::Stream> {
    let stream = TcpStream::connect(client.address()).await.unwrap();
    if is_reset {
        set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    }
    wire.wrap(stream).await
}

/// Sends the beginning of a request and goes away: in order, or as a machine that lost its connection.
async fn send(client: &Client, wire: &Wire, bytes: &[u8], is_reset: bool) {
    let mut stream = connect(client, wire, is_reset).await;
    // The server may have answered and closed already.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
}

/// Sends some frames and resets the stream; the connection goes on until the server has seen that.
async fn send_and_reset(client: &Client, wire: &Wire, bytes: &[u8]) {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let mut stream = connect(client, wire, false).await;
    let ping = frame(6, 0, 0, b"are here");
    stream.write_all(&[bytes, &frame(3, 0, 1, &CANCEL), &ping].concat()).await.unwrap();
    stream.flush().await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if payload == b"are here" {
            return;
        }
    }
}

/// Everything that a push, a pull and a delete ask for, each in a session and repository of its own.
async fn requests(client: &Client, protocol: Protocol, name: &str) -> Vec<Pieces> {
    let layer = noise(7, if protocol == Protocol::Http2 { WINDOW } else { 300_000 });
    let digest = sha256(&layer);
    let (patched, closed) = (client.start_upload(name).await, client.start_upload(name).await);
    client.push_blob(name, "{}").await;
    client.push_blob(name, "small").await;
    let document = image(b"{}", &[b"small"]).to_string();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let bytes = "application/octet-stream";
    let uploads = format!("/v2/{name}/blobs/uploads/");
    let tagged = format!("/v2/{name}/manifests/v1");
    let request = |method, path: &str, kind, body: &[u8]| request(protocol, method, path, kind, body);
    vec![
        request("POST", &uploads, bytes, b""),
        request("POST", &format!("{uploads}?digest={digest}"), bytes, &layer),
        request("POST", &format!("{uploads}?mount={}&from=whole", sha256(b"small")), bytes, b""),
        request("PATCH", &patched, bytes, &layer),
        request("PUT", &format!("{closed}?digest={digest}"), bytes, &layer),
        request("PUT", &tagged, kind, document.as_bytes()),
        request("GET", &tagged, bytes, b""),
        request("DELETE", &tagged, bytes, b""),
    ]
}

/// How far a request comes: the parts of the head and of the body, to all of it without waiting for the answer.
fn far(round: usize, pieces: &Pieces) -> usize {
    let (head, all) = (pieces[0].len(), pieces.iter().map(Vec::len).sum());
    match round {
        0 => 1,
        1 => head / 2,
        2 => head - 1,
        3 => head,
        4 => head + (all - head) / 2,
        5 => all - 1,
        _ => all,
    }
}

async fn nothing_is_in_flight(server: &Server) -> bool {
    let metrics = server.health().get("/metrics").await.body;
    String::from_utf8_lossy(&metrics).contains("berth_registry_requests_in_flight 0\n")
}

#[rstest]
#[case::plain(Protocol::Plain)]
#[case::tls(Protocol::Tls)]
#[case::http2(Protocol::Http2)]
#[tokio::test]
async fn clients_may_go_away_at_every_stage(#[case] protocol: Protocol) {
    let (root, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wire = Wire::new(protocol);
    let server = Server::with(root.path(), |command| wire.arguments(files.path(), command));
    let client = wire.client(&server);
    client.push_image("whole", "v1", "small").await;
    let large = noise(8, 9_000_000);
    let large_path = format!("/v2/whole/blobs/{}", client.push_blob("whole", large.clone()).await);
    let pull = request(protocol, "GET", &large_path, "a/b", b"").concat();
    for round in 0..8 {
        for pieces in requests(&client, protocol, &format!("cut/r{round}")).await {
            send(&client, &wire, &pieces.concat()[..far(round, &pieces)], round % 2 == 0).await;
        }
        // In the middle of a pull, too.
        let mut stream = connect(&client, &wire, round % 2 == 0).await;
        stream.write_all(&pull).await.unwrap();
        stream.flush().await.unwrap();
        let taken = if protocol == Protocol::Http2 { WINDOW / 2 } else { round * 1_000_000 + 1 };
        stream.read_exact(&mut vec![0; taken]).await.unwrap();
    }
    if protocol == Protocol::Http2 {
        for round in 0..8 {
            for pieces in requests(&client, protocol, &format!("cut/r{round}")).await {
                let sent = pieces.len().min(round + 1);
                send_and_reset(&client, &wire, &pieces[..sent].concat()).await;
            }
            send_and_reset(&client, &wire, &pull).await;
        }
    }
    // Every request has ended, whether its client was there or not, wherever it was.
    while !nothing_is_in_flight(&server).await || !nothing_is_in_flight(&server).await {}
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
    server.assert_sound();
}
