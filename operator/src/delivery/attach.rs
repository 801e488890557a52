//! Secrets in a ServiceAccount's `imagePullSecrets`, so that its pods need not name them.
//!
//! Only entries that we added are ever removed: an annotation on the ServiceAccount lists them, and is written in the
//! same request. The list is written whole, under the version that was read, so that nobody else's entry is lost. An
//! entry that somebody else made before stays theirs.

use std::collections::{BTreeMap, BTreeSet};

use crds::Repository;
use k8s_openapi::api::core::v1::{LocalObjectReference, ServiceAccount};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::apply::{Applier, Error};

/// Lists our entries, as `<namespace of the Repository>/<its name>/<name of the Secret>`, separated by commas.
const ATTACHED: &str = "berth.dev/attached";
/// Not the name under which we apply: a trace of that would make the whole ServiceAccount ours.
const ATTACHER: &str = "berth-delivery";
/// Others may write at the same time, so often in a row at most.
const ATTEMPTS: u32 = 5;

/// Leaves what is looked at here, and by selectors.
pub(super) fn trim(account: &mut ServiceAccount) {
    account.metadata.managed_fields = None;
    account.metadata.owner_references = None;
    account.metadata.annotations =
        account.annotations_mut().remove_entry(ATTACHED).map(|entry| [entry].into());
    account.secrets = None;
}

/// Whether it has something of this Repository.
pub(super) fn has_any(account: &ServiceAccount, repository: &Repository) -> bool {
    let prefix = prefix(repository);
    attached(account).iter().any(|entry| entry.starts_with(&prefix))
}

/// Which of a Repository's Secrets an account uses, by name.
#[derive(Debug, Default)]
pub(super) struct Use<'a> {
    /// These.
    pub(super) wanted: BTreeSet<&'a str>,
    /// And these if it does so now: whether they are there could not be found out.
    pub(super) kept: BTreeSet<&'a str>,
}

/// Lets the account use these Secrets of the Repository, and none other of it.
pub(super) async fn attach(
    applier: &Applier,
    account: &ServiceAccount,
    repository: &Repository,
    usage: &Use<'_>,
) -> Result<(), Error> {
    set(applier, account, &prefix(repository), usage).await
}

/// Takes the entries that begin so from the account.
pub(super) async fn detach(
    applier: &Applier,
    namespace: &str,
    account: &str,
    prefix: &str,
) -> Result<(), Error> {
    match applier.get::<ServiceAccount>(namespace, account).await? {
        Some(account) => set(applier, &account, prefix, &Use::default()).await,
        None => Ok(()),
    }
}

/// Lets the account use these of the Secrets whose entries begin so, and none other of them.
async fn set(
    applier: &Applier,
    account: &ServiceAccount,
    prefix: &str,
    usage: &Use<'_>,
) -> Result<(), Error> {
    let (namespace, name) = (account.namespace().unwrap_or_default(), account.name_any());
    let api = Api::<ServiceAccount>::namespaced(applier.client.clone(), &namespace);
    let what = || format!("ServiceAccount {name}");
    let mut account = account.clone();
    for attempt in 1.. {
        let Some(patch) = patch(&account, prefix, usage) else { return Ok(()) };
        applier.metrics.wrote(&ServiceAccount::kind(&()));
        tracing::info!(name, namespace, secrets = ?usage.wanted, "attaching");
        let params = PatchParams { field_manager: Some(ATTACHER.into()), ..PatchParams::default() };
        match api.patch(&name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => break,
            Err(kube::Error::Api(status)) if status.is_not_found() => break,
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => {}
            Err(source) => return Err(Error::Apply { what: what(), source }),
        }
        let read = api.get_opt(&name).await;
        let Some(newer) = read.map_err(|source| Error::Read { what: what(), source })? else { break };
        account = newer;
    }
    Ok(())
}

/// What has to change, if anything.
fn patch(account: &ServiceAccount, prefix: &str, usage: &Use) -> Option<Value> {
    if account.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut names: Vec<_> = account
        .image_pull_secrets
        .iter()
        .flatten()
        .map(|LocalObjectReference { name }| name.clone())
        .collect();
    let mut entries = attached(account);
    let before = (names.clone(), entries.clone());
    entries.retain(|entry| {
        let ours = entry.strip_prefix(prefix);
        let goes = ours.filter(|name| !usage.wanted.contains(name) && !usage.kept.contains(name));
        names.retain(|name| Some(name.as_str()) != goes);
        goes.is_none()
    });
    for name in &usage.wanted {
        if !names.iter().any(|present| present == name) {
            names.push((*name).to_owned());
            entries.insert(format!("{prefix}{name}"));
        }
    }
    if before == (names.clone(), entries.clone()) {
        return None;
    }
    let listed = entries.into_iter().collect::<Vec<_>>().join(",");
    // Null removes it.
    let annotation = (!listed.is_empty()).then_some(listed);
    let references: Vec<_> = names.into_iter().map(|name| json!({"name": name})).collect();
    let annotations = BTreeMap::from([(ATTACHED, annotation)]);
    Some(json!({
        "metadata": {"resourceVersion": account.metadata.resource_version, "annotations": annotations},
        "imagePullSecrets": references,
    }))
}

fn attached(account: &ServiceAccount) -> BTreeSet<String> {
    let listed = account.annotations().get(ATTACHED).map_or("", String::as_str);
    listed.split(',').filter(|entry| !entry.is_empty()).map(ToOwned::to_owned).collect()
}

/// How entries begin, of which Repositories whatever.
pub(super) fn prefixes(account: &ServiceAccount) -> BTreeSet<String> {
    let entries = attached(account);
    entries.iter().filter_map(|entry| Some(format!("{}/", entry.rsplit_once('/')?.0))).collect()
}

/// How the entries of this Repository begin.
pub(super) fn prefix(repository: &impl Resource) -> String {
    format!("{}/{}/", repository.namespace().unwrap_or_default(), repository.name_any())
}
