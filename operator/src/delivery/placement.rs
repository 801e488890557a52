//! Which Secret of which Repository lies where, and what follows from that: its labels, its login's name.

use std::{collections::BTreeMap, time::Duration};

use channel::policy::Role;
use crds::{Repository, repository::AccessSecret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _, runtime::reflector::ObjectRef};
use sha2::{Digest as _, Sha256};

use crate::{
    controller::Guarded,
    durations::duration,
    names::{MANAGED_BY, MANAGER, REPOSITORY_LABEL},
};

/// The namespace of the Repository that [`REPOSITORY_LABEL`] names.
const REPOSITORY_NAMESPACE: &str = "berth.dev/repository-namespace";
/// Names the Registry for which something is delivered.
pub(super) const REGISTRY_NAME: &str = "berth.dev/registry-name";
const REGISTRY_NAMESPACE: &str = "berth.dev/registry-namespace";
/// Annotation of a Repository: another value replaces every password.
const ROTATE: &str = "berth.dev/rotate";

/// The longest value that a label may have.
const LABEL_LENGTH: usize = 63;
/// Longer usernames end in a hash.
const USERNAME_LENGTH: usize = 200;
/// What people can ask for at least.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(60 * 60);
const USUAL_INTERVAL: Duration = Duration::from_secs(720 * 60 * 60);

/// What a Secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pull,
    Push,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }

    /// What its login may do in the repository.
    pub(super) fn role(self) -> Role {
        match self {
            Self::Pull => Role::Reader,
            Self::Push => Role::Writer,
        }
    }
}

/// One copy of one of a Repository's Secrets.
#[derive(Clone, Copy)]
pub(super) struct Placement<'a> {
    pub(super) repository: &'a Repository,
    pub(super) kind: Kind,
    pub(super) secret: &'a AccessSecret,
    pub(super) namespace: &'a str,
}

impl Placement<'_> {
    /// The login's name: readable, without a colon, and no other copy of the same registry has it.
    pub(super) fn username(&self) -> String {
        let Self { repository, kind, secret, namespace } = self;
        let (own, name) = (repository.namespace().unwrap_or_default(), repository.name_any());
        // Only a Repository's name can have dots, so that no two look the same.
        bounded(&format!("{}.{own}.{name}.{}.{namespace}", kind.as_str(), secret.name), USERNAME_LENGTH)
    }

    /// How long a password is used.
    pub(super) fn interval(&self) -> Duration {
        duration(&self.secret.rotation_interval).unwrap_or(USUAL_INTERVAL).max(SHORTEST_INTERVAL)
    }

    /// For what its password was replaced last on demand, where somebody did demand it.
    pub(super) fn rotation_demanded(&self) -> Option<String> {
        self.repository.annotations().get(ROTATE).map(|value| bounded(value, LABEL_LENGTH))
    }

    pub(super) fn metadata(&self) -> ObjectMeta {
        let labels =
            repository_labels(self.repository).into_iter().chain(Named::of(self.repository).labels());
        let managed = [(MANAGED_BY.to_owned(), MANAGER.to_owned())];
        ObjectMeta {
            name: Some(self.secret.name.clone()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(labels.chain(managed).collect()),
            ..ObjectMeta::default()
        }
    }
}

/// All Secrets that a Repository asks for.
pub(super) fn secrets(repository: &Repository) -> impl Iterator<Item = (Kind, &AccessSecret)> {
    let pull = repository.spec.pull_secrets.iter().map(|secret| (Kind::Pull, secret));
    pull.chain(repository.spec.push_secrets.iter().map(|secret| (Kind::Push, secret)))
}

/// Whose a copy is, as its labels name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Owner {
    namespace: String,
    name: String,
}

impl Owner {
    /// What the labels of this Repository's copies name.
    pub(super) fn of(repository: &impl Resource) -> Self {
        let namespace = repository.namespace().unwrap_or_default();
        Self { namespace, name: bounded(&repository.name_any(), LABEL_LENGTH) }
    }

    /// What this object's labels name.
    pub(super) fn named_by(object: &impl Resource) -> Self {
        let label = |name| object.labels().get(name).cloned().unwrap_or_default();
        Self { namespace: label(REPOSITORY_NAMESPACE), name: label(REPOSITORY_LABEL) }
    }
}

/// Labels that name a Repository.
pub(super) fn repository_labels(repository: &Repository) -> BTreeMap<String, String> {
    owner_labels(&Owner::of(repository))
}

/// Labels that name whose a copy is.
pub(super) fn owner_labels(owner: &Owner) -> BTreeMap<String, String> {
    let Owner { namespace, name } = owner.clone();
    [(REPOSITORY_LABEL, name), (REPOSITORY_NAMESPACE, namespace)]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
}

/// For which Registry something is delivered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Named {
    /// The Repository's.
    pub(super) fn of(repository: &Repository) -> Self {
        let (namespace, name) = repository.registry();
        Self { namespace, name }
    }

    /// What this object's labels name.
    pub(super) fn by(object: &impl Resource) -> Option<Self> {
        let label = |name| object.labels().get(name).cloned();
        Some(Self { namespace: label(REGISTRY_NAMESPACE)?, name: label(REGISTRY_NAME)? })
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        [(REGISTRY_NAME, &self.name), (REGISTRY_NAMESPACE, &self.namespace)]
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .into()
    }

    pub(super) fn reference(&self) -> ObjectRef<Guarded> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

/// Whether the object has all these labels.
pub(super) fn has_labels(object: &impl Resource, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(key, value)| object.labels().get(key) == Some(value))
}

/// Selects what the operator made and has these labels.
pub(super) fn selector(labels: &BTreeMap<String, String>) -> String {
    let labels = labels.iter().map(|(key, value)| format!("{key}={value}"));
    labels.chain([format!("{MANAGED_BY}={MANAGER}")]).collect::<Vec<_>>().join(",")
}

/// The text, or where it is too long its beginning and a hash of all.
fn bounded(text: &str, length: usize) -> String {
    const HASH: usize = 16;
    if text.len() <= length {
        return text.to_owned();
    }
    let hash = hex::encode(&Sha256::digest(text)[..HASH]);
    let mut beginning = text.to_owned();
    let end = (0..length - 2 * HASH).rev().find(|end| text.is_char_boundary(*end));
    beginning.truncate(end.unwrap_or_default());
    format!("{beginning}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_stay_apart_and_within_bounds() {
        let (one, other) = (format!("{}a", "ä".repeat(200)), format!("{}b", "ä".repeat(200)));
        assert!(bounded(&one, 63).len() <= 63);
        assert_ne!(bounded(&one, 63), bounded(&other, 63));
        assert_eq!(bounded("short", 63), "short");
    }
}
