//! A small HTTP client: one connection a request, over TCP or TLS, everything in memory.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use oci::{ErrorCode, ErrorList};
use rustls::{ClientConfig, pki_types::ServerName};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Speaks to one server, or to several in turn that are one registry. Clones take turns together.
#[derive(Clone)]
pub(crate) struct Client {
    addresses: Arc<[SocketAddr]>,
    turn: Arc<AtomicUsize>,
    tls: Option<Arc<ClientConfig>>,
    authorization: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::in_turn(vec![address])
    }

    pub(crate) fn in_turn(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses: addresses.into(), turn: Arc::default(), tls: None, authorization: None }
    }

    pub(crate) fn over_tls(mut self, config: ClientConfig) -> Self {
        self.tls = Some(Arc::new(config));
        self
    }

    pub(crate) fn login(mut self, username: &str, secret: &str) -> Self {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{secret}"));
        self.authorization = Some(format!("Basic {encoded}"));
        self
    }

    pub(crate) fn bearer(mut self, token: &str) -> Self {
        self.authorization = Some(format!("Bearer {token}"));
        self
    }

    /// The one by whose name all are called.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Sends a request; fails only where the connection does.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Failure> {
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, self.address().to_string());
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let tcp = TcpStream::connect(self.addresses[turn % self.addresses.len()]).await?;
        match &self.tls {
            None => exchange(tcp, request).await,
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                exchange(TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?, request).await
            }
        }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.send(Method::HEAD, path, &[], Bytes::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, path, &[], body).await
    }

    pub(crate) async fn put(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.send(Method::PUT, path, headers, body).await
    }

    pub(crate) async fn patch(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.send(Method::PATCH, path, headers, body).await
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }

    /// An error in the specification's format.
    #[track_caller]
    pub(crate) fn expect_error(self, status: StatusCode, code: ErrorCode) -> Self {
        let answer = self.expect(status);
        let list: ErrorList = answer.json();
        assert!(list.errors.iter().all(|error| error.code == code && !error.message.is_empty()), "{list:?}");
        answer
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap()
    }
}
