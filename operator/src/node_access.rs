//! Node access as the operator sees it: one `DaemonSet` for all Registries, told over the channel what nodes should
//! reach, and asked what came of it.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use channel::{
    client::Client,
    node_access::{Fallback, Host, NodeAccess, NodeReport},
};
use crds::{Registry, repository::Visibility};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams, runtime::reflector::Store};

use crate::{
    context::Context, controller::Guarded, desired::workload::selector_text, fallbacks, names, replicas,
};

mod daemon_set;
mod nodes;

use nodes::Turn;
pub(crate) use nodes::{Nodes, Seen, View};

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
    // Without them it would seem that nothing is for all pods.
    context.stores.complete().await?;
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
    nodes.end_round();
    daemon_set.map(|_| changed)
}

/// What nodes should reach, which is noted as told.
fn wanted(context: &Context, registries: &Store<Guarded>) -> NodeAccess {
    let registries = registries.state();
    let registries: Vec<_> = registries.iter().filter_map(|guarded| guarded.0.as_ref().ok()).collect();
    let mut known = context.nodes.known();
    // After a start, before each was reconciled.
    for registry in &registries {
        let uid = registry.uid().unwrap_or_default();
        if !known.seen.contains_key(&uid) {
            let agreeing: Vec<_> =
                fallbacks::agreeing(context, registry).into_iter().filter_map(Result::ok).collect();
            let turns = nodes::turns(&agreeing, &known.seen);
            let for_all_pods = has_for_all_pods(context, registry);
            known.seen.insert(uid, Seen { address: None, for_all_pods, turns });
        }
    }
    let access = desired(
        registries.into_iter(),
        &known.seen,
        &context.config.node_access_namespaces,
        context.secrets.serving.cert(),
    );
    known.told = access.hosts.iter().map(|host| (host.host.clone(), host.clone())).collect();
    access
}

/// Whether the Registry has repositories that every pod of the cluster may pull.
fn has_for_all_pods(context: &Context, registry: &Registry) -> bool {
    context.stores.tenants(registry, |tenants| {
        tenants.accepted().iter().any(|repository| repository.spec.visibility == Visibility::Cluster)
    })
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

/// The `ServiceAccount` of the node access pods, as Kubernetes calls it.
pub(crate) fn account(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:{}", daemon_set::NAME)
}

/// Whether the operator's configuration grants nodes' trust to Registries of this namespace.
pub(crate) fn is_granted(namespace: &str, granted: &[String]) -> bool {
    granted.iter().any(|name| name == "*" || name == namespace)
}

/// What nodes should reach: every Registry that wants it, is granted it, has an address and is not being deleted.
fn desired<'a>(
    registries: impl Iterator<Item = &'a Registry>,
    seen: &HashMap<String, Seen>,
    granted: &[String],
    ca: &str,
) -> NodeAccess {
    let mut hosts: Vec<_> = registries.filter_map(|registry| host(registry, seen, granted, ca)).collect();
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    NodeAccess { hosts }
}

/// How nodes should reach the Registry, where they should. After a restart the status helps until the Service was seen.
fn host(registry: &Registry, seen: &HashMap<String, Seen>, granted: &[String], ca: &str) -> Option<Host> {
    let wanted = registry.metadata.deletion_timestamp.is_none() && registry.spec.node_access.enabled;
    if !wanted || !is_granted(&names::namespace(registry), granted) {
        return None;
    }
    let server = server(registry, seen)?;
    let seen = seen.get(&registry.uid().unwrap_or_default());
    let for_all_pods = seen.is_some_and(|seen| seen.for_all_pods);
    // All of them have certificates of the same authority.
    let ca = ca.to_owned();
    let fallback = |turn: &Turn| match turn {
        Turn::Here { server, audience } => Fallback {
            server: format!("https://{server}"),
            ca: Some(ca.clone()),
            audience: for_all_pods.then(|| audience.clone()),
        },
        Turn::Outside(outside) => Fallback {
            server: format!("https://{}", outside.authority),
            ca: outside.ca.clone(),
            audience: None,
        },
    };
    Some(Host {
        host: names::endpoint(registry),
        server: format!("https://{server}"),
        audience: for_all_pods.then(|| names::audience(registry)),
        fallbacks: seen.iter().flat_map(|seen| &seen.turns).map(fallback).collect(),
        ca,
    })
}

/// Where the Registry is.
fn server(registry: &Registry, seen: &HashMap<String, Seen>) -> Option<SocketAddr> {
    let seen = seen.get(&registry.uid().unwrap_or_default()).and_then(|seen| seen.address.as_ref());
    let told = || registry.status.as_ref()?.cluster_ip.as_ref();
    let ip: IpAddr = seen.or_else(told)?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(registry.spec.service.port).ok()?))
}

#[cfg(test)]
mod tests {
    use crds::RegistryStatus;

    use super::*;
    use crate::{
        fallbacks::{Outside, Replica},
        testing::registry,
    };

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
        let seen = Seen { address: Some("10.0.0.9".to_owned()), for_all_pods: true, ..Seen::default() };
        let seen = [("uid-of-a".to_owned(), seen)].into();
        let access = desired([with_ip("a", "10.0.0.1")].iter(), &seen, &["*".into()], "CA");
        assert_eq!(access.hosts[0].server, "https://10.0.0.9:5000");
        assert_eq!(access.hosts[0].audience.as_deref(), Some("berth.dev/apps/a"));
    }

    #[test]
    fn fallbacks_are_where_they_were_seen_and_get_a_credential_where_the_registry_does() {
        let b = Seen { address: Some("10.0.0.9".to_owned()), ..Seen::default() };
        let mut seen: HashMap<_, _> = [("uid-of-b".to_owned(), b)].into();
        let others = [with_ip("b", "10.0.0.2"), with_ip("c", "10.0.0.3"), registry("new")];
        let mut others: Vec<_> = others.into_iter().map(Box::new).map(Replica::Registry).collect();
        others.push(Replica::Outside(Outside { authority: "eu.example.com:443".into(), ca: None }));
        for (for_all_pods, audience) in [(true, Some("berth.dev/apps/b")), (false, None)] {
            let turns = nodes::turns(&others, &seen);
            seen.insert("uid-of-a".into(), Seen { address: None, for_all_pods, turns });
            let a = host(&with_ip("a", "10.0.0.1"), &seen, &["*".into()], "CA").unwrap();
            let servers: Vec<_> = a.fallbacks.iter().map(|fallback| &*fallback.server).collect();
            assert_eq!(
                servers,
                ["https://10.0.0.9:5000", "https://10.0.0.3:5000", "https://eu.example.com:443"]
            );
            assert_eq!(a.fallbacks[0].audience.as_deref(), audience);
            assert_eq!(a.fallbacks[0].ca.as_deref(), Some("CA"));
            assert_eq!((&a.fallbacks[2].audience, &a.fallbacks[2].ca), (&None, &None));
        }
    }
}
