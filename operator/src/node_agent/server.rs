//! The node's end of the channel: the operator says what is wanted, the node does it and answers how it went.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    routing::put,
};
use channel::node_access::{HostReport, HostState, NodeAccess, NodeReport};
use futures::{StreamExt as _, stream};

use super::{
    credentials::{Credential, Credentials},
    files::{CertsFolder, Trouble},
    hosts_toml::Entry,
    probe::probe,
};

/// Room for some ten thousand registries.
const MAX_REQUEST: usize = 32 << 20;
/// Probes under way at once. This many registries that do not answer at all take one probe's timeout, and the
/// operator waits for about three.
const PROBES: usize = 256;
/// How often credentials are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// One node. Whoever writes holds the lock, also when the request that asked for it is gone.
#[derive(Debug)]
pub(super) struct Node {
    name: String,
    credentials: Credentials,
    state: Mutex<NodeState>,
}

#[derive(Debug)]
struct NodeState {
    certs: CertsFolder,
    /// What the operator said last; none before it came by, when what is on disk stays.
    wanted: Option<NodeAccess>,
    /// What was answered last, so that each change is logged once.
    reported: Vec<HostReport>,
}

/// What was done for each host, in the order of the [`NodeAccess`] with this revision.
struct Synced {
    revision: String,
    hosts: Vec<(String, Result<Entry, Trouble>)>,
}

impl Node {
    pub(super) fn new(name: String, certs: CertsFolder, credentials: Credentials) -> Self {
        Self { name, credentials, state: Mutex::new(NodeState { certs, wanted: None, reported: Vec::new() }) }
    }

    /// Removes every file of ours, for good.
    pub(super) fn uninstall(&self) -> std::io::Result<()> {
        let mut state = self.lock();
        state.wanted = None;
        state.certs.clear()
    }

    /// Renews credentials while nobody comes by; never ends.
    pub(super) async fn stay_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.credentials.are_due().await {
                // What fails is logged, and tried again.
                drop(bring_in_line(Arc::clone(&self), None).await);
            }
        }
    }

    /// Audiences of what is wanted.
    fn audiences(&self, news: Option<&NodeAccess>) -> Vec<String> {
        let state = self.lock();
        let wanted = news.or(state.wanted.as_ref());
        let hosts = wanted.iter().flat_map(|wanted| &wanted.hosts);
        let audiences = hosts.flat_map(|host| {
            let fallbacks = host.fallbacks.iter().map(|fallback| &fallback.audience);
            std::iter::once(&host.audience).chain(fallbacks).flatten().cloned()
        });
        audiences.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Takes what is wanted, or what was before, and brings the files in line with it.
    fn sync(
        &self,
        news: Option<NodeAccess>,
        credentials: std::collections::HashMap<String, Credential>,
    ) -> Option<Synced> {
        let mut state = self.lock();
        if news.is_some() {
            state.wanted = news;
        }
        state.certs.pull_with(credentials);
        let wanted = state.wanted.as_ref()?;
        let names = wanted.hosts.iter().map(|host| host.host.clone());
        let hosts = names.zip(state.certs.sync(&wanted.hosts)).collect();
        Some(Synced { revision: wanted.revision(), hosts })
    }

    fn log_changes(&self, reports: &[HostReport]) {
        let mut state = self.lock();
        for report in reports.iter().filter(|report| !state.reported.contains(report)) {
            let HostReport { host, state, message } = report;
            match message {
                None => tracing::info!(host, "pods of this node can pull"),
                Some(reason) => tracing::warn!(host, ?state, reason, "pods of this node may not pull"),
            }
        }
        reports.clone_into(&mut state.reported);
    }

    fn lock(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The channel's routes; who may call them was decided by TLS.
pub(super) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/v1/node-access", put(replace).get(look_again))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(node)
}

async fn replace(
    State(node): State<Arc<Node>>,
    Json(wanted): Json<NodeAccess>,
) -> Result<Json<NodeReport>, StatusCode> {
    report(node, Some(wanted)).await
}

/// Also repairs what somebody changed meanwhile.
async fn look_again(State(node): State<Arc<Node>>) -> Result<Json<NodeReport>, StatusCode> {
    report(node, None).await
}

async fn report(node: Arc<Node>, news: Option<NodeAccess>) -> Result<Json<NodeReport>, StatusCode> {
    let synced = bring_in_line(Arc::clone(&node), news).await?;
    let (revision, hosts) = synced.map_or((None, Vec::new()), |synced| (Some(synced.revision), synced.hosts));
    let reports = stream::iter(hosts).map(|(host, outcome)| host_report(host, outcome)).buffered(PROBES);
    let hosts: Vec<_> = reports.collect().await;
    node.log_changes(&hosts);
    Ok(Json(NodeReport { node: node.name.clone(), revision, hosts }))
}

async fn bring_in_line(node: Arc<Node>, news: Option<NodeAccess>) -> Result<Option<Synced>, StatusCode> {
    let audiences = node.audiences(news.as_ref());
    let audiences: Vec<&str> = audiences.iter().map(String::as_str).collect();
    let credentials = node.credentials.of(&audiences).await;
    tokio::task::spawn_blocking(move || node.sync(news, credentials)).await.map_err(|error| {
        tracing::error!(%error, "failed to bring the files in line");
        StatusCode::INTERNAL_SERVER_ERROR
    })
}

async fn host_report(host: String, outcome: Result<Entry, Trouble>) -> HostReport {
    let (state, message) = match outcome {
        Err(Trouble::Conflict(message)) => (HostState::Conflict, Some(message)),
        Err(Trouble::Failed(message)) => (HostState::Failed, Some(message)),
        Ok(entry) => match probe(&entry).await {
            Ok(()) => (HostState::Ready, None),
            Err(message) => (HostState::Unreachable, Some(message)),
        },
    };
    HostReport { host, state, message }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        path::{Path, PathBuf},
    };

    use axum::serve::Listener as _;
    use channel::{
        client::{self, Client},
        node_access::Host,
        tls::{Files, Reloading, TlsListener},
    };
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use tempfile::TempDir;
    use tokio::{net::TcpListener, task::JoinSet};

    use super::*;

    const PATH: &str = "/v1/node-access";
    const DEMO: &str = "demo.apps.svc:5000";

    /// Signs certificates, and keeps them as files.
    struct Authority {
        folder: TempDir,
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            let folder = TempDir::new().unwrap();
            std::fs::write(folder.path().join("ca.crt"), &pem).unwrap();
            Self { folder, issuer: Issuer::new(params, key), pem }
        }

        fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![purpose];
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
        }

        fn client(&self) -> Client {
            let (cert, key) = self.sign("operator", ExtendedKeyUsagePurpose::ClientAuth);
            Client::new(&cert, &key, &self.pem).unwrap()
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Serves with a certificate for `name`.
        async fn serve(
            &self,
            tasks: &mut JoinSet<()>,
            name: &str,
            mutual: bool,
            router: Router,
        ) -> SocketAddr {
            let (cert, key) = self.sign(name, ExtendedKeyUsagePurpose::ServerAuth);
            std::fs::write(self.file("tls.crt"), cert).unwrap();
            std::fs::write(self.file("tls.key"), key).unwrap();
            let files = Files {
                cert: self.file("tls.crt"),
                key: self.file("tls.key"),
                client_ca: mutual.then(|| self.file("ca.crt")),
            };
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let listener = TlsListener::new(tcp, Reloading::load(files).unwrap());
            let address = listener.local_addr().unwrap();
            tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
            address
        }
    }

    /// A node whose channel is up.
    struct TestNode {
        certs: TempDir,
        authority: Authority,
        address: SocketAddr,
        tasks: JoinSet<()>,
    }

    impl TestNode {
        async fn start() -> Self {
            let certs = TempDir::new().unwrap();
            let node = Arc::new(Node::new(
                "worker-1".into(),
                CertsFolder::new(certs.path().to_owned(), "/etc/containerd/certs.d".into()),
                Credentials::new(None),
            ));
            let authority = Authority::new();
            let mut tasks = JoinSet::new();
            let address = authority.serve(&mut tasks, "node-access.channel.berth", true, router(node)).await;
            Self { certs, authority, address, tasks }
        }

        /// Starts a registry that answers every request with this status.
        async fn registry(&mut self, ca: &Authority, status: StatusCode) -> Host {
            let router = Router::new().fallback(move || async move { status });
            let address = ca.serve(&mut self.tasks, "127.0.0.1", false, router).await;
            Host {
                host: DEMO.into(),
                server: format!("https://{address}"),
                ca: ca.pem.clone(),
                audience: None,
                fallbacks: Vec::new(),
            }
        }

        async fn put(&self, hosts: &[Host]) -> NodeReport {
            let wanted = NodeAccess { hosts: hosts.to_vec() };
            self.authority
                .client()
                .put(self.address, "node-access.channel.berth", PATH, &wanted)
                .await
                .unwrap()
        }

        async fn get(&self) -> NodeReport {
            self.authority.client().get(self.address, "node-access.channel.berth", PATH).await.unwrap()
        }

        fn file(&self, name: &str) -> PathBuf {
            self.certs.path().join(DEMO).join(name)
        }
    }

    fn only(report: &NodeReport) -> (HostState, &str) {
        assert_eq!(report.hosts.len(), 1);
        assert_eq!(report.hosts[0].host, DEMO);
        (report.hosts[0].state, report.hosts[0].message.as_deref().unwrap_or_default())
    }

    #[tokio::test]
    async fn a_registry_that_asks_for_a_login_is_ready() {
        let mut node = TestNode::start().await;
        let ca = Authority::new();
        let host = node.registry(&ca, StatusCode::UNAUTHORIZED).await;
        assert_eq!(node.get().await, NodeReport { node: "worker-1".into(), revision: None, hosts: vec![] });

        let report = node.put(std::slice::from_ref(&host)).await;
        assert_eq!(only(&report), (HostState::Ready, ""));
        assert_eq!(report.revision, Some(NodeAccess { hosts: vec![host.clone()] }.revision()));
        assert!(std::fs::read_to_string(node.file("hosts.toml")).unwrap().contains(&host.server));
        assert_eq!(node.get().await, report);

        let nothing = node.put(&[]).await;
        assert_eq!((nothing.hosts, nothing.revision), (vec![], Some(NodeAccess::default().revision())));
        assert!(!node.certs.path().join(DEMO).exists());
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_registry_is_said() {
        let mut node = TestNode::start().await;
        let (ca, other) = (Authority::new(), Authority::new());

        let host = node.registry(&ca, StatusCode::BAD_GATEWAY).await;
        let report = node.put(&[host]).await;
        assert_eq!(only(&report).0, HostState::Unreachable);
        assert!(only(&report).1.ends_with("answered 502 Bad Gateway to GET /v2/"), "{report:?}");

        let mut host = node.registry(&ca, StatusCode::OK).await;
        host.ca.clone_from(&other.pem);
        let report = node.put(std::slice::from_ref(&host)).await;
        assert_eq!(only(&report).0, HostState::Unreachable);
        assert!(only(&report).1.contains("cannot be reached: invalid peer certificate"), "{report:?}");

        host.server = "https://127.0.0.1:1".into();
        let report = node.put(std::slice::from_ref(&host)).await;
        assert!(only(&report).1.starts_with("the registry at 127.0.0.1:1 cannot be reached: "), "{report:?}");

        host.server = "http://127.0.0.1:1".into();
        assert_eq!(only(&node.put(&[host]).await).0, HostState::Failed);
    }

    #[tokio::test]
    async fn looking_again_repairs_and_tells_of_conflicts() {
        let mut node = TestNode::start().await;
        let ca = Authority::new();
        let host = node.registry(&ca, StatusCode::OK).await;
        node.put(&[host]).await;

        std::fs::remove_file(node.file("hosts.toml")).unwrap();
        assert_eq!(only(&node.get().await).0, HostState::Ready);
        assert!(node.file("hosts.toml").exists());

        std::fs::write(node.file("hosts.toml"), "server = \"https://example.com\"\n").unwrap();
        let report = node.get().await;
        assert_eq!(only(&report).0, HostState::Conflict);
        assert!(
            Path::new(only(&report).1.split(' ').next().unwrap()).ends_with("demo.apps.svc:5000/hosts.toml")
        );
        std::fs::remove_file(node.file("hosts.toml")).unwrap();
        assert_eq!(only(&node.get().await).0, HostState::Ready);
    }

    #[tokio::test]
    async fn only_the_operator_is_let_in() {
        let node = TestNode::start().await;
        let call = |client: Client| async move {
            client.get::<NodeReport>(node.address, "node-access.channel.berth", PATH).await
        };
        let (cert, key) = Authority::new().sign("operator", ExtendedKeyUsagePurpose::ClientAuth);
        let stranger = Client::new(&cert, &key, &node.authority.pem).unwrap();
        let (cert, key) = node.authority.sign("a-registry", ExtendedKeyUsagePurpose::ServerAuth);
        let registry = Client::new(&cert, &key, &node.authority.pem).unwrap();
        for client in [stranger, registry] {
            let refused = call(client).await;
            assert!(matches!(refused, Err(client::Error::Unreachable { .. })), "{refused:?}");
        }
    }
}
