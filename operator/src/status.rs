//! The status of a Registry, as a pure function of what was observed.

use crds::{
    Registry, RegistryStatus,
    registry::{NodesStatus, StorageStatus},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    conditions::{Answer, condition},
    fallbacks::Standing,
    names,
    node_access::View,
    replicas::Replica,
};

/// Nodes that have not answered by then do not keep a Registry from being Ready for the first time.
const PATIENCE: SignedDuration = SignedDuration::from_secs(15);
/// A version is no longer, whatever a peer says.
const MAX_VERSION: usize = 64;
/// Fill levels are reported anew once they differ by this part of the volume.
const FILL_STEPS: i64 = 100;

/// What was observed of a Registry.
pub(crate) struct Observed {
    /// What the operator could not bring about, and what to do.
    pub(crate) problem: Option<Answer>,
    /// Whether people can log in as declared.
    pub(crate) people: Option<Answer>,
    pub(crate) cluster_ip: Option<String>,
    pub(crate) certificate_expires: Option<String>,
    pub(crate) volume_size: Option<String>,
    /// Whether the volume is as asked for, as far as that is known.
    pub(crate) storage: Option<Answer>,
    /// [`channel::policy::Policy::revision`] that replicas should have.
    pub(crate) policy_revision: String,
    pub(crate) replicas: Vec<Replica>,
    /// Whether the operator's configuration grants node access to this namespace.
    pub(crate) nodes_granted: bool,
    /// None before nodes were asked for the first time, as in an operator that has just started.
    pub(crate) nodes: Option<View>,
    /// How its fallbacks are.
    pub(crate) fallbacks: Standing,
}

/// The status that says this.
pub(crate) fn status(registry: &Registry, observed: &Observed, now: Timestamp) -> RegistryStatus {
    let former = registry.status.clone().unwrap_or_default();
    let generation = registry.metadata.generation;
    let say = |type_, answer: &Answer| condition(type_, answer, generation, &former.conditions, now);

    let available = available(registry, observed);
    let available_condition = say("Available", &available);
    // What an earlier operator heard of nodes holds until this one has asked.
    let view =
        observed.nodes.clone().unwrap_or_else(|| former.nodes.as_ref().map(View::from).unwrap_or_default());
    let nodes = nodes(registry, observed, &view, find(&former.conditions, "NodesReady"));
    let patient = available_condition.last_transition_time.0 > now - PATIENCE;
    let former_ready = find(&former.conditions, "Ready").is_some_and(|ready| ready.status == "True");
    let ready = ready(
        registry,
        observed,
        available,
        nodes.as_ref().map(|nodes| (nodes, view.ready)),
        former_ready,
        patient,
    );

    let mut conditions = vec![say("Ready", &ready), available_condition];
    conditions.extend(observed.storage.iter().map(|storage| say("StorageReady", storage)));
    conditions.extend(observed.people.iter().map(|people| say("IdentityReady", people)));
    conditions.extend(nodes.iter().map(|nodes| say("NodesReady", nodes)));
    conditions.extend(observed.fallbacks.answer.iter().map(|standing| say("FallbacksReady", standing)));
    let answering = || observed.replicas.iter().filter_map(|replica| replica.status.as_ref().ok());
    let serving = observed.replicas.iter().filter(|replica| is_serving(replica, &observed.policy_revision));
    RegistryStatus {
        conditions,
        observed_generation: generation,
        endpoint: Some(names::endpoint(registry)),
        cluster_ip: observed.cluster_ip.clone().or(former.cluster_ip),
        replicas: count(observed.replicas.len()),
        ready_replicas: count(serving.count()),
        policy_revision: answering()
            .next()
            .and_then(|status| status.policy_revision.clone())
            .or(former.policy_revision),
        nodes: nodes.is_some().then(|| NodesStatus {
            ready: view.ready,
            total: view.total,
            summary: format!("{}/{}", view.ready, view.total),
        }),
        fallbacks: observed.fallbacks.endpoints.clone(),
        volume_size: observed.volume_size.clone().or(former.volume_size),
        storage: answering()
            .find(|status| status.total_bytes > 0)
            .map(|status| fill(former.storage.as_ref(), status.used_bytes, status.total_bytes))
            .or(former.storage),
        repositories: answering()
            .next()
            .and_then(|status| status.repositories?.try_into().ok())
            .or(former.repositories),
        certificate_expires: observed.certificate_expires.clone().or(former.certificate_expires),
        version: answering()
            .next()
            .map(|status| status.version.chars().take(MAX_VERSION).collect())
            .or(former.version),
    }
}

/// Whether a replica serves with the current policy.
fn available(registry: &Registry, observed: &Observed) -> Answer {
    if registry.spec.replicas == 0 {
        return Answer::no("Stopped", "replicas is 0: set it to 1 to serve again; all images are kept");
    }
    if observed.replicas.iter().any(|replica| is_serving(replica, &observed.policy_revision)) {
        return Answer::yes("Serving", "the registry serves with the current policy");
    }
    let Some(replica) = observed.replicas.first() else {
        return Answer::no("Starting", "the registry's pod is being created");
    };
    let pod = &replica.pod;
    match (&replica.waiting, &replica.status) {
        (Some(waiting), _) => {
            let storage = observed.storage.as_ref().filter(|storage| !storage.yes);
            let storage = storage.map_or(String::new(), |storage| format!("; {}", storage.message));
            Answer::no("PodNotRunning", format!("pod {pod} does not run: {waiting}{storage}"))
        }
        (None, Err(error)) => Answer::no("Starting", format!("pod {pod} does not answer yet: {error}")),
        (None, Ok(status)) if status.policy_revision.as_ref() != Some(&observed.policy_revision) => {
            Answer::no("PolicyNotApplied", format!("pod {pod} has not applied the current policy"))
        }
        (None, Ok(_)) => Answer::no("Starting", format!("pod {pod} is not ready yet")),
    }
}

/// Ready, and decides by the current policy.
fn is_serving(replica: &Replica, revision: &str) -> bool {
    let revision_there = replica.status.as_ref().ok().and_then(|status| status.policy_revision.as_deref());
    replica.ready && revision_there == Some(revision)
}

/// Whether every node can pull; none where node access is turned off.
fn nodes(
    registry: &Registry,
    observed: &Observed,
    view: &View,
    former: Option<&Condition>,
) -> Option<Answer> {
    if !registry.spec.node_access.enabled {
        return None;
    }
    let answer = if !observed.nodes_granted {
        let namespace = names::namespace(registry);
        let sentence = format!(
            "the operator's configuration grants no node access to Registries of namespace {namespace}: ask those who run the cluster to add it to BERTH_NODE_ACCESS_NAMESPACES"
        );
        Answer::no("NotGranted", sentence)
    } else if let Some(former) = former.filter(|_| observed.nodes.is_none()) {
        Answer::from(former)
    } else if view.total == 0 {
        Answer::no("NodesPending", "no node has answered yet")
    } else if let Some((node, message)) = view.problems.first() {
        Answer::no("NodesFailing", format!("node {node}: {message}{}", and_more(view.problems.len())))
    } else if view.ready < view.total {
        let missing = view.total - view.ready;
        let node = view.away.first().map_or(String::new(), |node| format!(", such as {node}"));
        Answer::no("NodesPending", format!("{missing} of {} nodes have not answered yet{node}", view.total))
    } else {
        Answer::yes("AllNodes", format!("all {} nodes can pull", view.total))
    };
    Some(answer)
}

fn and_more(problems: usize) -> String {
    if problems > 1 { format!(" (and {} more nodes)", problems - 1) } else { String::new() }
}

/// Whether images can be pushed, and pulled by pods. Once it is so, single nodes do not change it.
fn ready(
    registry: &Registry,
    observed: &Observed,
    available: Answer,
    nodes: Option<(&Answer, i32)>,
    was_ready: bool,
    patient: bool,
) -> Answer {
    if let Some(problem) = &observed.problem {
        return problem.clone();
    }
    let Some((nodes, nodes_ready)) = nodes.filter(|_| available.yes) else {
        return if available.yes { serves(registry) } else { available };
    };
    match nodes {
        Answer { yes: true, .. } => serves(registry),
        Answer { reason, .. } if reason == "NotGranted" => nodes.clone(),
        _ if nodes_ready > 0 && (was_ready || !patient) => serves(registry),
        // A Service's new address takes a moment to work everywhere.
        _ if patient => Answer::no("NodesPending", nodes.message.clone()),
        _ => nodes.clone(),
    }
}

fn serves(registry: &Registry) -> Answer {
    let endpoint = names::endpoint(registry);
    Answer::yes("Ready", format!("push to and pull from {endpoint}/<repository>:<tag>"))
}

fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

impl From<&NodesStatus> for View {
    fn from(nodes: &NodesStatus) -> Self {
        Self { ready: nodes.ready, total: nodes.total, ..Self::default() }
    }
}

/// Small changes are not worth a write: other users of a shared disk make them all the time.
fn fill(former: Option<&StorageStatus>, used: u64, total: u64) -> StorageStatus {
    let bytes = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
    let (used_bytes, total_bytes) = (bytes(used), bytes(total));
    match former {
        Some(former)
            if former.total_bytes == total_bytes
                && (former.used_bytes - used_bytes).abs() < total_bytes / FILL_STEPS =>
        {
            former.clone()
        }
        _ => StorageStatus { used_bytes, total_bytes },
    }
}

fn count(of: usize) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
