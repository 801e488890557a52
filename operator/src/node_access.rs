//! Node access as the operator sees it: one `DaemonSet` for all Registries, told over the channel what nodes should
//! reach, and asked what came of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use channel::{
    client::Client,
    node_access::{Host, HostState, NodeAccess, NodeReport},
};
use crds::Registry;
use futures::StreamExt as _;
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::{Api, ResourceExt as _, api::ListParams, runtime::reflector::Store};
use tokio::sync::{Notify, watch};

use crate::{context::Context, desired::workload::selector_text, names, replicas};

mod daemon_set;

/// The name that a node's end of the channel proves.
const CHANNEL_NAME: &str = "node-access.channel.berth";
/// Nodes told at once.
const CONCURRENCY: usize = 16;
/// How often nodes are asked while all is well; files that somebody deleted are back after this.
const CALM: Duration = Duration::from_secs(20);
/// How soon again while something is not yet as it should be.
const BUSY: Duration = Duration::from_secs(2);

/// What is known of the nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    known: RwLock<Known>,
    wake: Notify,
    changed: watch::Sender<()>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
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

impl Default for Nodes {
    fn default() -> Self {
        Self { known: RwLock::default(), wake: Notify::new(), changed: watch::Sender::new(()) }
    }
}

impl Nodes {
    /// Asks for a round soon.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells when what is known has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How nodes get along with the registry at this endpoint.
    pub(crate) fn view(&self, endpoint: &str) -> View {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut view = View { total: known.total, ..View::default() };
        for (node, report) in &known.reports {
            let host = report
                .as_ref()
                .ok()
                .and_then(|report| report.hosts.iter().find(|host| host.host == endpoint));
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
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut hosts = known.reports.values().flatten().flat_map(|report| &report.hosts);
        hosts.any(|entry| entry.host.rsplit_once(':').is_some_and(|(name, _)| name == host))
    }

    fn learn(&self, known: Known) {
        let mut current = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if *current != known {
            *current = known;
            self.changed.send_replace(());
        }
    }
}

/// Tells nodes what they should reach, again and again; never ends.
pub(crate) async fn run(context: Arc<Context>, registries: Store<Registry>) {
    let mut failing = false;
    loop {
        let pause = match round(&context, &registries).await {
            Ok(calm) => {
                failing = false;
                if calm { CALM } else { BUSY }
            }
            Err(error) => {
                // Said once; the next success ends it.
                if !failing {
                    tracing::error!(%error, "failed to keep node access");
                }
                failing = true;
                BUSY
            }
        };
        // Whether woken or not: the next round looks at everything anyway.
        let _woken = tokio::time::timeout(pause, context.nodes.wake.notified()).await;
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One look at everything; true where nothing is left to do.
async fn round(context: &Context, registries: &Store<Registry>) -> Result<bool, Failure> {
    let access =
        desired(&registries.state(), &context.config.node_access_namespaces, context.secrets.serving.cert());
    let daemon_set: DaemonSet = daemon_set::ensure(context).await?;
    let pods = Api::<Pod>::namespaced(context.applier.client.clone(), &context.config.namespace)
        .list(&ListParams::default().labels(&selector_text(&daemon_set::labels())))
        .await?;
    let client = context.channel()?;
    let told = pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let reports: BTreeMap<_, _> = futures::stream::iter(told.map(|pod| tell(&client, pod, &access)))
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    let total = daemon_set.status.map_or(0, |status| status.desired_number_scheduled);
    let calm = i32::try_from(reports.len()) == Ok(total)
        && reports.values().all(|report| is_settled(report.as_ref()));
    context.nodes.learn(Known { total, reports });
    Ok(calm)
}

async fn tell(client: &Client, pod: &Pod, access: &NodeAccess) -> (String, Result<NodeReport, String>) {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_else(|| pod.name_any());
    let report = match replicas::address(pod) {
        None => Err("its node access pod has no address yet".to_owned()),
        Some(address) => client
            .put(address, CHANNEL_NAME, "/v1/node-access", access)
            .await
            .map_err(|error| error.to_string()),
    };
    (node, report)
}

fn is_settled(report: Result<&NodeReport, &String>) -> bool {
    report.is_ok_and(|report| report.hosts.iter().all(|host| host.state == HostState::Ready))
}

/// Whether the operator's configuration grants nodes' trust to Registries of this namespace.
pub(crate) fn is_granted(namespace: &str, granted: &[String]) -> bool {
    granted.iter().any(|name| name == "*" || name == namespace)
}

/// What nodes should reach: every Registry that wants it, is granted it, has an address and is not being deleted.
fn desired(registries: &[Arc<Registry>], granted: &[String], ca: &str) -> NodeAccess {
    let mut hosts: Vec<_> = registries
        .iter()
        .filter(|registry| {
            registry.metadata.deletion_timestamp.is_none() && registry.spec.node_access.enabled
        })
        .filter(|registry| is_granted(&names::namespace(registry), granted))
        .filter_map(|registry| {
            let ip: std::net::IpAddr = registry.status.as_ref()?.cluster_ip.as_ref()?.parse().ok()?;
            let server = std::net::SocketAddr::new(ip, u16::try_from(registry.spec.service.port).ok()?);
            Some(Host {
                host: names::endpoint(registry),
                server: format!("https://{server}"),
                ca: ca.to_owned(),
            })
        })
        .collect();
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    NodeAccess { hosts }
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
        let all = [with_ip("b", "10.0.0.2"), with_ip("a", "fd00::1"), registry("new"), off].map(Arc::new);
        let access = desired(&all, &["*".into()], "CA");
        let told: Vec<_> =
            access.hosts.iter().map(|host| (host.host.as_str(), host.server.as_str())).collect();
        assert_eq!(
            told,
            [("a.apps.svc:5000", "https://[fd00::1]:5000"), ("b.apps.svc:5000", "https://10.0.0.2:5000")]
        );
        assert_eq!(desired(&all, &["other".into()], "CA").hosts, []);
    }

    #[test]
    fn nodes_that_do_not_answer_are_away_and_those_that_answer_tell() {
        let host = |state| HostReport { host: "a.apps.svc:5000".into(), state, message: Some("why".into()) };
        let report = |state| Ok(NodeReport { hosts: vec![host(state)], ..NodeReport::default() });
        let reports = [
            ("n1".to_owned(), report(HostState::Ready)),
            ("n2".to_owned(), report(HostState::Conflict)),
            ("n3".to_owned(), Err("gone".to_owned())),
        ];
        let nodes = Nodes::default();
        nodes.learn(Known { total: 4, reports: reports.into() });
        let view = nodes.view("a.apps.svc:5000");
        assert_eq!((view.ready, view.total), (1, 4));
        assert_eq!(view.problems, [("n2".to_owned(), "why".to_owned())]);
        assert_eq!(view.away, ["n3"]);
        assert!(nodes.mention("a.apps.svc") && !nodes.mention("b.apps.svc"));
    }
}
