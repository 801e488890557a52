//! Reconciliation of Replications against an API server in memory.

use channel::{
    feed::{Entry, Kind, Stamp},
    replication::{Phase, Plan, Problem, Progress, Reason},
};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::testing::{self, world::World};

mod following;

const MIRROR: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/replications/mirror";
const REGISTRY: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/registries/demo";
const GRANT: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/repositories/all";
const ACCOUNT: &str = "/api/v1/namespaces/apps/serviceaccounts/replicator";
const JOBS: &str = "/apis/batch/v1/namespaces/apps/jobs/";

/// A Registry, a ServiceAccount, and a Replication with these fields besides.
fn world(spec: &Value) -> World {
    let mut world = World::empty();
    world.api.put(REGISTRY, json!(testing::registry("demo")));
    let grant = json!({"path": "*", "access": [{"serviceAccount": {"name": "replicator"}, "role": "Admin"}]});
    world.api.put(GRANT, json!(testing::repository("apps", "all", &grant)));
    world.api.put(ACCOUNT, json!({"metadata": {"name": "replicator", "namespace": "apps"}}));
    world.api.put(MIRROR, json!(testing::replication("apps", spec)));
    world.watch();
    world
}

fn targets(names: &[&str]) -> Value {
    let target = |name: &&str| json!({"name": name, "endpoint": {"url": format!("https://{name}.example")}});
    json!({"targets": names.iter().map(target).collect::<Vec<_>>()})
}

/// A run that made everything the same, up to this cursor.
fn equal(cursor: &str) -> Progress {
    let equal_at = Some(Timestamp::now().to_string());
    Progress { phase: Phase::Ended, cursor: Some(cursor.into()), equal_at, done: 1, ..Progress::default() }
}

fn failing(reason: Reason) -> Progress {
    let problem = Some(Problem { reason, message: "it is so".into() });
    Progress { phase: Phase::Ended, problem, ..Progress::default() }
}

impl World {
    async fn look(&mut self) -> Action {
        self.watch();
        let replication = Arc::new(self.read(MIRROR));
        let action = reconcile(replication, Arc::clone(&self.context)).await.unwrap();
        self.watch();
        action
    }

    /// Until nothing is written any more, which is soon.
    async fn come_to_rest(&mut self) {
        for _ in 0..4 {
            self.api.take_writes();
            self.look().await;
            if self.api.take_writes().is_empty() {
                return;
            }
        }
        panic!("still writing after four looks");
    }

    /// Path of the Job of each target that has not ended.
    fn jobs(&self) -> Vec<(String, String)> {
        let jobs = self.api.paths().into_iter().filter(|path| path.starts_with(JOBS));
        let jobs = jobs.map(|path| (path.clone(), self.api.get(&path).unwrap()));
        let unended = jobs.filter(|(_, job)| job["status"]["conditions"].is_null());
        unended.map(|(path, job)| (label(&job), path)).collect()
    }

    fn job(&self, target: &str) -> String {
        let jobs = self.jobs().into_iter().filter(|(of, _)| of == target);
        let [(_, path)] = jobs.collect::<Vec<_>>().try_into().unwrap();
        path
    }

    fn plan(&self, target: &str) -> Plan {
        let job = self.api.get(&self.job(target)).unwrap();
        let plan = &job["spec"]["template"]["metadata"]["annotations"]["berth.dev/plan"];
        serde_json::from_str(plan.as_str().unwrap()).unwrap()
    }

    /// The Job of a target ends, its pod having said this.
    fn end(&mut self, target: &str, condition: &str, progress: &Progress) {
        let path = self.job(target);
        let now = Timestamp::now().to_string();
        let uid = format!("uid-of-{path}");
        let mut job = self.api.get(&path).unwrap();
        job["metadata"]["uid"] = json!(uid);
        job["status"]["conditions"] =
            json!([{"type": condition, "status": "True", "lastTransitionTime": now}]);
        let name = job["metadata"]["name"].as_str().unwrap().to_owned();
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}]);
        let state = json!({"terminated": {"exitCode": 0, "message": json!(progress).to_string()}});
        let container = json!({"name": "replicate", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let metadata = json!({"name": format!("{name}-x"), "namespace": "apps", "uid": format!("pod-{uid}"),
            "labels": job["metadata"]["labels"], "ownerReferences": owner});
        self.api.put(
            &format!("/api/v1/namespaces/apps/pods/{name}-x"),
            json!({"metadata": metadata, "status": {"phase": "Succeeded", "containerStatuses": [container]}}),
        );
        self.api.put(&path, job);
        self.watch();
    }

    fn target(&self, name: &str) -> TargetStatus {
        let replication: Replication = self.read(MIRROR);
        replication.status.unwrap().targets.into_iter().find(|target| target.name == name).unwrap()
    }

    fn ready(&self) -> (String, String) {
        let replication: Replication = self.read(MIRROR);
        let status = replication.status.unwrap();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!(ready.observed_generation, replication.metadata.generation);
        (ready.reason.clone(), ready.message.clone())
    }

    /// As if what is to be tried again were due now.
    fn retry_now(&mut self) {
        let now = Timestamp::now().to_string();
        self.edit(MIRROR, |replication| {
            for target in replication["status"]["targets"].as_array_mut().unwrap() {
                if !target["retry"].is_null() {
                    target["retry"] = json!(now);
                }
            }
        });
    }

    fn edit_spec(&mut self, edit: impl FnOnce(&mut Value)) {
        self.edit(MIRROR, |replication| {
            replication["metadata"]["generation"] = json!(2);
            edit(&mut replication["spec"]);
        });
    }

    /// An operator that has just started, over the same cluster.
    fn restarted(self) -> Self {
        World::over(self.api.clone())
    }
}

fn label(job: &Value) -> String {
    job["metadata"]["labels"]["berth.dev/target"].as_str().unwrap().to_owned()
}

fn events(writes: &[String]) -> usize {
    writes.iter().filter(|write| write.contains("/events")).count()
}

#[tokio::test]
async fn a_new_one_compares_everything_and_follows_and_an_operator_that_restarts_starts_nothing_twice() {
    let mut world = world(&json!({}));
    world.come_to_rest().await;
    let (plan, job) = (world.plan("there"), world.job("there"));
    assert_eq!(plan.follow.unwrap().cursor, None);
    assert_eq!(plan.source.url, "https://demo.apps.svc:5000");
    assert_eq!(world.ready().0, "Pending");
    assert_eq!(world.target("there").job.as_deref(), job.strip_prefix(JOBS));

    let mut world = world.restarted();
    world.look().await;
    assert_eq!((world.api.take_writes(), world.job("there")), (Vec::new(), job.clone()));
    // Even one that has not heard of the Job, nor of its own status.
    world.edit(MIRROR, |replication| drop(replication["status"].take()));
    let mut unlabelled = world.api.get(&job).unwrap();
    unlabelled["metadata"]["labels"] = json!({});
    world.api.put(&job, unlabelled);
    world.look().await;
    let jobs = world.api.paths().into_iter().filter(|path| path.starts_with(JOBS));
    assert_eq!(jobs.collect::<Vec<_>>(), [job]);
}

#[tokio::test]
async fn once_everything_is_the_same_nothing_is_written() {
    let mut world = world(&json!({}));
    world.come_to_rest().await;
    world.end("there", "Complete", &equal("c1"));
    world.come_to_rest().await;
    assert_eq!(world.ready().0, "Replicated");
    let target = world.target("there");
    assert_eq!((target.cursor.as_deref(), target.runs, target.job), (Some("c1"), 1, None));
    assert_eq!(world.jobs(), []);
    let mut world = world.restarted();
    let action = world.look().await;
    assert_eq!((world.api.take_writes(), action), (Vec::new(), Action::requeue(CALM)));
}

#[tokio::test]
async fn one_dead_target_holds_up_no_other_and_catches_up_alone() {
    let mut world = world(&targets(&["a", "b", "c"]));
    world.come_to_rest().await;
    assert_eq!(world.jobs().len(), 3);
    world.api.take_writes();
    world.end("a", "Complete", &equal("c1"));
    world.end("b", "Failed", &failing(Reason::TargetUnreachable));
    world.end("c", "Complete", &equal("c1"));
    world.look().await;
    assert_eq!(events(&world.api.take_writes()), 3);
    assert_eq!(world.ready(), ("TargetUnreachable".into(), "target b: it is so".into()));
    let summary = |world: &World| world.read::<Replication>(MIRROR).status.unwrap().summary.unwrap();
    assert_eq!(summary(&world), "2/3");

    for _ in 0..2 {
        world.retry_now();
        world.come_to_rest().await;
        assert_eq!(world.jobs().len(), 1);
        world.end("b", "Failed", &failing(Reason::TargetUnreachable));
        world.look().await;
        assert_eq!(events(&world.api.take_writes()), 0);
    }
    world.retry_now();
    world.come_to_rest().await;
    world.end("b", "Complete", &equal("c2"));
    world.look().await;
    assert_eq!(events(&world.api.take_writes()), 1);
    assert_eq!((world.ready().0.as_str(), summary(&world).as_str()), ("Replicated", "3/3"));
    assert_eq!((world.target("a").runs, world.target("b").runs), (1, 4));
}

#[tokio::test]
async fn a_refused_login_says_which_grant_is_missing() {
    let mut world = world(&json!({}));
    world.come_to_rest().await;
    world.end("there", "Failed", &failing(Reason::SourceUnauthorized));
    world.come_to_rest().await;
    let (reason, message) = world.ready();
    assert_eq!(reason, "SourceUnauthorized");
    assert!(message.contains("ServiceAccount replicator of namespace apps"), "{message}");
}

#[tokio::test]
async fn what_is_missing_is_said_and_heals() {
    let login = json!({"url": "https://there.example", "credentialsSecretRef": {"name": "login"}, "caSecretRef": {"name": "ca"}});
    let mut world = world(&json!({"targets": [{"name": "there", "endpoint": login}]}));
    let secret = |name: &str| format!("/api/v1/namespaces/apps/secrets/{name}");
    let registry = world.api.remove(REGISTRY).unwrap();
    let account = world.api.remove(ACCOUNT).unwrap();
    let grant = world.api.remove(GRANT).unwrap();
    let mut steps = vec![
        ("ServiceAccountNotFound", ACCOUNT.to_owned(), account),
        ("RegistryNotFound", REGISTRY.to_owned(), registry),
        ("SourceUnauthorized", GRANT.to_owned(), grant),
        (
            "CredentialsNotFound",
            secret("login"),
            json!({"metadata": {"name": "login"}, "data": {"token": ""}}),
        ),
        (
            "CredentialsInvalid",
            secret("login"),
            json!({"metadata": {"name": "login"}, "data": {"username": "", "password": ""}}),
        ),
        ("CANotFound", secret("ca"), json!({"metadata": {"name": "ca"}, "data": {"ca.crt": ""}})),
    ];
    for (reason, path, mended) in steps.drain(..) {
        world.come_to_rest().await;
        assert_eq!((world.ready().0.as_str(), world.jobs().len()), (reason, 0));
        assert_eq!(world.look().await, Action::requeue(MISSING), "{reason}");
        world.api.put(&path, mended);
    }
    world.come_to_rest().await;
    assert_eq!((world.ready().0.as_str(), world.jobs().len()), ("Pending", 1));
}

#[tokio::test]
async fn a_spec_that_cannot_be_carried_out_says_so_and_heals() {
    let mut world = world(&json!({"source": {"endpoint": {"url": "https://ghcr.io"}}}));
    world.look().await;
    assert_eq!(events(&world.api.take_writes()), 1);
    world.come_to_rest().await;
    assert_eq!((world.ready().0.as_str(), world.jobs().len()), ("NotABerthRegistry", 0));
    let schedule = |cron: &str| json!({"type": "Schedule", "schedule": {"cron": cron}});
    world.edit_spec(|spec| spec["trigger"] = schedule("99 * * * *"));
    world.come_to_rest().await;
    assert_eq!(world.ready().0, "InvalidSchedule");
    world.edit_spec(|spec| spec["trigger"] = schedule("* * * * *"));
    world.come_to_rest().await;
    assert_eq!((world.ready().0.as_str(), world.plan("there").follow), ("Pending", None));
    assert!(world.target("there").scheduled.is_some());
}

#[tokio::test]
async fn a_job_that_is_refused_says_so_and_comes_later() {
    let mut world = world(&json!({}));
    world.api.refuse("berth.dev/plan");
    assert_eq!(world.look().await, Action::requeue(MISSING));
    assert_eq!((world.ready().0.as_str(), world.jobs().len()), ("Refused", 0));
    world.api.refuse("nothing has this in it");
    world.come_to_rest().await;
    assert_eq!((world.ready().0.as_str(), world.jobs().len()), ("Pending", 1));
}

#[tokio::test]
async fn somebody_elses_job_of_that_name_is_left_alone() {
    let mut world = world(&json!({}));
    let name = job::name(&world.read(MIRROR), "there", 0);
    world.api.put(&format!("{JOBS}{name}"), json!({"metadata": {"name": name, "namespace": "apps"}}));
    world.come_to_rest().await;
    assert_eq!(world.ready().0, "NameTaken");
}

#[tokio::test]
async fn jobs_that_only_have_its_labels_are_none_of_its_own_however_many() {
    let mut world = world(&json!({}));
    let labels = json!(job::labels(&world.read(MIRROR)));
    let run = json!({"berth.dev/run": "9", "berth.dev/comparison": "c"});
    for n in 0..50 {
        let mut labels = labels.clone();
        labels["berth.dev/target"] = json!("there");
        let metadata = json!({"name": format!("a{n}"), "namespace": "apps", "uid": format!("a{n}"), "labels": labels, "annotations": run});
        world.api.put(&format!("{JOBS}a{n}"), json!({"metadata": metadata}));
    }
    world.come_to_rest().await;
    let own = format!("{JOBS}{}", world.target("there").job.unwrap());
    assert!(own.starts_with(&format!("{JOBS}mirror-")));
    assert_eq!((world.jobs().len(), world.target("there").runs), (51, 0));
    // Behind all the others it is found.
    let mut ended = world.api.get(&own).unwrap();
    let now = Timestamp::now().to_string();
    ended["status"]["conditions"] =
        json!([{"type": "Complete", "status": "True", "lastTransitionTime": now}]);
    world.api.put(&own, ended);
    world.look().await;
    assert_eq!((world.target("there").runs, world.target("there").job), (1, None));
}

#[tokio::test]
async fn a_registry_is_not_copied_into_itself() {
    let own = json!({"name": "own", "registryRef": {"name": "demo", "namespace": "apps"}});
    let mut world = world(&json!({"targets": [own]}));
    world.come_to_rest().await;
    assert_eq!((world.ready().0.as_str(), world.jobs().len()), ("TargetIsSource", 0));
    world.edit_spec(|spec| {
        spec["destination"] = json!({"prefix": "copies"});
        spec["filters"] = json!({"repositories": ["team/**"]});
    });
    world.come_to_rest().await;
    assert_eq!(world.jobs().len(), 1);
}

#[tokio::test]
async fn people_ask_for_a_run_by_the_annotation_once() {
    let mut world = world(&json!({"trigger": {"type": "Manual"}}));
    world.come_to_rest().await;
    assert_eq!(world.jobs(), []);
    world.edit(MIRROR, |replication| {
        replication["metadata"]["annotations"] = json!({"berth.dev/replicate-now": "1"});
    });
    world.come_to_rest().await;
    world.end("there", "Complete", &equal("c1"));
    world.come_to_rest().await;
    assert_eq!((world.jobs(), world.target("there").replicate_now.as_deref()), (Vec::new(), Some("1")));
}

#[tokio::test]
async fn of_a_long_annotation_a_hash_is_kept_and_another_one_begins_another_run() {
    let mut world = world(&json!({"trigger": {"type": "Manual"}}));
    let ask = |world: &mut World, value: &str| {
        world.edit(MIRROR, |replication| {
            replication["metadata"]["annotations"] = json!({"berth.dev/replicate-now": value});
        });
    };
    let mut seen = Vec::new();
    for last in ["1", "2"] {
        ask(&mut world, &("x".repeat(100_000) + last));
        world.come_to_rest().await;
        let job = world.api.get(&world.job("there")).unwrap();
        let said = job["metadata"]["annotations"]["berth.dev/replicate-now"].as_str().unwrap().to_owned();
        world.end("there", "Complete", &equal("c1"));
        world.come_to_rest().await;
        assert_eq!((world.jobs(), world.target("there").replicate_now.as_ref()), (Vec::new(), Some(&said)));
        assert_eq!(said.len(), 16);
        seen.push(said);
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_run_whose_job_is_gone_is_made_up_for() {
    let by_hand = json!({"trigger": {"type": "Manual"}});
    let hourly = json!({"trigger": {"type": "Schedule", "schedule": {"cron": "0 * * * *"}}});
    for trigger in [by_hand, hourly, json!({})] {
        let mut world = world(&trigger);
        world.edit(MIRROR, |replication| {
            replication["metadata"]["annotations"] = json!({"berth.dev/replicate-now": "1"});
        });
        world.come_to_rest().await;
        let first = world.job("there");
        // It failed, and the operator was away for longer than Kubernetes keeps a Job.
        world.end("there", "Failed", &failing(Reason::TargetUnreachable));
        world.api.remove(&first);
        let mut world = world.restarted();
        world.look().await;
        assert_eq!(events(&world.api.take_writes()), 1);
        assert_eq!((world.ready().0.as_str(), world.target("there").runs), ("RunFailed", 1));
        world.come_to_rest().await;
        assert_ne!(world.job("there"), first);
        world.end("there", "Complete", &equal("c1"));
        world.come_to_rest().await;
        assert_eq!((world.jobs(), world.ready().0.as_str()), (Vec::new(), "Replicated"));
        assert_eq!(world.target("there").runs, 2);
    }
}

#[tokio::test]
async fn what_is_suspended_or_changed_stops_before_anything_else_begins() {
    let mut world = world(&json!({}));
    world.come_to_rest().await;
    let first = world.job("there");
    world.edit_spec(|spec| spec["filters"] = json!({"repositories": ["team/**"]}));
    world.look().await;
    assert!(world.api.take_writes().contains(&format!("DELETE {first}")));
    world.come_to_rest().await;
    let second = world.job("there");
    assert_ne!(first, second);
    assert_eq!(world.plan("there").filters.repositories, ["team/**"]);
    world.edit_spec(|spec| spec["suspend"] = json!(true));
    world.come_to_rest().await;
    assert_eq!((world.jobs(), world.ready().0.as_str()), (Vec::new(), "Suspended"));
    assert_eq!(world.target("there").phase, crds::replication::Phase::Suspended);
    world.edit_spec(|spec| spec["suspend"] = json!(false));
    world.come_to_rest().await;
    assert_ne!(world.job("there"), second);
}

#[tokio::test]
async fn a_job_whose_pod_is_still_ending_is_waited_for() {
    let mut world = world(&json!({}));
    world.come_to_rest().await;
    let path = world.job("there");
    world.edit(&path, |job| job["metadata"]["deletionTimestamp"] = json!(Timestamp::now().to_string()));
    world.edit_spec(|spec| spec["filters"] = json!({"repositories": ["team/**"]}));
    world.come_to_rest().await;
    assert_eq!(world.jobs().len(), 1);
    world.api.remove(&path);
    world.come_to_rest().await;
    assert_eq!(world.plan("there").filters.repositories, ["team/**"]);
}

#[tokio::test]
async fn the_job_of_a_target_that_is_no_more_is_stopped_and_all_goes_with_the_replication() {
    let mut world = world(&targets(&["a", "b"]));
    world.come_to_rest().await;
    world.edit_spec(|spec| spec["targets"] = targets(&["a"])["targets"].clone());
    world.come_to_rest().await;
    assert_eq!(world.jobs().len(), 1);
    let secret = "/api/v1/namespaces/apps/secrets/mirror.channel";
    for path in [world.job("a"), secret.to_owned()] {
        let owner = world.api.get(&path).unwrap()["metadata"]["ownerReferences"][0].clone();
        assert_eq!(
            (owner["kind"].as_str(), owner["name"].as_str()),
            (Some("Replication"), Some("mirror")),
            "{path}"
        );
    }
    world.edit(MIRROR, |it| it["metadata"]["deletionTimestamp"] = json!(Timestamp::now().to_string()));
    assert_eq!(world.look().await, Action::await_change());
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn everything_is_compared_again_after_a_while() {
    let mut world = world(&json!({"trigger": {"resyncInterval": "1h"}}));
    world.come_to_rest().await;
    world.end("there", "Complete", &equal("c1"));
    world.come_to_rest().await;
    let long_ago = (Timestamp::now() - SignedDuration::from_hours(2)).to_string();
    world.edit(MIRROR, |it| it["status"]["targets"][0]["compared"] = json!(long_ago));
    world.come_to_rest().await;
    assert_eq!(world.plan("there").follow.unwrap().cursor, None);
}

fn entry(repository: &str, kind: Kind) -> Entry {
    let stamp = Stamp { time: "2026-01-01T00:00:00.000001Z".into(), origin: "here".into() };
    let (tag, digest) = (Some("1".into()), "sha256:0".into());
    Entry { kind, repository: repository.into(), tag, digest, subject: None, stamp }
}
