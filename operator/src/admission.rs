//! Admission: gives a new pod the pull secrets that its `ServiceAccount` is about to get.
//!
//! A pod takes over its account's `imagePullSecrets` when it is created and never again. One that comes in the same
//! second as its namespace would be without for good; so would one that names secrets of its own. The Secret itself may
//! follow: the kubelet looks for it at each attempt to pull.
//!
//! Every operator answers, also one that waits for its turn to lead: the Service leads to all of them.
//!
//! Only adds, and only where an image is from a repository that the account may pull. Where it does not answer, pods
//! are created as they are.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, routing::post};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use channel::tls::{self, Reloading, TlsListener};
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpListener;

use crate::{
    authority::{self, LIFETIME, Usage},
    context::Context,
    health::Readiness,
    names::MANAGER,
};

mod offers;
mod pods;

use self::pods::Offer;

/// Name of the installed configuration, and of the webhook in it.
const CONFIGURATION: &str = "berth";
const WEBHOOK: &str = "pods.berth.dev";
/// How often the configuration is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How often the certificate is made anew.
const RENEW: Duration = Duration::from_secs(24 * 60 * 60);
/// What readiness waits for the cluster to be known.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why admission does not work; pods are created without it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Certificate(#[from] authority::Error),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error("failed to listen at {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error("failed to read or patch MutatingWebhookConfiguration {CONFIGURATION}: {0}")]
    Configuration(#[source] kube::Error),
}

/// Serves, whoever leads; never ends, and says when it is ready.
pub(crate) async fn run(context: Arc<Context>, readiness: Readiness) {
    let known = async {
        let _ = tokio::time::timeout(PATIENCE, context.is_known()).await;
        readiness.set(true);
    };
    let ((), served) = tokio::join!(known, serve(&context));
    if let Err(error) = served {
        tracing::error!(%error, "new pods get no pull secrets before their ServiceAccount has them");
    }
    std::future::pending::<()>().await;
}

async fn serve(context: &Arc<Context>) -> Result<(), Error> {
    let address = context.config.admission_listen;
    let tcp = TcpListener::bind(address).await.map_err(|error| Error::Listen(address, error))?;
    let pair = certificate(context)?;
    let certificate = Reloading::of(&pair.cert, &pair.key)?;
    let served = axum::serve(TlsListener::new(tcp, Arc::clone(&certificate)), router(context)).into_future();
    let (_, renewed) = tokio::join!(served, renew(context, &certificate));
    renewed
}

fn router(context: &Arc<Context>) -> Router {
    Router::new().route(&path(context), post(review)).with_state(Arc::clone(context))
}

/// Keeps the certificate young; never ends.
async fn renew(context: &Context, certificate: &Reloading) -> Result<(), Error> {
    loop {
        tokio::time::sleep(RENEW).await;
        let pair = self::certificate(context)?;
        certificate.replace(&pair.cert, &pair.key)?;
    }
}

/// Keeps the API server trusting who serves here, which one does for all; never ends.
pub(crate) async fn keep_trusted(context: &Context) {
    let mut told = false;
    loop {
        match trust(context).await {
            Ok(()) => told = false,
            Err(error) if !told => {
                tracing::warn!(%error, "pods are created without admission");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn certificate(context: &Context) -> Result<authority::Pair, authority::Error> {
    let names = [format!("{MANAGER}.{}.svc", context.config.namespace)];
    context.secrets.serving.issue(&names, Usage::Server, OffsetDateTime::now_utc() + LIFETIME)
}

/// Where the API server asks: anybody could who knew, and would learn what is delivered to whom.
pub(crate) fn path(context: &Context) -> String {
    format!("/v1/pods/{}", context.secrets.keys.of_operator().seal(&["admission"]))
}

/// Writes our CA and the path into the installed configuration, where they are others.
async fn trust(context: &Context) -> Result<(), Error> {
    let api = Api::<MutatingWebhookConfiguration>::all(context.applier.client.clone());
    let ca = ByteString(context.secrets.serving.cert().as_bytes().to_vec());
    let installed = api.get(CONFIGURATION).await.map_err(Error::Configuration)?;
    let webhook = installed.webhooks.iter().flatten().find(|webhook| webhook.name == WEBHOOK);
    let told = path(context);
    let is_told = |webhook: &MutatingWebhook| {
        let config = &webhook.client_config;
        let at = config.service.as_ref().and_then(|service| service.path.as_ref());
        config.ca_bundle.as_ref() == Some(&ca) && at == Some(&told)
    };
    if webhook.is_none_or(is_told) {
        return Ok(());
    }
    let service = json!({"name": MANAGER, "namespace": context.config.namespace, "path": told});
    context.applier.metrics.wrote("MutatingWebhookConfiguration");
    let patch = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION},
        "webhooks": [{"name": WEBHOOK, "clientConfig": {"caBundle": ca, "service": service}}],
    });
    api.patch(CONFIGURATION, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch))
        .await
        .map_err(Error::Configuration)?;
    Ok(())
}

/// An `AdmissionReview` with a pod, and the answer to it.
async fn review(State(context): State<Arc<Context>>, Json(review): Json<Value>) -> Json<Value> {
    let request = &review["request"];
    let namespace = request["namespace"].as_str().unwrap_or_default();
    let account = request["object"]["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    let images = pods::images(&request["object"]);
    let offers = offers::offers(&context, namespace, account, &images).await;
    Json(answer(request, &offers))
}

fn answer(request: &Value, offers: &[Offer]) -> Value {
    let patch = pods::patch(&request["object"], offers);
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if !patch.is_empty() {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = BASE64_STANDARD.encode(Value::from(patch).to_string()).into();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use serde::Deserialize as _;
    use tower::Service as _;

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn only_who_was_told_the_path_is_answered() {
        let context = Arc::new(testing::context(&testing::fake_api::FakeApi::default()));
        let told = path(&context);
        let guessed = format!("{told}A");
        for (path, status) in
            [(told.as_str(), 200), (&guessed, 404), ("/v1/pods/", 404), ("/v1/pods", 404), ("/", 404)]
        {
            let request = Request::post(path).header("content-type", "application/json");
            let answer = router(&context).call(request.body(Body::from("{}")).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
        }
    }

    #[test]
    fn what_is_installed_fails_open_and_never_sees_mirror_pods() {
        let manifest = include_str!("../../manifests/operator/admission.yaml");
        let documents = serde_yaml::Deserializer::from_str(manifest);
        let mut documents = documents.map(|document| Value::deserialize(document).unwrap());
        let installed = documents.find(|document| document["kind"] == "MutatingWebhookConfiguration");
        let installed: MutatingWebhookConfiguration = serde_json::from_value(installed.unwrap()).unwrap();
        let webhooks = installed.webhooks.unwrap();
        let [webhook] = webhooks.as_slice() else { panic!("{webhooks:?}") };
        assert_eq!(webhook.failure_policy.as_deref(), Some("Ignore"));
        assert!(webhook.timeout_seconds.is_some_and(|seconds| seconds <= 2));
        let conditions = webhook.match_conditions.iter().flatten();
        assert!(conditions.into_iter().any(|condition| {
            condition.expression.contains("!('kubernetes.io/config.mirror' in object.metadata.annotations)")
        }));
    }

    #[test]
    fn a_review_is_answered_with_what_the_pod_lacks() {
        let offers = [Offer::new("pull", ["demo.apps.svc:5000".to_owned()], "team/app")];
        let pod = json!({"spec": {"containers": [{"image": "demo.apps.svc:5000/team/app:1"}]}});
        let answered = answer(&json!({"uid": "1", "object": pod}), &offers);
        let response = &answered["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("1"), &json!(true)));
        assert!(response["patch"].is_string());
        // Whatever comes, nobody is kept from creating pods.
        assert_eq!(answer(&Value::Null, &offers)["response"], json!({"uid": null, "allowed": true}));
    }
}
