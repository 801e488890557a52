//! The Kubernetes API of the cluster in which this runs. One question is asked there: whose a ServiceAccount's token is
//! (TokenReview). The token that this process shows for it, and the CA, are read for each question, for both change.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::json;

use crate::access::{Away, Reviewer};

/// Where Kubernetes puts what a pod needs for its API.
const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Connecting included.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the command line says of it.
#[derive(Debug, Args)]
pub(crate) struct KubernetesArgs {
    /// ServiceAccounts of the cluster in which this runs may log in with tokens of their own, where the policy has
    /// `serviceAccounts`. The cluster checks them, so this needs the right to create TokenReviews.
    #[arg(long, env = "BERTH_KUBERNETES")]
    kubernetes: bool,

    /// Folder with `token` and `ca.crt` for the Kubernetes API. Read again for each question.
    #[arg(long, env = "BERTH_KUBERNETES_FOLDER", value_name = "DIR", default_value = FOLDER)]
    kubernetes_folder: PathBuf,

    /// Host and port of the Kubernetes API. Without it what Kubernetes tells its pods.
    #[arg(long, env = "BERTH_KUBERNETES_API", value_name = "HOST:PORT", value_parser = Address::parse)]
    kubernetes_api: Option<Address>,

    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    kubernetes_service_host: Option<String>,

    #[arg(long, env = "KUBERNETES_SERVICE_PORT", hide = true)]
    kubernetes_service_port: Option<String>,
}

/// Nobody says where the API is.
#[derive(Debug)]
pub(crate) struct NoAddress;

impl KubernetesArgs {
    /// None where ServiceAccounts are not to log in.
    pub(crate) fn api(self) -> Result<Option<Kubernetes>, NoAddress> {
        let Self {
            kubernetes,
            kubernetes_folder,
            kubernetes_api,
            kubernetes_service_host,
            kubernetes_service_port,
        } = self;
        if !kubernetes {
            return Ok(None);
        }
        let of_pod = || {
            let port = kubernetes_service_port?.parse().ok()?;
            Some(Address { host: kubernetes_service_host?, port })
        };
        let address = kubernetes_api.or_else(of_pod).ok_or(NoAddress)?;
        Ok(Some(Kubernetes { address, folder: kubernetes_folder }))
    }
}

/// A DNS name or IP address, without brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
}

impl Address {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').map_or(Some(host), |rest| rest.strip_suffix(']'))?;
            Some(Self { host: host.to_owned(), port: port.parse().ok()? }).filter(|_| !host.is_empty())
        });
        parsed.ok_or("give a host and a port, such as 10.96.0.1:443")
    }
}

/// The API.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    address: Address,
    folder: PathBuf,
}

/// Why there is no answer. None of these says anything of a token.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the certificates in ca.crt can't be used: {0}")]
    Ca(#[from] channel::tls::Error),
    #[error("failed to find {0}")]
    Resolve(String),
    #[error("failed to ask {address}: {reason}")]
    Unreachable { address: SocketAddr, reason: String },
    #[error("it lacks the right to create TokenReviews (403)")]
    Forbidden,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is no TokenReview")]
    Answer,
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Slow,
}

#[derive(Deserialize)]
struct TokenReview {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    user: User,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

impl ReviewStatus {
    /// Whose it is; a server that knows nothing of audiences says none, and so nothing that counts.
    fn username(self, audience: &str) -> Option<String> {
        let right = self.authenticated && self.audiences.iter().any(|ours| ours == audience);
        right.then_some(self.user.username)
    }
}

impl Kubernetes {
    async fn ask(&self, token: &str, audience: &str) -> Result<Option<String>, Error> {
        let own_token = self.read("token").await?;
        let tls = channel::client::anonymous(&self.read("ca.crt").await?)?;
        let Address { host, port } = &self.address;
        let found = tokio::net::lookup_host((host.as_str(), *port)).await;
        let address =
            found.ok().and_then(|mut all| all.next()).ok_or_else(|| Error::Resolve(host.clone()))?;
        let unreachable = |reason: String| Error::Unreachable { address, reason };
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        });
        let host_header =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let request = Request::builder()
            .method(Method::POST)
            .uri(REVIEWS)
            .header(header::HOST, host_header)
            .header(header::AUTHORIZATION, format!("Bearer {}", own_token.trim()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(review.to_string())))
            .map_err(|error| unreachable(error.to_string()))?;
        let (status, body) = channel::client::exchange(tls, address, host, request)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        match status {
            status if status.is_success() => {}
            StatusCode::FORBIDDEN => return Err(Error::Forbidden),
            status => return Err(Error::Status(status)),
        }
        // What the parser says of it could quote the token.
        let review: TokenReview = serde_json::from_slice(&body).map_err(|_| Error::Answer)?;
        Ok(review.status.username(audience))
    }

    async fn read(&self, name: &str) -> Result<String, Error> {
        let path = self.folder.join(name);
        tokio::fs::read_to_string(&path).await.map_err(|source| Error::Read { path, source })
    }
}

#[async_trait::async_trait]
impl Reviewer for Kubernetes {
    async fn review(&self, token: &str, audience: &str) -> Result<Option<String>, Away> {
        let answer = tokio::time::timeout(PATIENCE, self.ask(token, audience)).await;
        answer.unwrap_or(Err(Error::Slow)).map_err(|error| {
            tracing::error!(%error, "the Kubernetes API can't check a ServiceAccount's token");
            Away
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("10.96.0.1:443", Some(("10.96.0.1", 443)))]
    #[case("kubernetes.default.svc:6443", Some(("kubernetes.default.svc", 6443)))]
    #[case("[fd00::1]:443", Some(("fd00::1", 443)))]
    #[case("10.96.0.1", None)]
    #[case(":443", None)]
    #[case("[fd00::1:443", None)]
    #[case("a:70000", None)]
    fn addresses(#[case] text: &str, #[case] expected: Option<(&str, u16)>) {
        let expected = expected.map(|(host, port)| Address { host: host.to_owned(), port });
        assert_eq!(Address::parse(text).ok(), expected);
    }

    #[rstest]
    #[case::right(json!({"authenticated": true, "audiences": ["other", "ours"], "user": {"username": "u", "uid": "1"}}), true)]
    #[case::not_authenticated(json!({"audiences": ["ours"], "user": {"username": "u"}, "error": "expired"}), false)]
    #[case::no_audience(json!({"authenticated": true, "user": {"username": "u"}}), false)]
    #[case::other_audience(json!({"authenticated": true, "audiences": ["other"], "user": {"username": "u"}}), false)]
    #[case::nothing(json!({}), false)]
    fn answers(#[case] status: serde_json::Value, #[case] right: bool) {
        let review: TokenReview = serde_json::from_value(json!({"status": status, "metadata": {}})).unwrap();
        assert_eq!(review.status.username("ours"), right.then(|| "u".to_owned()));
    }
}
