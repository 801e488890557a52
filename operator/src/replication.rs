//! One Replication: a Job for each target at a time, what becomes of it, and how that is told.
//!
//! What there is to know is in the status, in Jobs and in pods; a look at them decides anew, so that an operator that takes
//! over goes on where another one was. What belongs to a Replication lies in its namespace and goes with it.

use std::{sync::Arc, time::Duration};

use crds::{Replication, ReplicationStatus, replication::TargetStatus};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{controller::Action, events::Event},
};
use serde_json::json;

use crate::{apply, authority, conditions::Answer, context::Context, names::MANAGER, stores};

mod due;
mod end;
mod follower;
mod grant;
mod job;
mod listed;
mod memory;
mod pattern;
mod plan;
mod poll;
mod readable;
mod schedule;
mod seen;
mod status;
mod target;
mod terms;
mod work;

pub(crate) use follower::{concern, run as follow};
pub(crate) use job::{REPLICATION, any};
pub(crate) use memory::{Memory, ReplicationRefs};

use memory::POLL;
use work::{Done, Ground};

/// How often a Replication is looked at when nothing happens.
const CALM: Duration = Duration::from_secs(300);
/// How soon again where something is missing that nobody tells of when it comes.
const MISSING: Duration = Duration::from_secs(10);
/// How soon again while a target is behind and nothing runs, so that its lag is told.
const BEHIND: Duration = Duration::from_secs(15);
/// No sooner, whatever is due.
const SOON: Duration = Duration::from_secs(1);
/// A reconciliation takes no longer, whatever hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Why a Replication is not what it should be; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An object can't be read or written.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// What is known of the cluster is not enough to decide.
    #[error(transparent)]
    Incomplete(#[from] stores::Incomplete),
    /// No certificate for pods.
    #[error(transparent)]
    Certificate(#[from] authority::Error),
    /// Jobs or pods can't be listed.
    #[error("failed to list {what}: {source}")]
    List { what: &'static str, source: kube::Error },
    /// A run can't be stopped.
    #[error("failed to stop Job {job}: {source}")]
    Stop { job: String, source: kube::Error },
    /// The status can't be written.
    #[error("failed to write the status: {0}")]
    Status(#[source] kube::Error),
    /// Something hangs.
    #[error("not done after {} s", LIMIT.as_secs())]
    TimedOut,
}

impl Error {
    /// Label of this error in metrics.
    fn kind(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Incomplete(_) => "incomplete",
            Self::Certificate(_) => "certificate",
            Self::List { .. } => "list",
            Self::Stop { .. } => "stop",
            Self::Status(_) => "status",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Brings one Replication about.
pub(crate) async fn reconcile(replication: Arc<Replication>, context: Arc<Context>) -> Result<Action, Error> {
    let limited = tokio::time::timeout(LIMIT, Box::pin(run(&replication, &context))).await;
    let result = limited.unwrap_or(Err(Error::TimedOut));
    context.applier.metrics.reconciled("Replication", result.as_ref().err().map_or("ok", Error::kind));
    result
}

/// What to do after an error: the same again, later and later.
pub(crate) fn on_error(replication: &Replication, error: &Error, context: &Context) -> Action {
    let wait = context.failures.another(replication);
    let (namespace, name) = (replication.namespace(), replication.name_any());
    tracing::warn!(%error, namespace, name, retry_seconds = wait.as_secs(), "failed to reconcile a Replication");
    Action::requeue(wait)
}

async fn run(known: &Replication, context: &Context) -> Result<Action, Error> {
    context.stores.complete().await?;
    // As it is now: what was written a moment ago may not have come back, and a run would be counted twice.
    let namespace = known.namespace().unwrap_or_default();
    let found: Option<Replication> = context.applier.get(&namespace, &known.name_any()).await?;
    let going = |replication: &Replication| replication.metadata.deletion_timestamp.is_some();
    let Some(replication) = found.filter(|replication| !going(replication)) else {
        return Ok(Action::await_change());
    };
    bring_about(&replication, context).await
}

async fn bring_about(replication: &Replication, context: &Context) -> Result<Action, Error> {
    let now = Timestamp::now();
    let (jobs, pods) = listed::listed(replication, context).await?;
    let ground = Ground::find(context, replication).await?;
    let runs = poll::runs(context, replication, &jobs, &pods, now).await;
    let mut done = Vec::new();
    for target in &replication.spec.targets {
        done.push(work::work(context, replication, &ground, target, &runs, now).await);
    }
    let orphaned = work::stop_orphans(context, replication, &jobs).await;

    let problem = ground.problem();
    let failed = done.iter_mut().find_map(|done| done.error.take());
    let next = next_look(problem, &done, now);
    let targets: Vec<_> = done.into_iter().map(|done| done.target).collect();
    tell(replication, context, problem, status::status(replication, problem, ground.source(), targets, now))
        .await?;
    if let Some(error) = failed.or(orphaned.err()) {
        return Err(error);
    }
    context.failures.over(replication);
    Ok(Action::requeue(next))
}

/// Ends a run, and keeps its Job until its pod is gone, so that the next one does not begin beside it.
async fn stop(
    replication: &Replication,
    context: &Context,
    job: &str,
    uid: Option<String>,
) -> Result<(), Error> {
    let namespace = replication.namespace().unwrap_or_default();
    let api = Api::<Job>::namespaced(context.applier.client.clone(), &namespace);
    context.applier.metrics.wrote("Job");
    tracing::info!(kind = "Job", name = job, namespace, "deleting");
    let only = Preconditions { uid, ..Preconditions::default() };
    match api.delete(job, &DeleteParams::foreground().preconditions(only)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(Error::Stop { job: job.to_owned(), source }),
        Ok(_) => Ok(()),
    }
}

/// When to look again, if nothing happens before.
fn next_look(problem: Option<&Answer>, done: &[Done], now: Timestamp) -> Duration {
    let of = |done: &Done| {
        let TargetStatus { job, behind_since, .. } = &done.target;
        let due = done.next.map(|at| at.duration_since(now).try_into().unwrap_or(SOON).max(SOON));
        let others = [
            job.as_ref().map(|_| POLL),
            behind_since.as_ref().map(|_| BEHIND),
            done.missing.then_some(MISSING),
        ];
        others.into_iter().chain([due]).flatten().min()
    };
    let all = done.iter().filter_map(of).chain(problem.map(|_| MISSING));
    all.min().unwrap_or(CALM).min(CALM)
}

/// Writes the status where it differs, with Events of what people would ask about later.
async fn tell(
    replication: &Replication,
    context: &Context,
    problem: Option<&Answer>,
    status: ReplicationStatus,
) -> Result<(), Error> {
    let former = replication.status.as_ref();
    if former == Some(&status) {
        context.applier.metrics.replications.observe(replication, &status);
        return Ok(());
    }
    context.applier.metrics.wrote("Replication/status");
    let patch = json!({
        "apiVersion": Replication::api_version(&()),
        "kind": Replication::kind(&()),
        "metadata": {"name": replication.name_any()},
        "status": status,
    });
    let namespace = replication.namespace().unwrap_or_default();
    Api::<Replication>::namespaced(context.applier.client.clone(), &namespace)
        .patch_status(&replication.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch))
        .await
        .map_err(Error::Status)?;
    context.applier.metrics.replications.observe(replication, &status);
    for event in events(former, problem, &status) {
        publish(replication, context, &event).await;
    }
    Ok(())
}

fn events(
    former: Option<&ReplicationStatus>,
    problem: Option<&Answer>,
    status: &ReplicationStatus,
) -> Vec<Event> {
    let refusal = problem.and_then(|problem| status::refusal(former, problem));
    let targets = status.targets.iter().filter_map(|target| {
        let before =
            former.and_then(|former| former.targets.iter().find(|before| before.name == target.name));
        status::event(before.unwrap_or(&TargetStatus::default()), target)
    });
    refusal.into_iter().chain(targets).collect()
}

/// An Event that can't be published is no reason to stop.
async fn publish(replication: &Replication, context: &Context, event: &Event) {
    context.applier.metrics.wrote("Event");
    if let Err(error) = context.events.publish(event, &replication.object_ref(&())).await {
        tracing::warn!(%error, "failed to publish an Event");
    }
}

#[cfg(test)]
mod tests;
