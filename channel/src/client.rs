//! The operator's end of the channel: one small JSON request a connection, over mutual TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// A peer that can't be connected in this time counts as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that takes longer to answer, connecting included, counts as away.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Characters of a refusal that are kept.
const MAX_TEXT: usize = 200;
/// No answer is larger, unless a client is told otherwise.
const MAX_ANSWER: usize = 4 << 20;

/// Why a peer did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("failed to reach {address}: {reason}")]
    Unreachable {
        /// Who was called.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// The peer answered, but not with success.
    #[error("{address} answered {status}: {body}")]
    Refused {
        /// Who was called.
        address: SocketAddr,
        /// The HTTP status.
        status: StatusCode,
        /// The start of the answer's text, fit to be shown.
        body: String,
    },
    /// The peer says more than is read.
    #[error("{address} answered with more than {max_answer} bytes")]
    TooLarge {
        /// Who was called.
        address: SocketAddr,
        /// How much would have been read.
        max_answer: usize,
    },
    /// The peer's answer is no message of this crate.
    #[error("failed to read the answer of {address}: {source}")]
    Answer {
        /// Who was called.
        address: SocketAddr,
        /// What the parser said.
        source: serde_json::Error,
    },
}

/// Speaks as the operator.
#[derive(Clone, Debug)]
pub struct Client {
    tls: Arc<ClientConfig>,
    max_answer: usize,
}

impl Client {
    /// A client with this certificate and key, which trusts peers signed by `ca` (PEM each).
    pub fn new(cert: &str, key: &str, ca: &str) -> Result<Self, tls::Error> {
        let roots = tls::roots(pem_certificates(ca)?)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(tls::setup)?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(pem_certificates(cert)?, key)
            .map_err(tls::setup)?;
        Ok(Self { tls: Arc::new(config), max_answer: MAX_ANSWER })
    }

    /// The same, for answers of at most so many bytes.
    #[must_use]
    pub fn at_most(self, max_answer: usize) -> Self {
        Self { max_answer, ..self }
    }

    /// Fetches `path` from the peer at `address` that proves to be `name`.
    pub async fn get<A: DeserializeOwned>(
        &self,
        address: SocketAddr,
        name: &str,
        path: &str,
    ) -> Result<A, Error> {
        self.call(address, name, Method::GET, path, Bytes::new()).await
    }

    /// Deletes `path` of the peer at `address` that proves to be `name`.
    pub async fn delete<A: DeserializeOwned>(
        &self,
        address: SocketAddr,
        name: &str,
        path: &str,
    ) -> Result<A, Error> {
        self.call(address, name, Method::DELETE, path, Bytes::new()).await
    }

    /// Puts `message` at `path` of the peer at `address` that proves to be `name`.
    pub async fn put<M: Serialize + Sync, A: DeserializeOwned>(
        &self,
        address: SocketAddr,
        name: &str,
        path: &str,
        message: &M,
    ) -> Result<A, Error> {
        let body = serde_json::to_vec(message).map_err(|source| Error::Answer { address, source })?;
        self.call(address, name, Method::PUT, path, body.into()).await
    }

    async fn call<A: DeserializeOwned>(
        &self,
        address: SocketAddr,
        name: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<A, Error> {
        let unreachable = |reason: String| Error::Unreachable { address, reason };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, name)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| unreachable(error.to_string()))?;
        let exchange = limited(Arc::clone(&self.tls), address, name, request, self.max_answer);
        let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| unreachable(format!("no answer within {} s", TIMEOUT.as_secs())))?
            .map_err(|error| match error.downcast_ref() {
                Some(LengthLimitError { .. }) => Error::TooLarge { address, max_answer: self.max_answer },
                None => unreachable(error.to_string()),
            })?;
        if !status.is_success() {
            let body = for_people(&body);
            return Err(Error::Refused { address, status, body });
        }
        serde_json::from_slice(&body).map_err(|source| Error::Answer { address, source })
    }
}

/// What a peer says may end up in a status or a log: short, and in one line.
fn for_people(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * MAX_TEXT)]).into_owned();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect()
}

/// Trusts peers signed by `ca` (PEM) and proves nothing itself.
pub fn anonymous(ca: &str) -> Result<Arc<ClientConfig>, tls::Error> {
    let roots = tls::roots(pem_certificates(ca)?)?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// One request over a connection of its own to `address`, which must prove to be `name` (a DNS name or an IP address).
/// Sets no header, not even `Host`; takes as long as it takes, once connected.
pub async fn exchange(
    tls: Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    limited(tls, address, name, request, MAX_ANSWER).await
}

async fn limited(
    tls: Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
    request: Request<Full<Bytes>>,
    max_answer: usize,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let server = ServerName::try_from(name.to_owned())?;
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))??;
    let tls = TlsConnector::from(tls).connect(server, tcp).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), max_answer).collect().await?.to_bytes();
        Ok((status, body))
    };
    // The connection is driven only as long as the answer is awaited: nothing outlives this call.
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        closed = &mut connection => { closed?; answer.await }
    }
}

fn pem_certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, tls::Error> {
    let certificates =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(tls::setup)?;
    if certificates.is_empty() { Err(tls::setup("there is no certificate")) } else { Ok(certificates) }
}
