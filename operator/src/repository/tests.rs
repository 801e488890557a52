//! Reconciliation of Repositories against an API server in memory.

use crds::{Registry, Repository};
use futures::StreamExt as _;
use kube::runtime::reflector::ObjectRef;
use serde_json::{Value, json};

use super::*;
use crate::{
    controller::{Guarded, GuardedRepository},
    delivery::Watched,
    desired::{self, told::decide},
    stores::Change,
    testing::{self, world::World},
};

const REGISTRY: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/registries/demo";

fn at(namespace: &str, name: &str) -> String {
    format!("/apis/berth.dev/v1alpha1/namespaces/{namespace}/repositories/{name}")
}

/// A Registry that takes the Repositories of `red` and `blue`.
fn world() -> World {
    let mut world = World::empty();
    let mut registry = testing::registry("demo");
    registry.spec.tenancy =
        serde_json::from_value(json!({"namespaces": {"names": ["red", "blue"]}, "paths": "Any"})).unwrap();
    world.api.put(REGISTRY, json!(registry));
    world.watch();
    world
}

impl World {
    fn declare(&mut self, namespace: &str, name: &str, spec: &Value) {
        self.api.put(&at(namespace, name), json!(testing::repository(namespace, name, spec)));
        self.watch();
    }

    /// Reconciles every Repository once.
    async fn round(&mut self) {
        self.watch();
        for guarded in self.context.stores.repositories.state() {
            let repository = Arc::new(guarded.0.clone().unwrap());
            let _ = reconcile(repository, Arc::clone(&self.context)).await;
        }
        self.watch();
    }

    /// Until nothing is written any more, which is soon.
    async fn settle(&mut self) {
        for _ in 0..3 {
            self.api.take_writes();
            self.round().await;
            if self.api.take_writes().is_empty() {
                return;
            }
        }
        panic!("still writing after three rounds");
    }

    /// As if every replica had applied the current policy.
    fn apply_policy(&mut self) {
        let registry: Registry = self.read(REGISTRY);
        let key = self.context.secrets.keys.of(&registry);
        let told: Vec<_> = self.context.stores.tenants(&registry, |tenants| {
            let decided = decide(tenants, |_| Ok::<_, ()>(Vec::new())).unwrap();
            decided.into_iter().map(|decided| Arc::new(decided.told)).collect()
        });
        let people = channel::policy::Htpasswd::default();
        let policy = desired::policy::policy(&registry, &key, people, &told, "nodes");
        let told = told.into_iter().map(|told| (told.path().to_owned(), told));
        self.context.enforced.learn(&registry, told);
        self.edit(REGISTRY, |registry| registry["status"] = json!({"policyRevision": policy.revision()}));
    }

    fn said(&self, namespace: &str, name: &str, type_: &str) -> (String, String) {
        let repository: Repository = self.read(&at(namespace, name));
        let status = repository.status.unwrap();
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        assert_eq!(condition.observed_generation, repository.metadata.generation);
        (condition.reason.clone(), condition.message.clone())
    }

    fn reason(&self, namespace: &str, name: &str, type_: &str) -> String {
        self.said(namespace, name, type_).0
    }
}

#[tokio::test]
async fn a_repository_is_ready_once_every_replica_decides_by_it() {
    let mut world = world();
    world.declare("apps", "web", &json!({"visibility": "Public"}));
    world.settle().await;
    assert_eq!(world.reason("apps", "web", "Accepted"), "Accepted");
    assert_eq!(world.reason("apps", "web", "Ready"), "Pending");
    world.apply_policy();
    world.settle().await;
    let ready = ("Ready".to_owned(), "push to and pull from demo.apps.svc:5000/apps/web:<tag>".to_owned());
    assert_eq!(world.said("apps", "web", "Ready"), ready);
    let repository: Repository = world.read(&at("apps", "web"));
    assert_eq!(repository.status.unwrap().reference.as_deref(), Some("demo.apps.svc:5000/apps/web"));
}

#[tokio::test]
async fn a_change_is_enforced_when_every_replica_has_it_and_makes_no_second_event() {
    let mut world = world();
    world.declare("apps", "web", &json!({}));
    world.apply_policy();
    world.round().await;
    assert!(world.api.take_writes().iter().any(|write| write.contains("events")));
    world.edit(&at("apps", "web"), |repository| {
        repository["metadata"]["generation"] = json!(2);
        repository["spec"]["visibility"] = json!("Public");
    });
    world.round().await;
    assert_eq!(world.reason("apps", "web", "Enforced"), "Updating");
    world.apply_policy();
    world.round().await;
    assert_eq!(world.reason("apps", "web", "Enforced"), "Enforced");
    let writes = world.api.take_writes();
    assert!(writes.iter().all(|write| !write.contains("events")), "{writes:?}");
}

#[tokio::test]
async fn a_path_is_free_again_when_the_older_repository_goes() {
    let mut world = world();
    world.declare("blue", "theirs", &json!({"path": "shared/app"}));
    world.declare("red", "ours", &json!({"path": "shared/app"}));
    world.settle().await;
    let (reason, message) = world.said("red", "ours", "Accepted");
    assert_eq!(reason, "PathTaken");
    assert!(!message.contains("blue") && !message.contains("theirs"), "{message}");
    let repository: Repository = world.read(&at("red", "ours"));
    assert_eq!(repository.status.unwrap().reference, None);
    world.api.remove(&at("blue", "theirs"));
    world.settle().await;
    assert_eq!(world.reason("red", "ours", "Accepted"), "Accepted");
}

#[tokio::test]
async fn a_registry_that_comes_later_has_the_repository_then() {
    let mut world = world();
    let registry = world.api.remove(REGISTRY).unwrap();
    world.declare("apps", "web", &json!({}));
    world.declare("red", "app", &json!({}));
    world.declare("green", "app", &json!({}));
    world.settle().await;
    let before = ["apps", "red"].map(|namespace| {
        world.reason(namespace, if namespace == "apps" { "web" } else { "app" }, "Accepted")
    });
    assert_eq!(before, ["RegistryNotFound", "NotGranted"]);
    let unknown = world.said("green", "app", "Accepted");
    world.api.put(REGISTRY, registry);
    world.settle().await;
    assert_eq!(world.reason("apps", "web", "Accepted"), "Accepted");
    assert_eq!(world.reason("red", "app", "Accepted"), "Accepted");
    // Who is granted nothing sees no difference.
    assert_eq!(world.said("green", "app", "Accepted"), unknown);
}

#[tokio::test]
async fn a_deleted_repository_goes_once_the_policy_has_lost_it() {
    let mut world = world();
    world.declare("apps", "web", &json!({}));
    world.apply_policy();
    world.settle().await;
    let now = Timestamp::now().to_string();
    world.edit(&at("apps", "web"), |repository| repository["metadata"]["deletionTimestamp"] = json!(now));
    world.round().await;
    assert!(world.api.get(&at("apps", "web")).is_some());
    world.apply_policy();
    world.round().await;
    assert!(world.api.get(&at("apps", "web")).is_none());
}

#[tokio::test]
async fn a_deleted_repository_waits_for_no_registry_that_is_gone_stopped_or_somebody_elses() {
    let deleted = |world: &mut World| {
        let now = Timestamp::now().to_string();
        world.declare("red", "app", &json!({"deletionPolicy": "Delete"}));
        world.edit(&at("red", "app"), |repository| repository["metadata"]["deletionTimestamp"] = json!(now));
    };
    let cases: [fn(&mut Value); 3] = [
        |registry| registry["metadata"]["name"] = json!("other"),
        |registry| registry["spec"]["replicas"] = json!(0),
        |registry| registry["spec"]["tenancy"] = json!({}),
    ];
    for change in cases {
        let mut world = world();
        deleted(&mut world);
        world.edit(REGISTRY, change);
        world.round().await;
        assert!(world.api.get(&at("red", "app")).is_none());
    }
    let mut world = world();
    deleted(&mut world);
    world.round().await;
    assert!(world.api.get(&at("red", "app")).is_some());
}

#[tokio::test]
async fn an_operator_that_has_just_started_writes_and_asks_nothing() {
    let mut world = world();
    for number in 0..200 {
        world.api.put(
            &at("red", &format!("app-{number}")),
            json!(testing::repository("red", &format!("app-{number}"), &json!({}))),
        );
    }
    world.watch();
    world.apply_policy();
    world.settle().await;
    let mut restarted = World::over(world.api.clone());
    world.api.take_reads();
    restarted.round().await;
    restarted.round().await;
    assert_eq!((world.api.take_writes(), world.api.take_reads()), (vec![], 0));
    assert_eq!(restarted.reason("red", "app-7", "Ready"), "Ready");
}

#[tokio::test]
async fn a_change_concerns_one_repository_and_one_policy_however_many_there_are() {
    let mut requests = Vec::new();
    for many in [1, 1000] {
        let mut world = world();
        for number in 0..many {
            let name = format!("app-{number}");
            world.api.put(&at("red", &name), json!(testing::repository("red", &name, &json!({}))));
        }
        world.watch();
        let before: GuardedRepository = world.read(&at("red", "app-0"));
        world.edit(&at("red", "app-0"), |repository| repository["metadata"]["generation"] = json!(2));
        let now: GuardedRepository = world.read(&at("red", "app-0"));
        world.context.triggers.repository(&Change::One { before: Some(&before), now: Some(&now) });
        world.context.triggers.repository(&Change::One { before: Some(&now), now: Some(&now) });
        world.repository_refs.close();
        world.policy_refs.close();
        let repositories: Vec<_> = world.repository_refs.by_ref().collect().await;
        let policies: Vec<ObjectRef<Guarded>> = world.policy_refs.by_ref().collect().await;
        assert_eq!(repositories, [ObjectRef::new("app-0").within("red")]);
        assert_eq!(policies, [ObjectRef::new("demo").within("apps")]);

        let registry: Arc<Registry> = Arc::new(world.read(REGISTRY));
        for _ in 0..3 {
            crate::reconcile::reconcile(Arc::clone(&registry), Arc::clone(&world.context)).await.unwrap();
        }
        world.api.take_reads();
        crate::reconcile::reconcile(registry, Arc::clone(&world.context)).await.unwrap();
        requests.push(world.api.take_reads());
    }
    assert_eq!(requests[0], requests[1]);
    assert!(requests[1] < 15, "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn where_the_operator_may_not_see_what_is_delivered_all_else_goes_on() {
    let mut world = world();
    world.api.forbid(Some("/api/v1/serviceaccounts"));
    let (watched, changes) = Watched::start(&world.api.client(), world.context.stores.namespaces.clone());
    let watching = tokio::spawn(changes.for_each(|_| std::future::ready(())));
    Arc::get_mut(&mut world.context).unwrap().watched = watched.clone();
    let with = json!({"pullSecrets": [{"name": "pull"}]});
    world.declare("red", "without", &json!({}));
    world.declare("red", "with", &with);
    let registry: Arc<Registry> = Arc::new(world.read(REGISTRY));
    // Until it is certain that a right is missing, who has a login must not lose it.
    world.apply_policy();
    world.round().await;
    assert_eq!(world.reason("red", "without", "Ready"), "Ready");
    let repository: Repository = world.read(&at("red", "with"));
    assert_eq!(repository.status, None);
    let reconciled = crate::reconcile::reconcile(Arc::clone(&registry), Arc::clone(&world.context)).await;
    assert!(matches!(reconciled, Err(crate::reconcile::Error::Incomplete(_))), "{reconciled:?}");

    while !watched.is_blind() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    crate::reconcile::reconcile(registry, Arc::clone(&world.context)).await.unwrap();
    world.round().await;
    let (reason, message) = world.said("red", "with", "Ready");
    assert_eq!(reason, "NotPermitted");
    assert!(message.contains("serviceaccounts") && message.contains("berth-delivery-watch"), "{message}");
    assert_eq!(world.reason("red", "with", "Enforced"), "Enforced");
    let now = Timestamp::now().to_string();
    world.edit(&at("red", "without"), |repository| repository["metadata"]["deletionTimestamp"] = json!(now));
    world.apply_policy();
    world.round().await;
    assert!(world.api.get(&at("red", "without")).is_none(), "it had no Secrets to take away");
    watching.abort();
}
