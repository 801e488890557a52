//! What is known of the nodes: what they were told, what they answered, and which Registries that matters to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use channel::node_access::{Fallback, Host, HostReport, HostState, NodeReport};
use crds::Registry;
use futures::channel::mpsc;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use tokio::sync::Notify;

use super::{host, server};
use crate::{
    controller::Guarded,
    fallbacks::{Outside, Replica},
    names,
};

/// What is known of the nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    known: Mutex<Known>,
    pub(super) wake: Notify,
    changed: mpsc::UnboundedSender<ObjectRef<Guarded>>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    /// Registries as they were seen, by their UID.
    pub(super) seen: HashMap<String, Seen>,
    /// What nodes were told last, by host.
    pub(super) told: BTreeMap<String, Host>,
    /// Whether all nodes were asked at least once.
    asked: bool,
    /// Nodes that should have node access.
    total: i32,
    /// By node: its last report, or why there is none.
    reports: BTreeMap<String, Result<NodeReport, String>>,
}

/// What a reconciliation saw of a Registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its Service's. What a status says is only its echo.
    pub(crate) address: Option<String>,
    /// It has repositories that every pod of the cluster may pull.
    pub(crate) for_all_pods: bool,
    /// Where nodes turn when it does not answer.
    pub(crate) turns: Vec<Turn>,
}

/// What stands in for a Registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Another one.
    Here { server: SocketAddr, audience: String },
    /// A registry outside of the cluster, which nodes show no credential.
    Outside(Outside),
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
    pub(crate) fn learn_of(&self, registry: &Registry, seen: Seen, granted: &[String]) {
        let mut known = self.known();
        let former = known.seen.entry(registry.uid().unwrap_or_default()).or_default();
        *former = Seen { address: seen.address.or_else(|| former.address.take()), ..seen };
        let wanted = host(registry, &known.seen, granted, "");
        let told = known.told.get(&names::endpoint(registry)).cloned();
        let told = told.map(without_ca);
        if wanted != told {
            self.wake.notify_one();
        }
    }

    /// Where these are, as far as they have been seen.
    pub(crate) fn turns(&self, replicas: &[Replica]) -> Vec<Turn> {
        turns(replicas, &self.known().seen)
    }

    /// The Registry goes: asks for a round where nodes were told of it.
    pub(crate) fn forget(&self, registry: &Registry) {
        let mut known = self.known();
        known.seen.remove(&registry.uid().unwrap_or_default());
        if known.told.contains_key(&names::endpoint(registry)) {
            self.wake.notify_one();
        }
    }

    /// How nodes get along with the registry at this endpoint; none before all were asked once.
    pub(crate) fn view(&self, endpoint: &str) -> Option<View> {
        let known = self.known();
        if !known.asked {
            return None;
        }
        let mut view = View { total: known.total, ..View::default() };
        for (node, report) in &known.reports {
            let host = report.as_ref().ok().and_then(|report| find(report, endpoint));
            match host {
                Some(host) if host.state == HostState::Ready => view.ready += 1,
                Some(host) => view.problems.push((node.clone(), host.message.clone().unwrap_or_default())),
                None => view.away.push(node.clone()),
            }
        }
        Some(view)
    }

    /// Whether a node that answers still has files for this host name (at any port).
    pub(crate) fn mention(&self, host: &str) -> bool {
        let known = self.known();
        let mut hosts = known.reports.values().flatten().flat_map(|report| &report.hosts);
        hosts.any(|entry| entry.host.rsplit_once(':').is_some_and(|(name, _)| name == host))
    }

    /// Takes a node's answer; true where it differs from the last.
    pub(super) fn learn(&self, node: &str, report: Result<NodeReport, String>) -> bool {
        let mut known = self.known();
        let before = known.reports.insert(node.to_owned(), report);
        let (before, after) = (reported(before.as_ref()), reported(known.reports.get(node)));
        let hosts: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let differ: Vec<_> = hosts.into_iter().filter(|host| before.get(*host) != after.get(*host)).collect();
        for host in &differ {
            self.tell(host);
        }
        !differ.is_empty()
    }

    /// Takes how many nodes there are, and which; true where that has changed.
    pub(super) fn learn_nodes(&self, total: i32, nodes: &[String]) -> bool {
        let mut known = self.known();
        let before = (known.total, known.reports.len());
        known.total = total;
        known.reports.retain(|node, _| nodes.contains(node));
        let changed = before != (known.total, known.reports.len());
        if changed {
            for host in known.told.keys() {
                self.tell(host);
            }
        }
        changed
    }

    /// All nodes were asked.
    pub(super) fn end_round(&self) {
        let mut known = self.known();
        if !known.asked {
            known.asked = true;
            for host in known.told.keys() {
                self.tell(host);
            }
        }
    }

    fn tell(&self, host: &str) {
        if let Some(registry) = registry_at(host) {
            // Nobody listens only when the controller has ended.
            drop(self.changed.unbounded_send(registry));
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What nodes are told, as it is known before any CA is.
fn without_ca(host: Host) -> Host {
    let ours = |ca: String| if ca == host.ca { String::new() } else { ca };
    let fallbacks = host.fallbacks.into_iter().map(|it| Fallback { ca: it.ca.map(ours), ..it });
    Host { ca: String::new(), fallbacks: fallbacks.collect(), ..host }
}

/// Where these are, as far as they have been seen.
pub(super) fn turns(replicas: &[Replica], seen: &HashMap<String, Seen>) -> Vec<Turn> {
    let turn = |replica: &Replica| match replica {
        Replica::Registry(registry) => {
            Some(Turn::Here { server: server(registry, seen)?, audience: names::audience(registry) })
        }
        Replica::Outside(outside) => Some(Turn::Outside(outside.clone())),
    };
    replicas.iter().filter_map(turn).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: HostState) -> NodeReport {
        let host = HostReport { host: "a.apps.svc:5000".into(), state, message: Some("why".into()) };
        NodeReport { hosts: vec![host], ..NodeReport::default() }
    }

    #[test]
    fn nodes_that_do_not_answer_are_away_and_those_that_answer_tell() {
        let (nodes, _changes) = Nodes::new();
        nodes.learn_nodes(4, &[]);
        nodes.learn("n1", Ok(report(HostState::Ready)));
        nodes.learn("n2", Ok(report(HostState::Conflict)));
        nodes.learn("n3", Err("gone".into()));
        assert_eq!(nodes.view("a.apps.svc:5000"), None);
        nodes.end_round();
        let view = nodes.view("a.apps.svc:5000").unwrap();
        assert_eq!((view.ready, view.total), (1, 4));
        assert_eq!(view.problems, [("n2".to_owned(), "why".to_owned())]);
        assert_eq!(view.away, ["n3"]);
        assert!(nodes.mention("a.apps.svc") && !nodes.mention("b.apps.svc"));
    }

    #[test]
    fn only_changes_are_told_and_only_to_whom_they_matter() {
        let (nodes, mut changes) = Nodes::new();
        assert!(nodes.learn("n1", Ok(report(HostState::Ready))));
        assert!(!nodes.learn("n1", Ok(report(HostState::Ready))));
        assert!(nodes.learn("n1", Ok(report(HostState::Unreachable))));
        assert!(nodes.learn("n1", Err("gone".into())));
        assert!(!nodes.learn("n1", Err("still gone".into())));
        let mut told = Vec::new();
        while let Ok(registry) = changes.try_recv() {
            told.push(registry);
        }
        assert_eq!(told, vec![ObjectRef::<Guarded>::new("a").within("apps"); 3]);
    }
}
