//! SIGTERM while clients pull and push: what runs is finished, over whatever protocol, and nobody new gets in.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{channel::mpsc, future::Either};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rstest::rstest;
use tokio::net::TcpStream;

use crate::{
    image::{noise, sha256},
    server::Server,
    wire::{Protocol, Wire},
};

type Chunk = Result<Frame<Bytes>, Infallible>;
type Body = StreamBody<mpsc::UnboundedReceiver<Chunk>>;

/// Sends one request after the other, over HTTP/2 several at once.
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Wire {
    async fn connect(&self, server: &Server) -> Sender {
        let stream = self.wrap(TcpStream::connect(server.address("registry")).await.unwrap()).await;
        let stream = TokioIo::new(stream);
        if self.protocol == Protocol::Http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            Sender::Http1(sender)
        }
    }
}

impl Sender {
    /// Begins a request whose body comes through the channel.
    fn send(
        &mut self,
        method: Method,
        path: &str,
        length: usize,
    ) -> (mpsc::UnboundedSender<Chunk>, impl Future<Output = hyper::Result<Response<Incoming>>> + use<>) {
        let (chunks, body) = mpsc::unbounded();
        let request = Request::builder().method(method).header(header::CONTENT_LENGTH, length);
        let body = StreamBody::new(body);
        let sent = match self {
            Self::Http1(sender) => {
                let request = request.uri(path).header(header::HOST, "localhost");
                Either::Left(sender.send_request(request.body(body).unwrap()))
            }
            Self::Http2(sender) => {
                let request = request.uri(format!("https://localhost{path}"));
                Either::Right(sender.send_request(request.body(body).unwrap()))
            }
        };
        (chunks, sent)
    }
}

#[rstest]
#[case::plain(Protocol::Plain)]
#[case::tls(Protocol::Tls)]
#[case::http2(Protocol::Http2)]
#[tokio::test]
async fn sigterm_lets_a_pull_and_a_push_finish_and_nobody_new_in(#[case] protocol: Protocol) {
    let (root, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wire = Wire::new(protocol);
    let mut server = Server::with(root.path(), |command| wire.arguments(files.path(), command));
    // More than the kernel and both ends keep on the way.
    let (pulled, pushed) = (noise(1, 30_000_000), noise(2, 600_000));
    let path = format!("/v2/a/blobs/{}", wire.client(&server).push_blob("a", pulled.clone()).await);
    let mut puller = wire.connect(&server).await;
    let (no_body, pulling) = puller.send(Method::GET, &path, 0);
    drop(no_body);
    let pulling = pulling.await.unwrap();
    assert_eq!(pulling.status(), StatusCode::OK);
    let mut pulling = pulling.into_body();
    let first = pulling.frame().await.unwrap().unwrap().into_data().unwrap();
    let digest = sha256(&pushed);
    let upload = format!("/v2/a/blobs/uploads/?digest={digest}");
    let mut pusher = wire.connect(&server).await;
    let (chunks, pushing) = pusher.send(Method::POST, &upload, pushed.len());
    let pushing = tokio::spawn(pushing);
    let send = |content: Bytes| chunks.unbounded_send(Ok(Frame::data(content))).unwrap();
    send(pushed.slice(..300_000));
    // The push has begun for certain once its session is there.
    while server.stored("uploads") == 0 {
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

    send(pushed.slice(300_000..));
    drop(chunks);
    assert_eq!(pushing.await.unwrap().unwrap().status(), StatusCode::CREATED);
    // Nor does a new request on a connection that was there.
    let (_no_body, refused) = pusher.send(Method::GET, "/v2/", 0);
    refused.await.unwrap_err();
    let rest = pulling.collect().await.unwrap().to_bytes();
    assert_eq!([first, rest].concat(), pulled);
    drop((puller, pusher));
    assert!(server.wait().success());

    let server = Server::start(root.path());
    assert_eq!(server.client().get(&format!("/v2/a/blobs/{digest}")).await.body, pushed);
}
