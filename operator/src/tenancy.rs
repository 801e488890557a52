//! Which Repositories a Registry has, as pure functions of what is declared.
//!
//! A Registry has a Repository where its tenancy grants namespace and path, and no other one has the path: whoever was
//! told that it is theirs keeps it, before older ones that were granted it later, and of those that were told nothing
//! yet the oldest gets it. One that is being deleted, or whose quota can't be read, keeps its path all the same: nobody
//! takes a path over because of a typing mistake, or while the images below it are on their way out. Such a mistake
//! shuts the path, which nothing that is declared for all above opens.
//!
//! A tenant is never told of what is not theirs: whether a Registry exists that grants them nothing, or who declared a
//! path before.

use std::collections::BTreeMap;

use crds::{Registry, Repository, registry::TenantPaths, repository::Namespaces};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    ResourceExt as _,
    core::{Selector, SelectorExt as _},
};

use crate::{conditions::Answer, names, quantity};

pub(crate) mod budget;

/// Reason of a Repository that has its path, and of which nothing can be enforced.
const INVALID_QUOTA: &str = "InvalidQuota";
/// The same, where there is no room for it; earlier operators said so of whether it is accepted.
pub(crate) const TOO_MANY: &str = "TooMany";

/// Labels of a namespace.
pub(crate) type Labels = BTreeMap<String, String>;

/// The Repositories that name one Registry, and what tells their namespaces' labels.
pub(crate) struct Tenants<'a> {
    registry: &'a Registry,
    selector: Option<Selector>,
    repositories: Vec<&'a Repository>,
    labels: &'a dyn Fn(&str) -> Option<Labels>,
}

impl<'a> Tenants<'a> {
    /// Of this Registry; `labels` are none where there is no such namespace.
    pub(crate) fn new(
        registry: &'a Registry,
        repositories: Vec<&'a Repository>,
        labels: &'a dyn Fn(&str) -> Option<Labels>,
    ) -> Self {
        let selector = registry.spec.tenancy.namespaces.selector.clone();
        // A selector that can't be read selects nothing.
        let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
        Self { registry, selector, repositories, labels }
    }

    /// What replicas decide by, as far as there is room, in the order of paths.
    pub(crate) fn accepted(&self) -> Vec<&'a Repository> {
        self.declared().into_iter().filter(|repository| quota(repository).is_ok()).collect()
    }

    /// The same with those of which nothing can be enforced, whose paths are shut.
    pub(crate) fn declared(&self) -> Vec<&'a Repository> {
        self.holders().into_values().filter(|repository| !is_going(repository)).collect()
    }

    /// Who has each path.
    pub(crate) fn holders(&self) -> BTreeMap<String, &'a Repository> {
        let mut holders: BTreeMap<String, &'a Repository> = BTreeMap::new();
        let repositories = self.repositories.iter().copied();
        for repository in repositories.filter(|repository| self.grant(repository).is_ok()) {
            let holder = holders.entry(repository.path()).or_insert(repository);
            if claim(repository) < claim(holder) {
                *holder = repository;
            }
        }
        holders
    }

    /// Whether the Registry takes anything of this namespace.
    pub(crate) fn takes(&self, namespace: &str) -> bool {
        namespace == names::namespace(self.registry) || self.is_tenant(namespace)
    }

    /// Whether namespace and path are such as the Registry takes, whichever one the Repository is in.
    pub(crate) fn would_take(&self, repository: &Repository) -> bool {
        self.grant(repository).is_ok()
    }

    /// Whether the Registry has this Repository, or what is to be done.
    pub(crate) fn verdict(&self, repository: &Repository) -> Answer {
        let refusal = self.grant(repository).and_then(|()| self.path_is_free(repository));
        refusal.and_then(|()| quota(repository).map(drop)).err().unwrap_or_else(|| {
            Answer::yes("Accepted", format!("Registry {} has this repository", self.registry.name_any()))
        })
    }

    /// Whether the path is this Repository's and no other's, so that it may be acted on in its name.
    pub(crate) fn holds_its_path(&self, repository: &Repository) -> bool {
        self.grant(repository).and_then(|()| self.path_is_free(repository)).is_ok()
    }

    /// Whether tenancy grants namespace and path.
    fn grant(&self, repository: &Repository) -> Result<(), Answer> {
        let namespace = repository.namespace().unwrap_or_default();
        if namespace == names::namespace(self.registry) {
            return Ok(());
        }
        if !self.is_tenant(&namespace) {
            return Err(no_such_registry(repository));
        }
        let any = self.registry.spec.tenancy.paths == TenantPaths::Any;
        if any || repository.path().starts_with(&format!("{namespace}/")) {
            return Ok(());
        }
        let sentence = format!(
            "namespace {namespace} may declare paths that begin with {namespace}/ only: create this Repository anew with such a path, or without one"
        );
        Err(Answer::no("PathNotGranted", sentence))
    }

    fn is_tenant(&self, namespace: &str) -> bool {
        let Namespaces { names, selector: _ } = &self.registry.spec.tenancy.namespaces;
        let selected =
            |selector: &Selector| (self.labels)(namespace).is_some_and(|labels| selector.matches(&labels));
        names.iter().any(|name| name == namespace) || self.selector.as_ref().is_some_and(selected)
    }

    /// The best claim to a path has it.
    fn path_is_free(&self, repository: &Repository) -> Result<(), Answer> {
        let path = repository.path();
        let declared = self.repositories.iter().filter(|other| other.has_path(&path));
        let mut better = declared.filter(|other| claim(other) < claim(repository));
        let Some(holder) = better.find(|other| self.grant(other).is_ok()) else { return Ok(()) };
        let who = if holder.namespace() == repository.namespace() {
            format!("Repository {}", holder.name_any())
        } else {
            "another Repository".into()
        };
        let sentence = format!(
            "{who} has {path} already: create this one anew with another path, or wait until the other one is deleted"
        );
        Err(Answer::no("PathTaken", sentence))
    }
}

/// What is said where there is no such Registry, or none that grants the namespace anything, which must look the same.
pub(crate) fn no_such_registry(repository: &Repository) -> Answer {
    let own = repository.namespace().unwrap_or_default();
    let (namespace, name) = repository.registry();
    if namespace == own {
        let sentence = format!(
            "there is no Registry {name} in namespace {namespace}: create it, or create this Repository anew with the registryRef of one that exists"
        );
        return Answer::no("RegistryNotFound", sentence);
    }
    let sentence = format!(
        "no Registry {name} in namespace {namespace} takes Repositories of namespace {own}: ask those who run that namespace to create it, with {own} among its spec.tenancy.namespaces, or create this Repository anew with another registryRef"
    );
    Answer::no("NotGranted", sentence)
}

/// Why nobody is granted anything by labels, where the Registry selects namespaces by something that can't be read.
pub(crate) fn unreadable_selector(registry: &Registry) -> Option<Answer> {
    let selector = registry.spec.tenancy.namespaces.selector.clone()?;
    let error = Selector::try_from(selector).err()?;
    let sentence = format!(
        "spec.tenancy.namespaces.selector cannot be read and selects nothing, use In, NotIn, Exists or DoesNotExist: {error}"
    );
    Some(Answer::no("InvalidSelector", sentence))
}

/// Whether the Repository is being deleted.
pub(crate) fn is_going(repository: &Repository) -> bool {
    repository.metadata.deletion_timestamp.is_some()
}

/// How many bytes the path may hold; none where there is no limit.
pub(crate) fn quota(repository: &Repository) -> Result<Option<u64>, Answer> {
    let Some(quota) = &repository.spec.quota else { return Ok(None) };
    match quantity::bytes(quota) {
        Some(bytes) if bytes > 0 => Ok(Some(bytes)),
        _ => Err(Answer::no(INVALID_QUOTA, "quota must be a number of bytes from 1 to 4Ei, such as 20Gi")),
    }
}

/// Whether the Repository was told that the path it declares is its own.
pub(crate) fn is_told_to_hold(repository: &Repository) -> bool {
    let conditions = repository.status.iter().flat_map(|status| &status.conditions);
    let mut accepted = conditions.filter(|condition| condition.type_ == "Accepted").map(Answer::from);
    accepted.any(|answer| answer.yes || [INVALID_QUOTA, TOO_MANY].contains(&&*answer.reason))
}

/// Paths that stand for all below and cover this one, the nearest first.
pub(crate) fn above(path: &str) -> impl Iterator<Item = String> {
    let name = path.strip_suffix("/*").unwrap_or(path);
    name.rmatch_indices('/').map(|(end, _)| format!("{}/*", &name[..end]))
}

/// Orders Repositories that are granted one path: the first one has it.
fn claim(repository: &Repository) -> impl Ord + use<> {
    (!is_told_to_hold(repository), seniority(repository))
}

/// Orders Repositories from the oldest to the youngest.
fn seniority(repository: &Repository) -> (Option<Time>, String, String) {
    let created = repository.metadata.creation_timestamp.clone();
    (created, repository.namespace().unwrap_or_default(), repository.name_any())
}

#[cfg(test)]
mod tests;
