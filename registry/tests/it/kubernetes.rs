//! A Kubernetes API that knows one question, over TLS: whose a ServiceAccount's token is. And tokens for it.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Json, Router, extract::State, routing::post};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use channel::tls::{Files, Reloading, TlsListener};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::pki::Authority;

pub(crate) const AUDIENCE: &str = "berth.dev/apps/demo";
pub(crate) const CI: &str = "system:serviceaccount:apps:ci";
pub(crate) const NODE: &str = "system:serviceaccount:berth-system:node";

/// What the cluster says of a token.
#[derive(Clone, Copy)]
pub(crate) enum Says {
    Right,
    NotAuthenticated,
    /// Right, but not for what was asked.
    ForOthers,
    /// Right, but somebody else's.
    APerson,
}

/// A token that says whose it is and for what; the signature says what the cluster will.
pub(crate) fn token(name: &str, audience: &str, seconds_left: i64, says: Says) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"aud": [audience], "exp": now.saturating_add_signed(seconds_left), "sub": name});
    let signature = match says {
        Says::Right => "right",
        Says::NotAuthenticated => "wrong",
        Says::ForOthers => "others",
        Says::APerson => "person",
    };
    format!("eyJhbGciOiJub25lIn0.{}.{signature}", BASE64.encode(claims.to_string()))
}

/// A right token for this registry.
pub(crate) fn token_of(name: &str) -> String {
    token(name, AUDIENCE, 3600, Says::Right)
}

pub(crate) struct Kubernetes {
    /// What a pod finds in its folder.
    folder: TempDir,
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

struct Shared {
    asked: AtomicUsize,
    folder: std::path::PathBuf,
}

impl Kubernetes {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        authority.sign(&["127.0.0.1"]).write(folder.path(), "api");
        std::fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
        let shared = Arc::new(Shared { asked: AtomicUsize::new(0), folder: folder.path().to_owned() });
        let address = ([127, 0, 0, 1], 0).into();
        let mut kubernetes = Self { folder, address, shared, serving: None };
        kubernetes.rotate("the pod's own");
        kubernetes.come_back().await;
        kubernetes
    }

    /// What the registry is started with.
    pub(crate) fn arguments(&self, command: &mut Command) {
        let address = self.address.to_string();
        command.args(["--kubernetes", "--kubernetes-api", &address, "--kubernetes-folder"]);
        command.arg(self.folder.path());
    }

    /// Gives the registry another token for the API; the former one is worth nothing.
    pub(crate) fn rotate(&self, own: &str) {
        std::fs::write(self.folder.path().join("token"), format!("{own}\n")).unwrap();
        std::fs::write(self.folder.path().join("accepted"), own).unwrap();
    }

    /// The registry gets no right any more.
    pub(crate) fn forbid(&self) {
        std::fs::write(self.folder.path().join("accepted"), "another").unwrap();
    }

    /// Questions so far.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    pub(crate) async fn go_away(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    pub(crate) async fn come_back(&mut self) {
        let file = |name: &str| self.folder.path().join(name);
        let files = Files { cert: file("api.crt"), key: file("api.key"), client_ca: None };
        let tcp = TcpListener::bind(self.address).await.unwrap();
        self.address = tcp.local_addr().unwrap();
        let listener = TlsListener::new(tcp, Reloading::load(files).unwrap());
        let router = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
            .with_state(Arc::clone(&self.shared));
        self.serving = Some(tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        }));
    }

    /// Long enough that answers which were no answers are not remembered.
    pub(crate) async fn is_forgotten() {
        tokio::time::sleep(Duration::from_millis(2100)).await;
    }
}

async fn review(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(review): Json<Value>,
) -> (StatusCode, Json<Value>) {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let own = std::fs::read_to_string(Path::new(&shared.folder).join("accepted")).unwrap();
    if headers["authorization"] != format!("Bearer {own}") {
        return (StatusCode::FORBIDDEN, Json(json!({"kind": "Status", "code": 403})));
    }
    assert_eq!(review["kind"], "TokenReview");
    let (token, audiences) = (review["spec"]["token"].as_str().unwrap(), &review["spec"]["audiences"]);
    let [_, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("no token") };
    let claims: Value = serde_json::from_slice(&BASE64.decode(claims).unwrap()).unwrap();
    let right = |audiences: &Value, name: &str| json!({"authenticated": true, "audiences": audiences, "user": {"username": name, "groups": ["system:masters"]}});
    let name = claims["sub"].as_str().unwrap();
    let status = match signature {
        "right" => right(audiences, name),
        "others" => right(&json!(["https://kubernetes.default.svc"]), name),
        "person" => right(audiences, "alice"),
        _ => json!({"user": {}, "error": "[invalid bearer token]"}),
    };
    (StatusCode::CREATED, Json(json!({"kind": "TokenReview", "spec": review["spec"], "status": status})))
}
