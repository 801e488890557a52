//! A cluster in memory that the operator runs in, and a replica that takes policies.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::{delete, get, put},
};
use channel::{
    policy::{Policy, ReplicaStatus, SecretHash},
    tls::{Files, Reloading, TlsListener},
    usage::Purged,
};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::{
    controller::{lead, watches},
    metrics::Metrics,
    testing::{self, fake_api::FakeApi, world},
};

pub(super) const REGISTRY: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/registries/demo";
/// Nobody else listens on these loopback addresses.
pub(super) const REPLICAS: [&str; 7] = [
    "127.82.69.71",
    "127.82.69.72",
    "127.82.69.73",
    "127.82.69.74",
    "127.82.69.75",
    "127.82.69.76",
    "127.82.69.77",
];

pub(super) fn at(namespace: &str, name: &str) -> String {
    format!("/apis/berth.dev/v1alpha1/namespaces/{namespace}/repositories/{name}")
}

pub(super) struct Cluster {
    pub(super) api: FakeApi,
}

/// Runs the operator as long as the test.
pub(super) async fn with_operator(cluster: &Cluster, test: impl AsyncFnOnce(&Cluster)) {
    let begun = watches::begin(cluster.api.client(), world::config(), Metrics::default()).await;
    let (context, watches) = begun.unwrap();
    tokio::select! {
        () = lead(context, watches) => panic!("the operator ended"),
        () = test(cluster) => {}
    }
}

impl Cluster {
    /// A Registry that grants namespaces by label, and two of them, one with the label.
    pub(super) fn new() -> Self {
        let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let api = FakeApi::default();
        let mut registry = testing::registry("demo");
        let tenancy = json!({"namespaces": {"selector": {"matchLabels": {"team": "yes"}}}});
        registry.spec.tenancy = serde_json::from_value(tenancy).unwrap();
        api.put(REGISTRY, json!(registry));
        for (name, labels) in [("apps", json!({})), ("red", json!({"team": "yes"})), ("blue", json!({}))] {
            api.put(
                &format!("/api/v1/namespaces/{name}"),
                json!({"metadata": {"name": name, "labels": labels}}),
            );
        }
        Self { api }
    }

    pub(super) fn declare(&self, namespace: &str, name: &str, spec: &Value) {
        self.api.put(&at(namespace, name), json!(testing::repository(namespace, name, spec)));
    }

    pub(super) fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.api.get(path).unwrap();
        edit(&mut object);
        self.api.put(path, object);
    }

    /// The pod of this number of this Registry has an address.
    fn runs(&self, name: &str, number: usize, address: &str) {
        let labels = crate::names::labels(&testing::registry(name));
        let pod = format!("{name}-{number}");
        let metadata = json!({"name": pod, "namespace": "apps", "labels": labels});
        let status = json!({"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]});
        let object = json!({"metadata": metadata, "status": status});
        self.api.put(&format!("/api/v1/namespaces/apps/pods/{pod}"), object);
    }

    fn reason(&self, path: &str, type_: &str) -> Option<String> {
        let status = self.api.get(path)?["status"].clone();
        let conditions = status["conditions"].as_array()?.clone();
        let condition = conditions.into_iter().find(|condition| condition["type"] == type_)?;
        Some(condition["reason"].as_str()?.to_owned())
    }

    pub(super) async fn until(&self, what: &str, holds: impl Fn() -> bool) -> Duration {
        let start = std::time::Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(20), "{what} does not come to be");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        start.elapsed()
    }

    pub(super) async fn until_at_rest(&self) {
        while !self.api.take_writes().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    pub(super) async fn until_said(&self, path: &str, type_: &str, reason: &str) -> Duration {
        self.until(&format!("{path} {type_} {reason}"), || {
            self.reason(path, type_).as_deref() == Some(reason)
        })
        .await
    }
}

/// The policy that decides, once there is one, and the paths whose images were deleted.
pub(super) type Deciding = Arc<Mutex<(Option<Policy>, Vec<String>)>>;

/// Serves as the Registry's first pod.
pub(super) async fn replica(cluster: &Cluster, address: &str) -> Deciding {
    replica_number(cluster, 0, address).await
}

/// Serves as the Registry's pod of this number, with the certificate that the operator made.
pub(super) async fn replica_number(cluster: &Cluster, number: usize, address: &str) -> Deciding {
    const CHANNEL: &str = "/api/v1/namespaces/apps/secrets/demo-channel";
    cluster.until("a certificate of the channel", || cluster.api.get(CHANNEL).is_some()).await;
    let secret: Secret = serde_json::from_value(cluster.api.get(CHANNEL).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in secret.data.unwrap() {
        std::fs::write(folder.path().join(name), content.0).unwrap();
    }
    let file = |name| folder.path().join(name);
    let files = Files { cert: file("tls.crt"), key: file("tls.key"), client_ca: Some(file("ca.crt")) };
    let certificate = Reloading::load(files).unwrap();
    let tcp = tokio::net::TcpListener::bind((address, 8082)).await.unwrap();

    let deciding = Deciding::default();
    let status = |deciding: &Deciding| {
        let policy = deciding.lock().unwrap_or_else(PoisonError::into_inner);
        Json(ReplicaStatus {
            policy_revision: policy.0.as_ref().map(Policy::revision),
            ..ReplicaStatus::default()
        })
    };
    let apply = move |State(deciding): State<Deciding>, Json(policy): Json<Policy>| async move {
        deciding.lock().unwrap().0 = Some(policy);
        status(&deciding)
    };
    let remove = |State(deciding): State<Deciding>, Query(query): Query<HashMap<String, String>>| async move {
        // Asked only once the path has no rule any more.
        assert!(!has(&deciding, &query["path"]));
        deciding.lock().unwrap().1.push(query["path"].clone());
        Json(Purged { removed: 1, done: true })
    };
    let router = Router::new()
        .route("/v1/policy", put(apply))
        .route("/v1/status", get(move |State(deciding): State<Deciding>| async move { status(&deciding) }))
        .route("/v1/repositories", delete(remove))
        .with_state(Arc::clone(&deciding));
    tokio::spawn(async move { axum::serve(TlsListener::new(tcp, certificate), router).await });

    cluster.runs("demo", number, address);
    deciding
}

/// Serves as the pod of a Registry of this name that accepts connections and says nothing, as long as the test.
pub(super) async fn silent_replica(cluster: &Cluster, name: &str, address: &str) {
    let tcp = tokio::net::TcpListener::bind((address, 8082)).await.unwrap();
    tokio::spawn(async move {
        let mut accepted = Vec::new();
        while let Ok(connection) = tcp.accept().await {
            accepted.push(connection);
        }
    });
    let registry = format!("/apis/berth.dev/v1alpha1/namespaces/apps/registries/{name}");
    cluster.api.put(&registry, json!(testing::registry(name)));
    cluster.runs(name, 0, address);
}

pub(super) fn has(deciding: &Deciding, path: &str) -> bool {
    deciding.lock().unwrap().0.iter().flat_map(|policy| &policy.repositories).any(|rule| rule.path == path)
}

/// Whether this opens a login.
pub(super) fn opens(deciding: &Deciding, password: &str) -> bool {
    let hash = SecretHash::of(password.as_bytes());
    let policy = deciding.lock().unwrap();
    policy.0.iter().flat_map(|policy| &policy.logins).any(|login| login.secrets.contains(&hash))
}
