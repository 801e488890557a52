//! With what this node pulls where a repository is for every pod of the cluster: tokens of node access' own
//! `ServiceAccount`, for one registry each, bound to this pod (and so to this node), and good for an hour at most.

use std::{collections::HashMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;

/// What node access runs as.
const ACCOUNT: &str = "berth-node-access";
/// Sent beside the token, which says everything.
const USERNAME: &str = "node";
/// Longest life of a token.
const LIFETIME: Duration = Duration::from_secs(3600);
/// A token is replaced after this: pulls go on for so much longer when the API server is away.
const RENEWED_AFTER: Duration = Duration::from_secs(20 * 60);
/// The API server is not waited for longer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// After a failure another try comes no sooner.
const PAUSE: Duration = Duration::from_secs(10);

/// A value of the header `Authorization`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credential(String);

impl Credential {
    fn of(token: &str) -> Self {
        Self(format!("Basic {}", BASE64_STANDARD.encode(format!("{USERNAME}:{token}"))))
    }

    /// The header's value: letters, digits, `+`, `/`, `=` and one space.
    pub(super) fn header(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        Self::of("token")
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// The pod that tokens are bound to.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// The tokens, by audience.
#[derive(Debug)]
pub(super) struct Credentials {
    /// None outside of a cluster, as in tests.
    pod: Option<Pod>,
    held: tokio::sync::Mutex<HashMap<String, Held>>,
}

#[derive(Debug)]
struct Held {
    /// None where none could be had yet.
    credential: Option<Credential>,
    renew: Instant,
}

impl Credentials {
    pub(super) fn new(pod: Option<Pod>) -> Self {
        Self { pod, held: tokio::sync::Mutex::default() }
    }

    /// One for each audience, new where it is time; those that can't be renewed stay while they last.
    pub(super) async fn of(&self, audiences: &[&str]) -> HashMap<String, Credential> {
        let Some(pod) = &self.pod else { return HashMap::new() };
        let mut held = self.held.lock().await;
        held.retain(|audience, _| audiences.contains(&audience.as_str()));
        for &audience in audiences {
            if held.get(audience).is_some_and(|held| Instant::now() < held.renew) {
                continue;
            }
            let asked = tokio::time::timeout(TIMEOUT, request(pod, audience)).await;
            match asked.map_err(|_| "no answer in time".to_owned()).and_then(|asked| asked) {
                Ok(token) => {
                    let credential = Some(Credential::of(&token));
                    held.insert(
                        audience.to_owned(),
                        Held { credential, renew: Instant::now() + RENEWED_AFTER },
                    );
                }
                Err(error) => {
                    tracing::warn!(audience, error, "no new token: pods without a pull secret may not pull");
                    let credential = held.remove(audience).and_then(|held| held.credential);
                    held.insert(audience.to_owned(), Held { credential, renew: Instant::now() + PAUSE });
                }
            }
        }
        let found =
            held.iter().filter_map(|(audience, held)| Some((audience.clone(), held.credential.clone()?)));
        found.collect()
    }

    /// Whether one of them should be renewed.
    pub(super) async fn are_due(&self) -> bool {
        self.held.lock().await.values().any(|held| held.renew <= Instant::now())
    }
}

async fn request(pod: &Pod, audience: &str) -> Result<String, String> {
    let client = Client::try_default().await.map_err(|error| error.to_string())?;
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            expiration_seconds: i64::try_from(LIFETIME.as_secs()).ok(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name.clone()),
                uid: Some(pod.uid.clone()),
            }),
        },
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client, &pod.namespace);
    let answer = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await;
    let status = answer.map_err(|error| error.to_string())?.status;
    status.map(|status| status.token).ok_or_else(|| "an answer without a token".to_owned())
}
