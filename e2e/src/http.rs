//! A client for single requests, where a test must see the registry's very answer: status, headers, digest.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{registry::Login, wait};

/// A request that takes longer went nowhere: kubectl may hold connections to a pod that is gone.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Speaks to one registry at a port of this machine, as somebody or nobody.
#[derive(Clone, Debug)]
pub struct Http {
    tls: Arc<ClientConfig>,
    port: u16,
    authorization: Option<String>,
}

/// What the registry answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Http {
    /// Trusts `ca` (PEM) and nobody else.
    pub fn new(port: u16, ca: &str, login: Option<&Login>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.context("the CA is no PEM")?)?;
        }
        let tls = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        Ok(Self { tls, port, authorization: login.map(|login| format!("Basic {}", encoded(login))) })
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
        let what = format!("{method} {path} was not answered within {} s", TIMEOUT.as_secs());
        tokio::time::timeout(TIMEOUT, self.exchange(method, path, body.into())).await.context(what)?
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        let address = format!("localhost:{}", self.port);
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(ServerName::try_from("localhost")?, tcp)
            .await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, address);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Asks for what is at a path until the answer has this status; says how long that took.
    pub async fn answered(&self, path: &str, wanted: StatusCode) -> Result<Duration> {
        let began = Instant::now();
        wait::poll(&format!("{path} to be answered {wanted}"), async || {
            let status = self.send(Method::GET, path, "").await?.status;
            ensure!(status == wanted, "it is answered {status}");
            Ok(())
        })
        .await?;
        Ok(began.elapsed())
    }

    /// Pushes one blob; it was acknowledged with 201 when this returns its digest.
    pub async fn push_blob(&self, repository: &str, blob: &[u8]) -> Result<String> {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(blob)));
        let session = self.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), "").await?;
        ensure!(session.status == StatusCode::ACCEPTED, "an upload was answered {}", session.status);
        let location = session.headers.get(header::LOCATION).context("no Location")?.to_str()?;
        // Absolute or not, both are allowed.
        let location = location.find("/v2/").map_or(location, |at| &location[at..]);
        let mark = if location.contains('?') { '&' } else { '?' };
        let path = format!("{location}{mark}digest={digest}");
        let done = self.send(Method::PUT, &path, Bytes::copy_from_slice(blob)).await?;
        ensure!(done.status == StatusCode::CREATED, "a blob was answered {}", done.status);
        Ok(digest)
    }

    /// Pushes a manifest under its digest, which it returns.
    pub async fn push_manifest(&self, repository: &str, manifest: &serde_json::Value) -> Result<String> {
        self.put_manifest(repository, None, manifest).await
    }

    /// Pushes a manifest under a tag, and returns its digest.
    pub async fn push_tag(
        &self,
        repository: &str,
        tag: &str,
        manifest: &serde_json::Value,
    ) -> Result<String> {
        self.put_manifest(repository, Some(tag), manifest).await
    }

    async fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        manifest: &serde_json::Value,
    ) -> Result<String> {
        let bytes = manifest.to_string();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let path = format!("/v2/{repository}/manifests/{}", tag.unwrap_or(&digest));
        let done = self.send(Method::PUT, &path, bytes).await?;
        ensure!(done.status == StatusCode::CREATED, "a manifest was answered {}", done.status);
        Ok(digest)
    }

    /// Fails unless the registry serves exactly the bytes that this digest names.
    pub async fn verify_blob(&self, repository: &str, digest: &str) -> Result<()> {
        let answer = self.send(Method::GET, &format!("/v2/{repository}/blobs/{digest}"), "").await?;
        ensure!(answer.status == StatusCode::OK, "{repository}@{digest} was answered {}", answer.status);
        let got = format!("sha256:{}", hex::encode(Sha256::digest(&answer.body)));
        ensure!(got == digest, "{repository}@{digest} has the digest {got}");
        Ok(())
    }
}

/// A login as basic authentication and authentication files want it.
pub(crate) fn encoded(login: &Login) -> String {
    BASE64_STANDARD.encode(format!("{}:{}", login.username, login.password))
}
