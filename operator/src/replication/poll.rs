//! Asks the pods of runs how far they are.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use channel::{client::Client, replication::Progress};
use crds::Replication;
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt as _;

use super::{
    job::channel_name,
    seen::{Seen, pod_of, target_of},
    target::FAILURES,
};
use crate::{context::Context, replicas};

/// A pod that takes longer to say how far it is says nothing, and holds nobody up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of what a pod says: it may be somebody else's.
const MAX_PROGRESS: usize = 256 << 10;

/// The runs of a Replication that are known, by target.
pub(super) struct Runs(HashMap<String, Vec<(Seen, Option<String>)>>);

impl Runs {
    /// The newest run of a target.
    pub(super) fn last(&self, target: &str) -> Option<&Seen> {
        self.of(target).max_by_key(|run| run.number)
    }

    /// A run of a target that has not ended, the one that is on its way out first.
    pub(super) fn unended(&self, target: &str) -> Option<&Seen> {
        self.of(target).filter(|run| run.is_active()).min_by_key(|run| run.number)
    }

    /// The UID of a run's Job.
    pub(super) fn uid(&self, run: &Seen) -> Option<String> {
        self.0.values().flatten().find(|(known, _)| known.job == run.job)?.1.clone()
    }

    fn of(&self, target: &str) -> impl Iterator<Item = &Seen> {
        self.0.get(target).into_iter().flatten().map(|(run, _)| run)
    }
}

/// What Jobs and their pods say.
pub(super) async fn runs(
    context: &Context,
    replication: &Replication,
    jobs: &[Job],
    pods: &[Pod],
    now: Timestamp,
) -> Runs {
    let seen = jobs.iter().map(async |job| {
        let progress = match pod_of(job, pods) {
            Some(pod) => progress(context, replication, pod).await,
            None => None,
        };
        Some((target_of(job)?.to_owned(), (Seen::of(job, pods, progress, now)?, job.uid())))
    });
    let mut runs = HashMap::<_, Vec<_>>::new();
    for (target, run) in futures::future::join_all(seen).await.into_iter().flatten() {
        runs.entry(target).or_default().push(run);
    }
    let runs = Runs(runs);
    let uid = replication.uid().unwrap_or_default();
    for target in runs.0.keys() {
        if let Some(progress) = runs.last(target).and_then(|run| run.progress.as_ref()) {
            context.replications.meet(&uid, target, progress.target_id.clone());
        }
    }
    runs
}

/// How far a pod is; where it does not say, how far it was.
async fn progress(context: &Context, replication: &Replication, pod: &Pod) -> Option<Progress> {
    let uid = pod.uid().unwrap_or_default();
    let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let to_ask = running && !context.replications.asked_lately(&uid);
    let Some(address) = replicas::address(pod).filter(|_| to_ask) else {
        return context.replications.last(&uid);
    };
    let said = match context.channel() {
        Ok(client) => ask(&client.at_most(MAX_PROGRESS), address, &channel_name(replication)).await,
        Err(error) => {
            tracing::warn!(%error, "failed to make a certificate for the channel");
            None
        }
    };
    context.replications.hear(&uid, said)
}

/// A pod that does not listen yet, or any more, is no news.
async fn ask(client: &Client, address: SocketAddr, name: &str) -> Option<Progress> {
    let asked = tokio::time::timeout(PATIENCE, client.get(address, name, "/v1/progress")).await.ok()?;
    let said = asked.inspect_err(|error| tracing::debug!(%error, replication = name, "no progress")).ok()?;
    Some(kept(said))
}

/// What a status tells of it, and no more.
fn kept(said: Progress) -> Progress {
    Progress { failures: said.failures.into_iter().take(FAILURES).collect(), ..said }
}

#[cfg(test)]
mod tests {
    use channel::replication::Failure;

    use super::*;

    #[test]
    fn no_more_failures_are_kept_than_are_told() {
        let failure = |n: usize| {
            let failure = Failure { reason: "r".into(), attempts: 1, last_try: String::new() };
            (format!("app:{n:03}"), failure)
        };
        let said = Progress { failed: 100, failures: (0..100).map(failure).collect(), ..Progress::default() };
        let kept = kept(said);
        assert_eq!((kept.failed, kept.failures.len()), (100, FAILURES));
        assert_eq!(kept.failures.keys().next_back().unwrap(), "app:019");
    }
}
