//! What is done for one target: its run begins, goes on or is stopped.

use crds::{
    Replication,
    replication::{Phase, Target, TargetStatus},
};
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Secret};
use kube::ResourceExt as _;

use super::{
    Error,
    due::{self, Next, Situation, Start},
    end::{self, End},
    grant::Role,
    job::{self, Run},
    memory::Mark,
    plan,
    poll::Runs,
    seen::{Seen, target_of},
    status,
    target::{after, stopped},
    terms::{self, Terms, Trigger},
};
use crate::{apply, certificate, conditions::Answer, context::Context, reconcile};

/// What all targets of a Replication stand on, or what is missing of it.
pub(super) struct Ground(Result<(Terms, End), Answer>);

impl Ground {
    pub(super) async fn find(context: &Context, replication: &Replication) -> Result<Self, Error> {
        let spec = &replication.spec;
        let terms = match Terms::parse(spec) {
            Ok(terms) => terms,
            Err(answer) => return Ok(Self(Err(answer))),
        };
        if let Some(answer) = end::account(context, replication).await? {
            return Ok(Self(Err(answer)));
        }
        let (registry, endpoint) = (spec.source.registry_ref.as_ref(), spec.source.endpoint.as_ref());
        let source = end::find(context, replication, registry, endpoint, Role::Source).await?;
        Ok(Self(source.map(|source| (terms, source)).map_err(|Answer { message, reason, .. }| {
            let message = format!("source: {message}");
            Answer { yes: false, reason, message }
        })))
    }

    /// What is missing.
    pub(super) fn problem(&self) -> Option<&Answer> {
        self.0.as_ref().err()
    }

    pub(super) fn source(&self) -> Option<&End> {
        self.0.as_ref().ok().map(|(_, source)| source)
    }
}

/// How a target is now.
pub(super) struct Done {
    pub(super) target: TargetStatus,
    /// When something is due.
    pub(super) next: Option<Timestamp>,
    /// Something is missing that nobody tells of when it comes.
    pub(super) missing: bool,
    /// What is to be tried again.
    pub(super) error: Option<Error>,
}

/// Looks at a target and does what is due.
pub(super) async fn work(
    context: &Context,
    replication: &Replication,
    ground: &Ground,
    target: &Target,
    runs: &Runs,
    now: Timestamp,
) -> Done {
    let mut done = Done { target: former(replication, target), next: None, missing: false, error: None };
    let ended = done.target.runs;
    done.target = after(done.target, runs.last(&target.name), now);
    if done.target.runs > ended {
        // What came of a run is told before the next one begins.
        done.next = Some(now);
        status::explain(replication, &mut done.target);
        return done;
    }
    let mark = marked(context, replication, &done.target);
    if let Some(mark) = mark.as_ref().filter(|_| done.target.job.is_none()) {
        done.target.behind_since = done.target.behind_since.take().or_else(|| mark.since.clone());
    }
    let result = act(context, replication, ground, target, runs, mark.is_some(), now, &mut done).await;
    if let Err(error) = result {
        refused(&mut done, error);
    }
    if done.target.job.is_none() && replication.spec.suspend {
        done.target.phase = Phase::Suspended;
    }
    status::explain(replication, &mut done.target);
    done
}

fn former(replication: &Replication, target: &Target) -> TargetStatus {
    let known = replication.status.iter().flat_map(|status| &status.targets);
    let known = known.into_iter().find(|known| known.name == target.name).cloned();
    known.unwrap_or_else(|| TargetStatus { name: target.name.clone(), ..TargetStatus::default() })
}

fn marked(context: &Context, replication: &Replication, target: &TargetStatus) -> Option<Mark> {
    let uid = replication.uid().unwrap_or_default();
    context.replications.marked(&uid, &target.name, target.cursor.as_deref())
}

#[expect(clippy::too_many_arguments, reason = "one step of `work`")]
async fn act(
    context: &Context,
    replication: &Replication,
    ground: &Ground,
    target: &Target,
    runs: &Runs,
    pushed: bool,
    now: Timestamp,
    done: &mut Done,
) -> Result<(), Error> {
    let run = runs.unended(&target.name);
    let Ok((terms, source)) = &ground.0 else {
        return match run.filter(|_| replication.spec.suspend) {
            Some(run) => end_run(context, replication, runs, run, done, now).await,
            None => Ok(()),
        };
    };
    let (registry, endpoint) = (target.registry_ref.as_ref(), target.endpoint.as_ref());
    let role = terms::role_at_target(&replication.spec);
    let there = match end::find(context, replication, registry, endpoint, role).await? {
        Ok(there) => there,
        Err(answer) => {
            done.lacks(&answer);
            return Ok(());
        }
    };
    if let Some(answer) = terms::circular(&replication.spec).filter(|_| there.host() == source.host()) {
        done.lacks(&answer);
        return Ok(());
    }
    let compared = plan::plan(replication, terms, source, &there);
    let comparison = plan::comparison(&compared, replication);
    let now_value = replication.annotations().get(job::NOW).map(|value| job::now_value(value));
    let known = Situation {
        trigger: &terms.trigger,
        suspended: replication.spec.suspend,
        target: &done.target,
        run,
        comparison: &comparison,
        now_value: now_value.as_deref(),
        pushed,
        created: replication.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0),
        now,
    };
    match (due::next(&known), run) {
        (Next::Start(start), _) => {
            let plan = match &terms.trigger {
                Trigger::OnPush { .. } => plan::following(compared, start.cursor.clone()),
                Trigger::Schedule(_) | Trigger::Manual => compared,
            };
            let run = Run {
                replication,
                target: &target.name,
                number: done.target.runs,
                start: &start,
                plan: &plan,
                comparison: &comparison,
                source,
                there: &there,
                ca: context.secrets.serving.cert(),
                image: &context.config.registry_image,
            };
            begin(context, &run, now).await?;
            done.begun(&run, &start);
        }
        (Next::Stop, Some(run)) => end_run(context, replication, runs, run, done, now).await?,
        (Next::Stop, None) => {}
        (Next::Wait(at), _) => done.next = at,
    }
    Ok(())
}

/// Makes the Job, unless it is there.
async fn begin(context: &Context, run: &Run<'_>, now: Timestamp) -> Result<(), Error> {
    let (replication, applier) = (run.replication, &context.applier);
    let namespace = replication.namespace().unwrap_or_default();
    let metadata = job::owned(replication, job::channel_secret(replication));
    let observed: Option<Secret> = applier.get(&namespace, &job::channel_secret(replication)).await?;
    let key = context.secrets.keys.of_operator();
    let names = [job::channel_name(replication)];
    let secret =
        certificate::desired(observed.as_ref(), metadata, &names, &context.secrets.channel, &key, now)?;
    applier.ensure_from(observed, secret).await?;
    let desired = job::job(run);
    match applier.get::<Job>(&namespace, &desired.name_any()).await? {
        // A Job never changes: one of this name is this run.
        Some(observed) if apply::is_ours(&observed) => Ok(()),
        Some(observed) => Err(apply::Error::Foreign { what: format!("Job {}", observed.name_any()) }.into()),
        None => Ok(applier.ensure_from(None, desired).await.map(drop)?),
    }
}

async fn end_run(
    context: &Context,
    replication: &Replication,
    runs: &Runs,
    run: &Seen,
    done: &mut Done,
    now: Timestamp,
) -> Result<(), Error> {
    super::stop(replication, context, &run.job, runs.uid(run)).await?;
    done.target = stopped(std::mem::take(&mut done.target), run, now);
    Ok(())
}

/// Ends the runs of targets that the spec has no more.
pub(super) async fn stop_orphans(
    context: &Context,
    replication: &Replication,
    jobs: &[Job],
) -> Result<(), Error> {
    let targets = &replication.spec.targets;
    let orphaned = |job: &&Job| {
        let target = target_of(job);
        job.metadata.deletion_timestamp.is_none() && !targets.iter().any(|known| target == Some(&known.name))
    };
    for job in jobs.iter().filter(orphaned) {
        super::stop(replication, context, &job.name_any(), job.uid()).await?;
    }
    Ok(())
}

impl Done {
    /// Something that has to be there is not.
    fn lacks(&mut self, answer: &Answer) {
        self.missing = true;
        if self.target.job.is_none() {
            self.target.phase = Phase::Failing;
            self.target.reason = Some(answer.reason.clone().into_owned());
            self.target.message = Some(answer.message.clone());
        }
    }

    fn begun(&mut self, run: &Run<'_>, start: &Start) {
        let target = &mut self.target;
        target.job = Some(job::name(run.replication, run.target, run.number));
        target.phase = Phase::Running;
        (target.images, target.bytes) = Default::default();
        target.scheduled = start.scheduled.map(|time| time.to_string()).or(target.scheduled.take());
        target.replicate_now = start.now.clone().or(target.replicate_now.take());
    }
}

/// What a person has to mend is told; the rest is tried again.
fn refused(done: &mut Done, error: Error) {
    let problem = match &error {
        Error::Apply(error) => reconcile::problem(error),
        _ => None,
    };
    match problem {
        Some(answer) => done.lacks(&answer),
        None => done.error = Some(error),
    }
}
