//! Clients that are gone without a word, and headers that are too large over HTTP/2: point 37.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rstest::rstest;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::{
    image::noise,
    server::Server,
    wire::{Protocol, Wire},
};

/// The kernel's timer of the server's end of a connection: which it is, and in how many hundredths of a second it fires.
fn timer(server: SocketAddr, client: SocketAddr) -> Option<(u8, u64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (server, client) = (format!(":{:04X}", server.port()), format!(":{:04X}", client.port()));
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|line| line[1].ends_with(&server) && line[2].ends_with(&client))?;
    let (kind, when) = line[5].split_once(':')?;
    Some((kind.parse().ok()?, u64::from_str_radix(when, 16).ok()?))
}

/// The kernel asks a client that says nothing whether it is still there, whatever the connection is used for.
#[rstest]
#[case::plain(Protocol::Plain)]
#[case::tls(Protocol::Tls)]
#[case::http2(Protocol::Http2)]
#[tokio::test]
async fn p37_it_is_noticed_when_a_clients_machine_is_gone(#[case] protocol: Protocol) {
    const KEEPALIVE: u8 = 2;
    let (root, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wire = Wire::new(protocol);
    let server = Server::with(root.path(), |command| wire.arguments(files.path(), command));
    let tcp = TcpStream::connect(server.address("registry")).await.unwrap();
    let client = tcp.local_addr().unwrap();
    let mut stream = wire.wrap(tcp).await;
    if protocol == Protocol::Http2 {
        // With settings that say nothing.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    } else {
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    }
    stream.flush().await.unwrap();
    stream.read_u8().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // What was sent has another timer until the client's machine has acknowledged it.
    loop {
        let timer = timer(server.address("registry"), client);
        if let Some((KEEPALIVE, when)) = timer {
            assert!(when <= 30 * 100, "{when}");
            return;
        }
        assert!(Instant::now() < deadline, "{timer:?}");
        tokio::task::yield_now().await;
    }
}

/// Of some more than 64 KiB, and of more than any server would take in.
#[rstest]
#[case::large(9)]
#[case::huge(1000)]
#[tokio::test]
async fn p37_too_large_headers_over_http2_are_refused_and_nobody_else_notices(#[case] count: usize) {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let content = noise(37, 20_000_000);
    let path = format!("/v2/a/blobs/{}", server.client().push_blob("a", content.clone()).await);
    let request = |path: &str| Request::get(format!("http://{}{path}", server.address("registry")));
    let connect = async || {
        let tcp = TcpStream::connect(server.address("registry")).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        sender
    };
    let (mut one, mut other) = (connect().await, connect().await);
    let empty = Empty::<Bytes>::new;
    let beside = one.send_request(request(&path).body(empty()).unwrap()).await.unwrap();
    let elsewhere = other.send_request(request(&path).body(empty()).unwrap()).await.unwrap();
    let mut large = request("/v2/");
    for number in 0..count {
        large = large.header(format!("x-padding-{number}"), "x".repeat(8000));
    }
    // It may be answered, or the request ends, or, where it does not end, the connection.
    let refused = one.send_request(large.body(empty()).unwrap()).await;
    if let Ok(refused) = &refused {
        assert_eq!(refused.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    if count < 100 {
        assert!(refused.is_ok(), "{refused:?}");
        assert_eq!(beside.into_body().collect().await.unwrap().to_bytes(), content);
        let next = one.send_request(request("/v2/").body(empty()).unwrap()).await.unwrap();
        assert_eq!(next.status(), StatusCode::OK);
    }
    assert_eq!(elsewhere.into_body().collect().await.unwrap().to_bytes(), content);
    server.client().get("/v2/").await.expect(StatusCode::OK);
    let log = server.log();
    let mut statuses = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap_or_default()["status"].as_u64());
    assert_eq!(statuses.find(|status| *status >= 500), None);
}
