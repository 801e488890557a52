//! Which namespaces receive a Secret, and which of their service accounts use it.

use std::collections::BTreeMap;

use crds::{
    Repository,
    repository::{AccessSecret, ServiceAccounts},
};
use k8s_openapi::{api::core::v1::ServiceAccount, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::{
    ResourceExt as _,
    core::{Selector, SelectorExt as _},
};

use super::watched::NamespaceMeta;

/// A namespace accepts Secrets of the Repositories of the namespace that this label names.
pub(super) const ACCEPTS: &str = "berth.dev/accept-secrets-from";

/// What a namespace is to a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It gets a copy.
    Receives,
    /// It would get one, but for this.
    Refuses(String),
    /// Nobody means it.
    NotMeant,
}

/// What this namespace is to this Secret.
pub(super) fn standing(
    repository: &Repository,
    secret: &AccessSecret,
    namespace: &NamespaceMeta,
) -> Standing {
    let (name, own) = (namespace.name_any(), repository.namespace().unwrap_or_default());
    let namespaces = &secret.namespaces;
    let named = (namespaces.is_own() && name == own) || namespaces.names.contains(&name);
    let agrees = agrees(repository, namespace);
    // Who selects by labels means those that agree.
    let meant = named || (agrees && selects(namespaces.selector.as_ref(), namespace.labels()));
    if !meant {
        return Standing::NotMeant;
    }
    if namespace.metadata.deletion_timestamp.is_some() {
        return Standing::Refuses(not_there(&own));
    }
    if !agrees {
        return Standing::Refuses(not_there(&own));
    }
    Standing::Receives
}

/// Whether this namespace lets the Repository's put something there: its own, and what its label names.
pub(super) fn agrees(repository: &Repository, namespace: &NamespaceMeta) -> bool {
    let own = repository.namespace().unwrap_or_default();
    namespace.name_any() == own || namespace.labels().get(ACCEPTS) == Some(&own)
}

/// The same for all of these, so that nobody finds out which namespaces there are.
fn not_there(own: &str) -> String {
    format!("there is no such namespace, or it has not agreed: label it {ACCEPTS}={own}")
}

/// Namespaces that receive a Secret, and why others that should do not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    pub(super) receiving: Vec<String>,
    pub(super) problems: BTreeMap<String, String>,
}

/// Of all these namespaces.
pub(super) fn targets<'a>(
    repository: &Repository,
    secret: &AccessSecret,
    namespaces: impl IntoIterator<Item = &'a NamespaceMeta>,
) -> Targets {
    let own = repository.namespace().unwrap_or_default();
    let missing = |name: &String| (name.clone(), not_there(&own));
    let mut problems: BTreeMap<_, _> = secret.namespaces.names.iter().map(missing).collect();
    let mut receiving = Vec::new();
    for namespace in namespaces {
        let name = namespace.name_any();
        match standing(repository, secret, namespace) {
            Standing::Receives => {
                problems.remove(&name);
                receiving.push(name);
            }
            Standing::Refuses(why) => drop(problems.insert(name, why)),
            Standing::NotMeant => {}
        }
    }
    let selectors = [
        ("namespaces", &secret.namespaces.selector),
        ("service accounts", &secret.service_accounts.selector),
    ];
    for (of, selector) in selectors {
        if let Some(error) = selector.clone().and_then(|selector| Selector::try_from(selector).err()) {
            problems.insert(
                own.clone(),
                format!(
                    "the selector of {of} cannot be read, use In, NotIn, Exists or DoesNotExist: {error}"
                ),
            );
        }
    }
    Targets { receiving, problems }
}

/// Whether this ServiceAccount of a receiving namespace uses the Secret.
pub(super) fn uses(accounts: &ServiceAccounts, account: &ServiceAccount) -> bool {
    accounts.names.contains(&account.name_any()) || selects(accounts.selector.as_ref(), account.labels())
}

/// A selector that can't be read selects nothing.
fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let selector = selector.and_then(|selector| Selector::try_from(selector.clone()).ok());
    selector.is_some_and(|selector| selector.matches(labels))
}
