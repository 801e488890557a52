//! The status of a Repository, as a pure function of what was observed.

use std::sync::Arc;

use channel::usage::PathUsage;
use crds::{
    Registry, Repository, RepositoryStatus,
    repository::{LastPush, SecretStatus},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt as _;

use crate::{
    conditions::{Answer, condition},
    desired::{policy::Logins, told::Told},
    heard::Heard,
    names, quantity,
    tenancy::{TOO_MANY, budget::Room},
};

/// Reason while replicas still decide by what the Repository said before.
pub(super) const UPDATING: &str = "Updating";

/// What was observed of a Repository.
pub(super) struct Observed {
    /// Whether the Registry has it.
    pub(super) accepted: Answer,
    /// The Registry, where it has it.
    pub(super) registry: Option<Registry>,
    /// By what every replica decides at its path.
    pub(super) told: Heard<Arc<Told>>,
    /// What its path holds.
    pub(super) usage: Heard<PathUsage>,
    /// What its Secrets open.
    pub(super) logins: Logins,
    /// How the copies of each Secret are.
    pub(super) secrets: Vec<SecretStatus>,
    /// Kinds of objects that the operator has not been allowed to watch for a while.
    pub(super) refused: Vec<String>,
}

/// The status that says this. Of a path that is not this Repository's, nothing is said.
pub(super) fn status(repository: &Repository, observed: &Observed, now: Timestamp) -> RepositoryStatus {
    let former = repository.status.clone().unwrap_or_default();
    let generation = repository.metadata.generation;
    let say = |type_, answer: &Answer| condition(type_, answer, generation, &former.conditions, now);

    let endpoint = observed.registry.as_ref().map(names::endpoint);
    let reference = endpoint.map(|endpoint| format!("{endpoint}/{}", repository.path()));
    let enforced = enforced(repository, observed, find(&former.conditions, "Enforced"));
    let secrets = secrets(repository, observed, find(&former.conditions, "SecretsReady"));
    let stopped = observed.registry.as_ref().and_then(stopped);
    let all = [Some(&observed.accepted), stopped.as_ref(), Some(&enforced), secrets.as_ref()];
    let ready = ready(reference.as_deref(), all);

    let mut conditions =
        vec![say("Ready", &ready), say("Accepted", &observed.accepted), say("Enforced", &enforced)];
    conditions.extend(secrets.iter().map(|secrets| say("SecretsReady", secrets)));
    let status = RepositoryStatus {
        conditions,
        observed_generation: generation,
        reference,
        secrets: observed.secrets.clone(),
        ..RepositoryStatus::default()
    };
    match &observed.usage {
        _ if observed.registry.is_none() => status,
        Heard::This(usage) => holding(status, usage),
        // What was known before, until something else is.
        Heard::Nothing | Heard::NotOfIt => {
            let RepositoryStatus { tags, bytes, size, last_push, .. } = former;
            RepositoryStatus { tags, bytes, size, last_push, ..status }
        }
    }
}

/// The status that also says what the path holds.
fn holding(status: RepositoryStatus, usage: &PathUsage) -> RepositoryStatus {
    let PathUsage { path: _, tags, bytes, last_push } = usage;
    let push = |push: &channel::usage::LastPush| LastPush {
        time: push.time.clone(),
        tag: push.tag.clone(),
        digest: push.digest.clone(),
    };
    RepositoryStatus {
        tags: Some(i64::try_from(*tags).unwrap_or(i64::MAX)),
        bytes: Some(i64::try_from(*bytes).unwrap_or(i64::MAX)),
        size: Some(quantity::for_people(*bytes)),
        last_push: last_push.as_ref().map(push),
        ..status
    }
}

/// Whether every replica decides by what the Repository says.
fn enforced(repository: &Repository, observed: &Observed, former: Option<&Condition>) -> Answer {
    let Some(registry) = &observed.registry else {
        return Answer::no(
            "NotAccepted",
            "no replica decides by this Repository: see the condition Accepted",
        );
    };
    let was = |answer: &Answer| answer.yes || [UPDATING, TOO_MANY].contains(&&*answer.reason);
    let formerly = former.map(Answer::from).filter(was);
    match (&observed.told, &formerly) {
        (Heard::This(told), _) if told.room != Room::Whole => too_many(repository),
        (Heard::This(told), _) if told.is_of(repository, &observed.logins) => {
            Answer::yes("Enforced", "every replica decides by this Repository")
        }
        // What an earlier operator saw holds until this one has heard of the replicas.
        (Heard::Nothing, Some(formerly)) if seen_before(repository, registry, former) => formerly.clone(),
        (_, Some(_)) => Answer::no(
            UPDATING,
            "not every replica has applied the change yet: others decide by what was said before",
        ),
        (_, None) => {
            Answer::no("Pending", "not every replica of the registry has applied this Repository yet")
        }
    }
}

/// There is no room for it.
fn too_many(repository: &Repository) -> Answer {
    let namespace = repository.metadata.namespace.as_deref().unwrap_or_default();
    let sentence = format!(
        "namespace {namespace} declares more than this Registry can hold, so nobody is let in by this Repository: delete Repositories, declare one for all below a path, name groups in place of users, or fewer namespaces for Secrets"
    );
    Answer::no(TOO_MANY, sentence)
}

/// Whether a condition speaks of the Repository as it is, and of replicas that there were.
fn seen_before(repository: &Repository, registry: &Registry, former: Option<&Condition>) -> bool {
    let known = registry.status.as_ref().is_some_and(|status| status.policy_revision.is_some());
    known && former.is_some_and(|former| former.observed_generation == repository.metadata.generation)
}

/// Whether every Secret is where it should be and opens its login; none where none is declared.
fn secrets(repository: &Repository, observed: &Observed, former: Option<&Condition>) -> Option<Answer> {
    let spec = &repository.spec;
    let declared = spec.pull_secrets.len() + spec.push_secrets.len();
    if declared == 0 {
        return None;
    }
    let Some(registry) = &observed.registry else {
        return Some(Answer::no(
            "NotAccepted",
            "no Secret is made for this Repository: see the condition Accepted",
        ));
    };
    if !observed.refused.is_empty() {
        let kinds = observed.refused.join(", ");
        let sentence = format!(
            "the operator may not watch {kinds} in all namespaces, and does not see where Secrets are: ask those who run the cluster to bind the ClusterRole berth-delivery-watch to it"
        );
        return Some(Answer::no("NotPermitted", sentence));
    }
    let problem =
        observed.secrets.iter().find_map(|secret| Some((secret, secret.problems.first_key_value()?)));
    Some(match problem {
        Some((secret, (namespace, problem))) => Answer::no(
            "SecretsFailing",
            format!("Secret {} in namespace {namespace}: {problem}", secret.name),
        ),
        None if observed.secrets.len() < declared => Answer::no("Pending", "Secrets are not made yet"),
        None if open(repository, registry, observed, former) => {
            Answer::yes("Delivered", "every Secret is where it should be")
        }
        None => {
            Answer::no("Pending", "not every replica of the registry knows the logins of the Secrets yet")
        }
    })
}

/// Whether every replica lets in whom the Secrets let in, and nobody whom they did before.
fn open(
    repository: &Repository,
    registry: &Registry,
    observed: &Observed,
    former: Option<&Condition>,
) -> bool {
    match &observed.told {
        Heard::This(told) => told.has(&observed.logins),
        Heard::NotOfIt => observed.logins.is_empty(),
        Heard::Nothing => {
            former.is_some_and(|former| former.status == "True") && seen_before(repository, registry, former)
        }
    }
}

/// Whether somebody has stopped the registry. That its pod restarts is the Registry's news, and no news of each
/// Repository.
fn stopped(registry: &Registry) -> Option<Answer> {
    let (name, namespace) = (registry.name_any(), names::namespace(registry));
    let sentence =
        || format!("Registry {name} of namespace {namespace} is stopped: set its spec.replicas to 1");
    (registry.spec.replicas == 0).then(|| Answer::no("RegistryStopped", sentence()))
}

/// Whether it can be used as declared: whether all that there is to say of it is yes.
fn ready(reference: Option<&str>, all: [Option<&Answer>; 4]) -> Answer {
    let missing = all.into_iter().flatten().find(|answer| !answer.yes);
    if let Some(missing) = missing {
        return missing.clone();
    }
    let reference = reference.unwrap_or_default();
    let image = match reference.strip_suffix("/*") {
        Some(above) => format!("{above}/<name>"),
        None => reference.to_owned(),
    };
    Answer::yes("Ready", format!("push to and pull from {image}:<tag>"))
}

fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests;
