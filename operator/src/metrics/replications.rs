//! How far Replications are, by target.

use crds::{Replication, ReplicationStatus, replication::TargetStatus};
use kube::ResourceExt as _;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What is counted of Replications. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replications {
    lag: Family<At, Gauge>,
    runs: Family<Run, Counter>,
    bytes: Family<At, Counter>,
    failures: Family<At, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct At {
    namespace: String,
    replication: String,
    target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    namespace: String,
    replication: String,
    target: String,
    outcome: &'static str,
}

const OUTCOMES: [&str; 2] = ["ended", "failed"];

impl Replications {
    /// What became of the targets since the status that a Replication has.
    pub(crate) fn observe(&self, replication: &Replication, status: &ReplicationStatus) {
        for target in &status.targets {
            let known = replication.status.iter().flat_map(|status| &status.targets);
            let former = known.into_iter().find(|known| known.name == target.name).cloned();
            self.moved(&of(replication, &target.name), &former.unwrap_or_default(), target);
        }
        // What the spec has no more.
        let known = replication.status.iter().flat_map(|status| &status.targets);
        let gone = known.into_iter().filter(|known| !status.targets.iter().any(|it| it.name == known.name));
        gone.for_each(|target| self.remove(&of(replication, &target.name)));
    }

    /// The Replication is gone.
    pub(crate) fn forget(&self, replication: &Replication) {
        let targets = replication.status.iter().flat_map(|status| &status.targets);
        targets.into_iter().for_each(|target| self.remove(&of(replication, &target.name)));
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let Self { lag, runs, bytes, failures } = self;
        registry.register("replication_lag_seconds", "How far a target is behind", lag.clone());
        registry.register("replication_runs", "Runs that ended or failed", runs.clone());
        registry.register("replication_bytes", "Bytes sent to a target", bytes.clone());
        registry.register("replication_failures", "Images that failed in a run", failures.clone());
    }

    fn moved(&self, at: &At, former: &TargetStatus, target: &TargetStatus) {
        if let Some(lag) = target.lag_seconds {
            self.lag.get_or_create(at).set(lag);
        }
        let ended = target.runs > former.runs;
        if ended {
            let outcome = OUTCOMES[usize::from(target.failed_runs > former.failed_runs)];
            self.runs.get_or_create(&run(at, outcome)).inc();
        }
        if !ended && target.job.is_none() {
            return;
        }
        // A run that was seen before is counted from there.
        let seen = former.job.is_some() && (ended || former.job == target.job);
        let since =
            |now: i64, before: i64| u64::try_from(if seen { now - before } else { now }).unwrap_or_default();
        self.bytes.get_or_create(at).inc_by(since(target.bytes.moved, former.bytes.moved));
        self.failures.get_or_create(at).inc_by(since(target.images.failed, former.images.failed));
    }

    fn remove(&self, at: &At) {
        self.lag.remove(at);
        self.bytes.remove(at);
        self.failures.remove(at);
        for outcome in OUTCOMES {
            self.runs.remove(&run(at, outcome));
        }
    }
}

fn of(replication: &Replication, target: &str) -> At {
    At {
        namespace: replication.namespace().unwrap_or_default(),
        replication: replication.name_any(),
        target: target.to_owned(),
    }
}

fn run(at: &At, outcome: &'static str) -> Run {
    let At { namespace, replication, target } = at.clone();
    Run { namespace, replication, target, outcome }
}

#[cfg(test)]
mod tests {
    use crds::replication::Bytes;
    use serde_json::json;

    use super::*;
    use crate::testing::replication;

    fn status(runs: i64, failed_runs: i64, job: Option<&str>, moved: i64) -> ReplicationStatus {
        let bytes = Bytes { moved, skipped: 0 };
        let job = job.map(str::to_owned);
        let lag_seconds = Some(3);
        let target = TargetStatus {
            name: "there".into(),
            runs,
            failed_runs,
            job,
            bytes,
            lag_seconds,
            ..TargetStatus::default()
        };
        ReplicationStatus { targets: vec![target], ..ReplicationStatus::default() }
    }

    #[test]
    fn bytes_of_a_run_are_counted_once_and_nothing_is_left_of_what_is_gone() {
        let (metrics, mut replication) = (Replications::default(), replication("apps", &json!({})));
        let at = of(&replication, "there");
        let steps = [
            (0, 0, Some("a"), 10),
            (0, 0, Some("a"), 25),
            (1, 0, None, 30),
            (1, 0, None, 30),
            (1, 0, Some("b"), 5),
        ];
        for (runs, failed, job, moved) in steps {
            let status = status(runs, failed, job, moved);
            metrics.observe(&replication, &status);
            replication.status = Some(status);
        }
        metrics.observe(&replication, &status(2, 1, None, 7));
        let runs = |outcome| metrics.runs.get_or_create(&run(&at, outcome)).get();
        assert_eq!((metrics.bytes.get_or_create(&at).get(), runs("ended"), runs("failed")), (37, 1, 1));
        metrics.forget(&replication);
        assert!(!format!("{:?}", metrics.lag).contains("there"));
    }
}
