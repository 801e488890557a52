//! Whether a registry answers from here: over TLS, with a certificate that the host's own CA signed.
//!
//! The agent runs in a pod and containerd on the node, but both reach a `ClusterIP` through the same rules of
//! kube-proxy.

use std::time::Duration;

use bytes::Bytes;
use channel::client;
use http::{Request, StatusCode, header};
use http_body_util::Full;

use super::hosts_toml::Entry;

/// A registry that takes longer counts as unreachable.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the registry for the root of its API; an error is a sentence for people.
pub(super) async fn probe(entry: &Entry) -> Result<(), String> {
    let server = entry.server();
    let status = tokio::time::timeout(TIMEOUT, ask(entry))
        .await
        .map_err(|_| format!("the registry at {server} did not answer within {} s", TIMEOUT.as_secs()))?
        .map_err(|error| format!("the registry at {server} cannot be reached: {error}"))?;
    match status {
        // Whoever asks for a login is there: which one pods bring is not this node's business.
        StatusCode::OK | StatusCode::UNAUTHORIZED => Ok(()),
        status => Err(format!("the registry at {server} answered {status} to GET /v2/")),
    }
}

async fn ask(entry: &Entry) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let server = entry.server();
    let request = Request::get("/v2/")
        .header(header::HOST, server.to_string())
        .header(header::USER_AGENT, concat!("berth-node-access/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::new()))?;
    let tls = client::anonymous(entry.ca())?;
    let (status, _) = client::exchange(tls, server, &server.ip().to_string(), request).await?;
    Ok(status)
}
