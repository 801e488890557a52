//! Which Jobs and pods are a Replication's. Whoever may make some in its namespace may label them as they like: they are read
//! a few at a time, and nothing is kept of those that are not its own, nor of its own what nobody here reads.

use std::collections::{BTreeMap, BTreeSet};

use crds::Replication;
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{
    Error,
    job::{self, COMPARISON, CONTINUES, MAX_VALUE, NOW, RUN, SCHEDULED, TARGET},
};
use crate::{apply, context::Context};

/// Objects in one answer of the API server: each may have a megabyte.
const PAGE: u32 = 20;
/// Annotations of Jobs that are read.
const ANNOTATIONS: [&str; 5] = [RUN, COMPARISON, CONTINUES, SCHEDULED, NOW];

/// The Replication's Jobs, and their pods.
pub(super) async fn listed(
    replication: &Replication,
    context: &Context,
) -> Result<(Vec<Job>, Vec<Pod>), Error> {
    let uid = replication.uid().unwrap_or_default();
    let jobs = list(replication, context, "Jobs", |job| own_job(job, &uid)).await?;
    let uids: BTreeSet<String> = jobs.iter().filter_map(Job::uid).collect();
    let pods = list(replication, context, "pods", |pod| own_pod(pod, &uids)).await?;
    Ok((jobs, pods))
}

async fn list<K: apply::Object>(
    replication: &Replication,
    context: &Context,
    what: &'static str,
    keep: impl Fn(K) -> Option<K>,
) -> Result<Vec<K>, Error> {
    let namespace = replication.namespace().unwrap_or_default();
    let api = Api::<K>::namespaced(context.applier.client.clone(), &namespace);
    let mut params = ListParams::default().labels(&job::selector(replication)).limit(PAGE);
    let mut kept = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(|source| Error::List { what, source })?;
        kept.extend(page.items.into_iter().filter_map(&keep));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(kept),
        }
    }
}

/// A Job that this Replication controls.
fn own_job(job: Job, replication: &str) -> Option<Job> {
    let is_controller =
        job.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == replication);
    let said = |all: Option<BTreeMap<String, String>>, read: &[&str]| {
        let is_read = |name: &str, value: &str| read.contains(&name) && value.len() <= MAX_VALUE;
        all.map(|all| all.into_iter().filter(|(name, value)| is_read(name, value)).collect())
    };
    let metadata = ObjectMeta {
        labels: said(job.metadata.labels, &[TARGET]),
        annotations: said(job.metadata.annotations, &ANNOTATIONS),
        owner_references: None,
        managed_fields: None,
        ..job.metadata
    };
    is_controller.then_some(Job { metadata, spec: None, status: job.status })
}

/// A pod of one of these Jobs.
fn own_pod(mut pod: Pod, jobs: &BTreeSet<String>) -> Option<Pod> {
    pod.owner_references_mut().retain(|owner| jobs.contains(&owner.uid));
    let is_its = !pod.owner_references().is_empty();
    let metadata = ObjectMeta { labels: None, annotations: None, managed_fields: None, ..pod.metadata };
    is_its.then_some(Pod { metadata, spec: None, status: pod.status })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(owner: &Value, annotations: &Value) -> Job {
        let labels = json!({TARGET: "there", "other": "label"});
        let metadata = json!({"name": "j", "uid": "u", "labels": labels, "annotations": annotations, "ownerReferences": [owner]});
        let template = json!({"metadata": {"annotations": {"berth.dev/plan": "{}"}}});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"template": template}})).unwrap()
    }

    fn owner(uid: &str, controller: bool) -> Value {
        json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": uid, "controller": controller})
    }

    #[test]
    fn labels_alone_make_no_job_a_replications() {
        let kept = |owner| own_job(job(&owner, &json!({})), "r").is_some();
        assert!(kept(owner("r", true)) && !kept(owner("r", false)) && !kept(owner("s", true)));
    }

    #[test]
    fn of_a_job_is_kept_what_is_read() {
        let annotations = json!({RUN: "3", COMPARISON: "c".repeat(MAX_VALUE), NOW: "n".repeat(MAX_VALUE + 1), "other": "x"});
        let kept = own_job(job(&owner("r", true), &annotations), "r").unwrap();
        assert_eq!(kept.annotations().keys().collect::<Vec<_>>(), [COMPARISON, RUN]);
        assert_eq!(kept.labels().keys().collect::<Vec<_>>(), [TARGET]);
        assert_eq!((kept.uid().as_deref(), kept.spec), (Some("u"), None));
    }

    #[test]
    fn pods_are_those_of_the_jobs() {
        let pod = |owners: Value| -> Pod {
            let metadata = json!({"name": "p", "annotations": {"a": "b"}, "ownerReferences": owners});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": []}})).unwrap()
        };
        let jobs = BTreeSet::from(["u".to_owned()]);
        assert_eq!(own_pod(pod(json!([])), &jobs), None);
        assert_eq!(own_pod(pod(json!([owner("v", true)])), &jobs), None);
        let kept = own_pod(pod(json!([owner("v", false), owner("u", true)])), &jobs).unwrap();
        assert_eq!(kept.owner_references().len(), 1);
        assert_eq!((kept.metadata.annotations, kept.spec), (None, None));
    }
}
