//! Pull and push Secrets that look after themselves.
//!
//! A Repository asks for Secrets; each gets a copy in every namespace that is selected and agrees, with a login of its
//! own, the registry's CA beside it, and service accounts that use it. The CA is also where service accounts may push
//! from.
//!
//! What holds: a password exists in its Secret only, which is its only source; one that was edited, moved, put back or
//! made by somebody else is never believed and gets another password, and so does one that was deleted, which is how a
//! leak is ended. A Secret is given another password once every replica knows it, and the former one is accepted for an
//! hour more. Nothing of other people is written or deleted: neither a Secret
//! that has the name, nor an entry of a ServiceAccount. A world that is as it should be costs no request.
//!
//! [`deliver`] brings it all about for one Repository, [`withdraw`] takes it away, [`tidy`] what was left, [`Watched`]
//! knows the copies, the logins that they open, and whom a change concerns.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{Registry, Repository, repository::SecretStatus};
use futures::{FutureExt as _, StreamExt as _, stream};
use k8s_openapi::{
    api::core::v1::{Secret, ServiceAccount},
    jiff::Timestamp,
};
use kube::{Api, ResourceExt as _, api::ListParams, core::PartialObjectMeta};

use crate::{apply, context::Context, desired::policy::Logins};

mod attach;
mod cas;
mod copies;
mod credential;
mod desired;
mod errand;
mod events;
mod logins;
mod password;
mod placement;
mod refusals;
mod summary;
mod targets;
mod tidy;
mod watched;

use attach::Use;
use errand::{Errand, Place};
use placement::{repository_labels, secrets, selector};
use summary::Summary;
pub(crate) use tidy::tidy;
pub(crate) use watched::{Change, Watched, declares_any};

/// Namespaces at once: a Repository that many receive is done soon, and does not flood the API server.
const CONCURRENCY: usize = 16;

/// Why Secrets are not what they should be; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An object can't be read or written.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The system gives no random numbers, and nothing else is good enough.
    #[error("failed to get random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// What was written is not what is there.
    #[error(
        "something changes Secret {0} while it is written, so that it is not what Berth made: exempt Secrets labelled app.kubernetes.io/managed-by=berth-operator from the mutating webhook or policy that does"
    )]
    Altered(String),
    /// What is there can't be listed.
    #[error("failed to list {what}: {source}")]
    List { what: &'static str, source: kube::Error },
    /// The watches have not told everything yet.
    #[error("the cluster's Secrets and namespaces are not read yet")]
    NotReady,
}

/// How a Repository's Secrets are.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// What the Secrets open.
    pub(crate) logins: Logins,
    /// For the Repository's status, in the order of its spec.
    pub(crate) statuses: Vec<SecretStatus>,
    /// When to look again though nothing happens: a rotation or its second step is due, or a former password's time ends.
    pub(crate) next: Option<Duration>,
    /// The first thing that failed and may pass. All others were done, and statuses tell of it.
    pub(crate) failed: Option<Error>,
}

/// Brings the Repository's Secrets to all that should have them, and takes them from all others.
///
/// For a Repository that its Registry accepts; for any other there is [`withdraw`].
pub(crate) async fn deliver(
    context: &Context,
    repository: &Repository,
    registry: &Registry,
    now: Timestamp,
) -> Result<Delivered, Error> {
    let watched = &context.watched;
    if !watched.is_ready() {
        return Err(Error::NotReady);
    }
    let key = context.secrets.keys.of(registry);
    let logins = watched.logins(repository, &key, now).ok_or(Error::NotReady)?;
    let mut summary = Summary::new(repository, logins, now);
    let mut places = places(watched, repository);
    let namespaces = watched.namespaces.state();
    for (kind, secret) in secrets(repository) {
        let targets = targets::targets(repository, secret, namespaces.iter().map(AsRef::as_ref));
        summary.refused(secret, targets.problems);
        for namespace in targets.receiving {
            places.entry(namespace).or_default().wanted.push((kind, secret));
        }
    }
    for namespace in cas::pushing(repository) {
        if cas::pushes_from(watched, repository, &namespace) {
            places.entry(namespace).or_default().is_pushed_from = true;
        }
    }
    for account in watched.service_accounts.state() {
        if let Some(place) = places.get_mut(&account.namespace().unwrap_or_default()) {
            place.accounts.push(account);
        }
    }
    let told = context.enforced.of(registry, &repository.path());
    let errand = &Errand { context, repository, registry, key, told, now };
    let outcomes: Vec<_> =
        places.iter().map(|(namespace, place)| errand.run(namespace, place).boxed()).collect();
    let mut outcomes = stream::iter(outcomes).buffer_unordered(CONCURRENCY);
    while let Some(outcome) = outcomes.next().await {
        summary.add(outcome);
    }
    drop(outcomes);
    Ok(summary.delivered())
}

/// Takes all that was delivered for the Repository away, wherever it is. Done when this returns without an error.
///
/// It asks the API server and does not rely on watches alone, since nobody looks again after a Repository has gone.
pub(crate) async fn withdraw(context: &Context, repository: &Repository) -> Result<(), Error> {
    let watched = &context.watched;
    if !watched.is_ready() {
        return Err(Error::NotReady);
    }
    let client = &context.applier.client;
    let ours = ListParams::default().labels(&selector(&repository_labels(repository)));
    let copies = Api::<PartialObjectMeta<Secret>>::all(client.clone()).list(&ours).await;
    let copies = copies.map_err(|source| Error::List { what: "delivered Secrets", source })?;
    let mut places = places(watched, repository);
    for copy in copies {
        places.entry(copy.namespace().unwrap_or_default()).or_default().copies.insert(copy.name_any());
    }
    let withdrawn: Vec<_> = places
        .iter()
        .map(|(namespace, place)| withdraw_from(context, repository, namespace, &place.copies).boxed())
        .collect();
    let withdrawn: Vec<_> = stream::iter(withdrawn).buffer_unordered(CONCURRENCY).collect().await;
    withdrawn.into_iter().collect()
}

async fn withdraw_from(
    context: &Context,
    repository: &Repository,
    namespace: &str,
    copies: &BTreeSet<String>,
) -> Result<(), Error> {
    let applier = &context.applier;
    let removed = errand::remove(context, repository, namespace, copies).await;
    let accounts = Api::<ServiceAccount>::namespaced(applier.client.clone(), namespace);
    let accounts = accounts.list(&ListParams::default()).await;
    for account in accounts.map_err(|source| Error::List { what: "service accounts", source })? {
        attach::attach(applier, &account, repository, &Use::default()).await?;
    }
    removed
}

/// Whether something of the Repository is known to be anywhere.
pub(crate) fn is_anywhere(context: &Context, repository: &Repository) -> bool {
    !places(&context.watched, repository).is_empty()
}

/// Where something of the Repository is known to be.
fn places<'a>(watched: &Watched, repository: &Repository) -> BTreeMap<String, Place<'a>> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for account in watched.service_accounts.state_filter(|account| attach::has_any(account, repository)) {
        places.entry(account.namespace().unwrap_or_default()).or_default();
    }
    for copy in watched.copies(repository) {
        places.entry(copy.namespace().unwrap_or_default()).or_default().copies.insert(copy.name_any());
    }
    places
}

#[cfg(test)]
mod tests;
