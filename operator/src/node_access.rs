//! Node access as the operator sees it: one `DaemonSet` for all Registries, told over the channel what nodes should
//! reach, and asked what came of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use channel::{
    client::Client,
    node_access::{Host, HostReport, HostState, NodeAccess, NodeReport},
};
use crds::Registry;
use futures::{StreamExt as _, channel::mpsc};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::Notify;

use crate::{context::Context, controller::Guarded, desired::workload::selector_text, names, replicas};

mod daemon_set;

/// The name that a node's end of the channel proves.
const CHANNEL_NAME: &str = "node-access.channel.berth";
/// Nodes told at once.
const CONCURRENCY: usize = 16;
/// How often nodes are asked while nothing changes; files that somebody deleted are back after this.
const CALM: Duration = Duration::from_secs(20);
/// How soon after a change; then ever later until calm.
const BUSY: Duration = Duration::from_secs(1);
/// A round takes no longer, whatever hangs.
const ROUND: Duration = Duration::from_secs(60);

/// What is known of the nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    known: Mutex<Known>,
    wake: Notify,
    changed: mpsc::UnboundedSender<ObjectRef<Guarded>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Addresses of Services as they were seen, by the Registry's UID. What a status says is only its echo.
    addresses: HashMap<String, String>,
    /// What nodes were told last, by host.
    told: BTreeMap<String, Host>,
    /// Nodes that should have node access.
    total: i32,
    /// By node: its last report, or why there is none.
    reports: BTreeMap<String, Result<NodeReport, String>>,
}

/// How nodes get along with one Registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) ready: i32,
    pub(crate) total: i32,
    /// Node and sentence, of nodes that said what is wrong.
    pub(crate) problems: Vec<(String, String)>,
    /// Nodes that did not answer, or have not been told yet.
    pub(crate) away: Vec<String>,
}

impl Nodes {
    /// Nothing known yet; the stream names Registries whose view of the nodes has changed.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<ObjectRef<Guarded>>) {
        let (changed, stream) = mpsc::unbounded();
        (Self { known: Mutex::default(), wake: Notify::new(), changed }, stream)
    }

    /// Takes what a reconciliation saw; asks for a round where nodes were told otherwise.
    pub(crate) fn learn_of(&self, registry: &Registry, cluster_ip: Option<&str>, granted: &[String]) {
        let mut known = self.known();
        if let Some(ip) = cluster_ip {
            known.addresses.insert(registry.uid().unwrap_or_default(), ip.to_owned());
        }
        let wanted = host(registry, &known.addresses, granted, "");
        let told = known.told.get(&names::endpoint(registry));
        if wanted.map(|host| host.server) != told.map(|host| host.server.clone()) {
            self.wake.notify_one();
        }
    }

    /// The Registry goes: asks for a round where nodes were told of it.
    pub(crate) fn forget(&self, registry: &Registry) {
        let mut known = self.known();
        known.addresses.remove(&registry.uid().unwrap_or_default());
        if known.told.contains_key(&names::endpoint(registry)) {
            self.wake.notify_one();
        }
    }

    /// How nodes get along with the registry at this endpoint.
    pub(crate) fn view(&self, endpoint: &str) -> View {
        let known = self.known();
        let mut view = View { total: known.total, ..View::default() };
        for (node, report) in &known.reports {
            let host = report.as_ref().ok().and_then(|report| find(report, endpoint));
            match host {
                Some(host) if host.state == HostState::Ready => view.ready += 1,
                Some(host) => view.problems.push((node.clone(), host.message.clone().unwrap_or_default())),
                None => view.away.push(node.clone()),
            }
        }
        view
    }

    /// Whether a node that answers still has files for this host name (at any port).
    pub(crate) fn mention(&self, host: &str) -> bool {
        let known = self.known();
        let mut hosts = known.reports.values().flatten().flat_map(|report| &report.hosts);
        hosts.any(|entry| entry.host.rsplit_once(':').is_some_and(|(name, _)| name == host))
    }

    /// Takes a node's answer; true where it differs from the last.
    fn learn(&self, node: &str, report: Result<NodeReport, String>) -> bool {
        let mut known = self.known();
        let before = known.reports.insert(node.to_owned(), report);
        let (before, after) = (reported(before.as_ref()), reported(known.reports.get(node)));
        let hosts: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let differ: Vec<_> = hosts.into_iter().filter(|host| before.get(*host) != after.get(*host)).collect();
        differ.iter().for_each(|host| self.tell(host));
        !differ.is_empty()
    }

    /// Takes how many nodes there are, and which; true where that has changed.
    fn learn_nodes(&self, total: i32, nodes: &[String]) -> bool {
        let mut known = self.known();
        let before = (known.total, known.reports.len());
        known.total = total;
        known.reports.retain(|node, _| nodes.contains(node));
        let changed = before != (known.total, known.reports.len());
        if changed {
            known.told.keys().for_each(|host| self.tell(host));
        }
        changed
    }

    fn tell(&self, host: &str) {
        if let Some(registry) = registry_at(host) {
            // Nobody listens only when the controller has ended.
            drop(self.changed.unbounded_send(registry));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(report: &'a NodeReport, endpoint: &str) -> Option<&'a HostReport> {
    report.hosts.iter().find(|host| host.host == endpoint)
}

/// What a node says of each host, in what people would see.
fn reported(report: Option<&Result<NodeReport, String>>) -> BTreeMap<&str, (HostState, Option<&str>)> {
    let hosts = report.and_then(|report| report.as_ref().ok()).map(|report| report.hosts.as_slice());
    let hosts = hosts.unwrap_or_default().iter();
    hosts.map(|host| (host.host.as_str(), (host.state, host.message.as_deref()))).collect()
}

/// The Registry that is reached at `demo.apps.svc:5000`.
fn registry_at(host: &str) -> Option<ObjectRef<Guarded>> {
    let mut labels = host.split('.');
    Some(ObjectRef::new(labels.next()?).within(labels.next()?))
}

/// Tells nodes what they should reach, again and again; never ends.
pub(crate) async fn run(context: Arc<Context>, registries: Store<Guarded>) {
    // Before that, nobody knows what is wanted, and nodes keep what they have.
    if registries.wait_until_ready().await.is_err() {
        return;
    }
    let (mut pause, mut failing) = (BUSY, false);
    loop {
        let round = tokio::time::timeout(ROUND, round(&context, &registries)).await;
        let result = round.unwrap_or_else(|_| Err(format!("not done after {} s", ROUND.as_secs()).into()));
        match &result {
            Err(error) if !failing => tracing::error!(%error, "failed to keep node access"),
            Ok(_) if failing => tracing::info!("node access is kept again"),
            _ => {}
        }
        failing = result.is_err();
        pause = if matches!(result, Ok(true)) { BUSY } else { (pause * 2).min(CALM) };
        if tokio::time::timeout(pause, context.nodes.wake.notified()).await.is_ok() {
            pause = BUSY;
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One look at everything; true where something has changed.
async fn round(context: &Context, registries: &Store<Guarded>) -> Result<bool, Failure> {
    let nodes = &context.nodes;
    let access = wanted(context, registries);
    // Nodes that are there are told also where no new ones can be set up.
    let daemon_set = daemon_set::ensure(context).await;
    let pods = Api::<Pod>::namespaced(context.applier.client.clone(), &context.config.namespace)
        .list(&ListParams::default().labels(&selector_text(&daemon_set::labels())))
        .await?;
    let client = context.channel()?;
    let mut pods: Vec<_> =
        pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    // Those of nodes that are away last: each takes a while to be given up.
    pods.sort_by_key(|pod| !replicas::is_ready(pod));
    let names: Vec<_> = pods.iter().map(|pod| node(pod)).collect();
    let total = daemon_set.as_ref().ok().and_then(|set| set.status.as_ref());
    let total = total.map_or(i32::try_from(names.len())?, |status| status.desired_number_scheduled);
    let mut changed = nodes.learn_nodes(total, &names);
    let mut told = futures::stream::iter(pods.into_iter().map(|pod| tell(&client, pod, &access)))
        .buffer_unordered(CONCURRENCY);
    while let Some((node, report)) = told.next().await {
        changed |= nodes.learn(&node, report);
    }
    daemon_set.map(|_| changed)
}

/// What nodes should reach, which is noted as told.
fn wanted(context: &Context, registries: &Store<Guarded>) -> NodeAccess {
    let registries = registries.state();
    let registries = registries.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    let mut known = context.nodes.known();
    let access = desired(
        registries,
        &known.addresses,
        &context.config.node_access_namespaces,
        context.secrets.serving.cert(),
    );
    known.told = access.hosts.iter().map(|host| (host.host.clone(), host.clone())).collect();
    access
}

fn node(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_else(|| pod.name_any())
}

async fn tell(client: &Client, pod: &Pod, access: &NodeAccess) -> (String, Result<NodeReport, String>) {
    let report = match replicas::address(pod) {
        None => Err("its node access pod has no address yet".to_owned()),
        Some(address) => client
            .put(address, CHANNEL_NAME, "/v1/node-access", access)
            .await
            .map_err(|error| error.to_string()),
    };
    (node(pod), report)
}

/// Whether the operator's configuration grants nodes' trust to Registries of this namespace.
pub(crate) fn is_granted(namespace: &str, granted: &[String]) -> bool {
    granted.iter().any(|name| name == "*" || name == namespace)
}

/// What nodes should reach: every Registry that wants it, is granted it, has an address and is not being deleted.
fn desired<'a>(
    registries: impl Iterator<Item = &'a Registry>,
    addresses: &HashMap<String, String>,
    granted: &[String],
    ca: &str,
) -> NodeAccess {
    let mut hosts: Vec<_> =
        registries.filter_map(|registry| host(registry, addresses, granted, ca)).collect();
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    NodeAccess { hosts }
}

/// How nodes should reach the Registry, where they should. After a restart the status helps until the Service was seen.
fn host(
    registry: &Registry,
    addresses: &HashMap<String, String>,
    granted: &[String],
    ca: &str,
) -> Option<Host> {
    let wanted = registry.metadata.deletion_timestamp.is_none() && registry.spec.node_access.enabled;
    if !wanted || !is_granted(&names::namespace(registry), granted) {
        return None;
    }
    let seen = addresses.get(&registry.uid().unwrap_or_default());
    let ip: IpAddr = seen.or(registry.status.as_ref()?.cluster_ip.as_ref())?.parse().ok()?;
    let server = SocketAddr::new(ip, u16::try_from(registry.spec.service.port).ok()?);
    Some(Host { host: names::endpoint(registry), server: format!("https://{server}"), ca: ca.to_owned() })
}

#[cfg(test)]
mod tests {
    use channel::node_access::HostReport;
    use crds::RegistryStatus;

    use super::*;
    use crate::testing::registry;

    fn with_ip(name: &str, ip: &str) -> Registry {
        let status = RegistryStatus { cluster_ip: Some(ip.into()), ..RegistryStatus::default() };
        Registry { status: Some(status), ..registry(name) }
    }

    #[test]
    fn only_registries_that_want_it_are_granted_it_and_have_an_address_are_told() {
        let mut off = with_ip("off", "10.0.0.3");
        off.spec.node_access.enabled = false;
        let all = [with_ip("b", "10.0.0.2"), with_ip("a", "fd00::1"), registry("new"), off];
        let none = HashMap::new();
        let access = desired(all.iter(), &none, &["*".into()], "CA");
        let told: Vec<_> =
            access.hosts.iter().map(|host| (host.host.as_str(), host.server.as_str())).collect();
        assert_eq!(
            told,
            [("a.apps.svc:5000", "https://[fd00::1]:5000"), ("b.apps.svc:5000", "https://10.0.0.2:5000")]
        );
        assert_eq!(desired(all.iter(), &none, &["other".into()], "CA").hosts, []);
    }

    #[test]
    fn the_address_that_was_seen_counts_more_than_what_a_status_says() {
        let addresses = [("uid-of-a".to_owned(), "10.0.0.9".to_owned())].into();
        let access = desired([with_ip("a", "10.0.0.1")].iter(), &addresses, &["*".into()], "CA");
        assert_eq!(access.hosts[0].server, "https://10.0.0.9:5000");
    }

    fn report(state: HostState) -> Result<NodeReport, String> {
        let host = HostReport { host: "a.apps.svc:5000".into(), state, message: Some("why".into()) };
        Ok(NodeReport { hosts: vec![host], ..NodeReport::default() })
    }

    #[test]
    fn nodes_that_do_not_answer_are_away_and_those_that_answer_tell() {
        let (nodes, _changes) = Nodes::new();
        nodes.learn_nodes(4, &[]);
        nodes.learn("n1", report(HostState::Ready));
        nodes.learn("n2", report(HostState::Conflict));
        nodes.learn("n3", Err("gone".into()));
        let view = nodes.view("a.apps.svc:5000");
        assert_eq!((view.ready, view.total), (1, 4));
        assert_eq!(view.problems, [("n2".to_owned(), "why".to_owned())]);
        assert_eq!(view.away, ["n3"]);
        assert!(nodes.mention("a.apps.svc") && !nodes.mention("b.apps.svc"));
    }

    #[test]
    fn only_changes_are_told_and_only_to_whom_they_matter() {
        let (nodes, mut changes) = Nodes::new();
        assert!(nodes.learn("n1", report(HostState::Ready)));
        assert!(!nodes.learn("n1", report(HostState::Ready)));
        assert!(nodes.learn("n1", report(HostState::Unreachable)));
        assert!(nodes.learn("n1", Err("gone".into())));
        assert!(!nodes.learn("n1", Err("still gone".into())));
        let mut told = Vec::new();
        while let Ok(registry) = changes.try_recv() {
            told.push(registry);
        }
        assert_eq!(told, vec![ObjectRef::<Guarded>::new("a").within("apps"); 3]);
    }
}
