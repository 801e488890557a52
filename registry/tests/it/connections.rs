//! Clients that hold connections open and do nothing with them, or take nothing of what they asked for: point 37.

use std::{net::SocketAddr, process::Command, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use oci::manifest;
use rstest::rstest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};

use crate::{
    client::Client,
    image::{noise, sha256},
    policy_file::Standalone,
    server::Server,
};

/// More than the kernel and both ends keep on the way.
const LARGE: usize = 32 << 20;
/// Nothing that is waited for takes so long, unless it never comes.
const NEVER: Duration = Duration::from_secs(120);

fn impatient(command: &mut Command) {
    command.args(["--patience-seconds", "1"]);
}

/// A client that answers pings as long as its connection lasts.
async fn http2(address: SocketAddr) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn get(server: &Server, path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("http://{}{path}", server.address("registry"));
    Request::get(uri).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn p37_an_answer_that_nobody_takes_ends_its_http2_connection() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), impatient);
    let content = noise(37, LARGE);
    let digest = server.client().push_blob("a", content.clone()).await;
    let path = format!("/v2/a/blobs/{digest}");
    let (mut sender, connection) = http2(server.address("registry")).await;
    let unread = sender.send_request(get(&server, &path)).await.unwrap();
    assert_eq!(unread.status(), StatusCode::OK);
    // Nothing of the body is asked for, so that the stream's window stays shut.
    tokio::time::timeout(NEVER, connection).await.expect("the connection ends").unwrap().unwrap_err();
    assert!(unread.into_body().collect().await.is_err());
    drop(server);

    let server = Server::start(root.path());
    let (mut sender, _connection) = http2(server.address("registry")).await;
    let taken = sender.send_request(get(&server, &path)).await.unwrap();
    assert_eq!(taken.into_body().collect().await.unwrap().to_bytes(), content);
}

/// Pushes something large; where it is, and what.
async fn push_large(client: &Client, is_manifest: bool) -> (String, Bytes) {
    if is_manifest {
        let pad = "x".repeat(1 << 20);
        let manifest = json!({"schemaVersion": 2, "manifests": [], "annotations": {"pad": pad}}).to_string();
        let headers = [("content-type", manifest::INDEX)];
        client.put("/v2/a/manifests/large", &headers, manifest.clone()).await.expect(StatusCode::CREATED);
        return ("/v2/a/manifests/large".to_owned(), manifest.into());
    }
    let content = noise(38, 1 << 20);
    (format!("/v2/a/blobs/{}", client.push_blob("a", content.clone()).await), content)
}

#[rstest]
#[case::blobs(false)]
#[case::manifests(true)]
#[tokio::test]
async fn p37_answers_that_nobody_takes_fill_no_memory(#[case] are_manifests: bool) {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let (path, content) = push_large(&client, are_manifests).await;
    client.get(&path).await.expect(StatusCode::OK);
    let (mut held, mut most) = (Vec::new(), 0);
    for _ in 0..50 {
        let tcp = TcpStream::connect(server.address("registry")).await.unwrap();
        let mut shut = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        shut.initial_stream_window_size(0);
        let (mut sender, connection) = shut.handshake::<_, Empty<Bytes>>(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..100 {
            // It may have been ended by now.
            held.extend(sender.send_request(get(&server, &path)).await);
        }
        most = most.max(server.memory());
        client_of_its_own(&server, &path, &content).await;
    }
    assert!(most < 128 << 20, "{most} bytes");
}

/// Somebody who takes what they ask for.
async fn client_of_its_own(server: &Server, path: &str, content: &Bytes) {
    let (mut sender, _connection) = http2(server.address("registry")).await;
    let answer = sender.send_request(get(server, path)).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), content);
}

#[tokio::test]
async fn p37_who_trickles_uploads_keeps_nobody_else_from_pushing() {
    let standalone = Standalone::start();
    let server = &standalone.server;
    let slow = "Authorization: Basic Y2k6c2VjcmV0"; // ci:secret
    let mut trickling = Vec::new();
    for number in 0..400_u32 {
        let digest = sha256(&number.to_be_bytes());
        let mut stream = TcpStream::connect(server.address("registry")).await.unwrap();
        let head = format!(
            "POST /v2/team/app/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\n{slow}\r\nContent-Length: 4\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        trickling.push(stream);
    }
    let others = server.client().login("admin", "secret");
    let pushed =
        tokio::time::timeout(Duration::from_secs(20), others.push_image("else", "v1", "layer")).await;
    pushed.expect("the push goes on beside them");
}

#[tokio::test]
async fn p37_an_answer_that_nobody_takes_ends_its_http1_connection() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), impatient);
    let digest = server.client().push_blob("a", noise(37, LARGE)).await;
    let mut unread = TcpStream::connect(server.address("registry")).await.unwrap();
    let head = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    unread.write_all(head.as_bytes()).await.unwrap();
    let ended = |line: &serde_json::Value| line["message"] == "request" && line["digest"] == digest.as_str();
    let line = server.logged(|line| ended(line) && line["method"] == "GET");
    assert_eq!(line["complete"], false, "{line}");
}

#[tokio::test]
async fn p37_an_idle_http2_connection_ends() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), impatient);
    let (mut sender, connection) = http2(server.address("registry")).await;
    sender.send_request(get(&server, "/v2/")).await.unwrap().into_body().collect().await.unwrap();
    // The end is announced, so that it is none of a request's.
    tokio::time::timeout(NEVER, connection).await.expect("the connection ends").unwrap().unwrap();
}

#[tokio::test]
async fn p37_a_silent_http1_connection_ends() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), impatient);
    let mut silent = Vec::new();
    for begun in ["", "GET /v2/ HT", "HEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address("registry")).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    for mut stream in silent {
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await;
        // In order or not.
        let _ = ended.expect("the connection ends");
    }
}

/// A connection from one of the addresses of this machine.
async fn connect(server: &Server, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, from], 0))).unwrap();
    socket.connect(server.address("registry")).await.unwrap()
}

async fn assert_served(stream: &mut TcpStream) {
    stream.write_all(b"HEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = tokio::time::timeout(NEVER, stream.read_buf(&mut answer)).await.expect("an answer");
        assert_ne!(read.unwrap(), 0, "the connection was closed");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn p37_idle_connections_keep_nobody_out() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--max-connections", "4", "--max-connections-per-address", "3"]);
    });
    let mut held = Vec::new();
    // One address takes all that it can get, and more: only its own go.
    let mut other = connect(&server, 2).await;
    assert_served(&mut other).await;
    for _ in 0..8 {
        let mut connection = connect(&server, 3).await;
        assert_served(&mut connection).await;
        held.push(connection);
    }
    assert_served(&mut other).await;
    for gone in &mut held[..5] {
        let ended = tokio::time::timeout(NEVER, gone.read(&mut [0])).await.expect("the connection ends");
        assert!(!ended.is_ok_and(|read| read > 0));
    }
    for kept in &mut held[5..] {
        assert_served(kept).await;
    }
    // And who comes from elsewhere gets in although all places are taken.
    assert_served(&mut connect(&server, 4).await).await;
}
