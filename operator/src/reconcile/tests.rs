//! Reconciliation against an API server in memory.

use std::sync::Arc;

use crds::{Registry, registry::DeletionPolicy};
use serde_json::{Value, json};

use super::*;
use crate::testing;

const REGISTRY: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/registries/demo";
const SERVICE: &str = "/api/v1/namespaces/apps/services/demo";
const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/apps/statefulsets/demo";
const ADMIN: &str = "/api/v1/namespaces/apps/secrets/demo-admin";
const CLAIM: &str = "/api/v1/namespaces/apps/persistentvolumeclaims/demo-data";

struct World(testing::world::World);

impl std::ops::Deref for World {
    type Target = testing::world::World;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl World {
    fn new() -> Self {
        let world = testing::world::World::empty();
        world.api.put(REGISTRY, serde_json::to_value(testing::registry("demo")).unwrap());
        Self(world)
    }

    fn registry(&self) -> Registry {
        self.read(REGISTRY)
    }

    async fn reconcile(&self) -> Result<Action, Error> {
        reconcile(Arc::new(self.registry()), Arc::clone(&self.context)).await
    }

    /// Until nothing is written any more.
    async fn settle(&self) {
        for _ in 0..5 {
            self.api.take_writes();
            self.reconcile().await.unwrap();
            if self.api.take_writes().is_empty() {
                return;
            }
        }
        panic!("still writing after five reconciliations");
    }

    fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.api.get(path).unwrap();
        edit(&mut object);
        self.api.put(path, object);
    }

    fn ready_reason(&self) -> String {
        self.registry().status.unwrap().conditions[0].reason.clone()
    }

    async fn delete(&self, policy: DeletionPolicy) {
        self.edit(REGISTRY, |registry| {
            registry["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            registry["spec"]["deletionPolicy"] = json!(policy);
        });
        self.reconcile().await.unwrap();
    }
}

#[tokio::test]
async fn a_new_registry_gets_its_objects_and_then_nothing_is_written() {
    let world = World::new();
    world.settle().await;
    insta::assert_snapshot!(world.api.paths().join("\n"));
}

#[tokio::test]
async fn the_objects_are_as_designed() {
    let world = World::new();
    world.settle().await;
    for (name, path) in [("service", SERVICE), ("stateful_set", STATEFUL_SET), ("claim", CLAIM)] {
        insta::assert_yaml_snapshot!(name, world.api.get(path).unwrap());
    }
}

#[tokio::test]
async fn an_edit_is_reverted_and_an_addition_survives() {
    let world = World::new();
    world.settle().await;
    world.edit(SERVICE, |service| {
        service["spec"]["ports"][0]["port"] = json!(1);
        service["metadata"]["labels"]["team"] = json!("blue");
    });
    world.settle().await;
    let service = world.api.get(SERVICE).unwrap();
    assert_eq!(service["spec"]["ports"][0]["port"], 5000);
    assert_eq!(service["metadata"]["labels"]["team"], "blue");
}

#[tokio::test]
async fn a_deleted_service_asks_for_its_former_address() {
    let world = World::new();
    world.settle().await;
    world.edit(REGISTRY, |registry| {
        registry["status"]["clusterIP"] = json!("10.96.0.5");
    });
    world.api.remove(SERVICE);
    world.reconcile().await.unwrap();
    assert_eq!(world.api.get(SERVICE).unwrap()["spec"]["clusterIP"], "10.96.0.5");
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_address_was_taken_gets_another() {
    let world = World::new();
    world.settle().await;
    world.edit(REGISTRY, |registry| {
        registry["status"]["clusterIP"] = json!("10.96.0.5");
    });
    world.api.remove(SERVICE);
    world.api.refuse("10.96.0.5");
    world.reconcile().await.unwrap();
    assert_eq!(world.api.get(SERVICE).unwrap()["spec"]["clusterIP"], "10.96.0.77");
}

#[tokio::test]
async fn a_deleted_secret_comes_back_with_the_same_password() {
    let world = World::new();
    world.settle().await;
    let before = world.api.remove(ADMIN).unwrap();
    world.settle().await;
    assert_eq!(world.api.get(ADMIN).unwrap()["data"], before["data"]);
}

#[tokio::test]
async fn somebody_elses_service_is_left_alone_and_reported_until_it_goes() {
    let world = World::new();
    let foreign =
        json!({"metadata": {"name": "demo", "namespace": "apps"}, "spec": {"clusterIP": "10.96.0.9"}});
    world.api.put(SERVICE, foreign.clone());
    world.settle().await;
    assert_eq!(world.api.get(SERVICE).unwrap(), foreign);
    assert_eq!(world.ready_reason(), "NameTaken");
    world.api.remove(SERVICE);
    world.settle().await;
    assert_eq!(world.ready_reason(), "Starting");
}

#[tokio::test]
async fn a_repositorys_secret_is_left_to_it_and_the_name_is_told() {
    let world = World::new();
    let labels = json!({
        "app.kubernetes.io/managed-by": "berth-operator",
        "berth.dev/repository": "app", "berth.dev/repository-namespace": "apps",
    });
    let copy = json!({
        "metadata": {"name": "demo-admin", "namespace": "apps", "labels": labels},
        "type": "kubernetes.io/dockerconfigjson",
    });
    world.api.put(ADMIN, copy.clone());
    world.settle().await;
    assert_eq!(world.api.get(ADMIN).unwrap(), copy);
    assert_eq!(world.ready_reason(), "NameTaken");
    let message = &world.registry().status.unwrap().conditions[0].message;
    assert_eq!(message, "Secret demo-admin is there for a Repository: give one of the two another name");
    world.api.remove(ADMIN);
    world.settle().await;
    assert_eq!(world.ready_reason(), "Starting");
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told() {
    let world = World::new();
    world.api.refuse("accessModes");
    world.reconcile().await.unwrap();
    assert_eq!(world.ready_reason(), "Refused");
    let message = &world.registry().status.unwrap().conditions[0].message;
    assert!(message.contains("refused PersistentVolumeClaim demo-data"), "{message}");
}

#[tokio::test]
async fn the_volume_stays_or_goes_as_the_policy_says() {
    for (policy, stays) in [(DeletionPolicy::Retain, true), (DeletionPolicy::Delete, false)] {
        let world = World::new();
        world.settle().await;
        world.delete(policy).await;
        assert_eq!(world.api.get(CLAIM).is_some(), stays);
        assert!(world.api.get(REGISTRY).is_none());
    }
}

#[tokio::test]
async fn a_field_that_is_no_longer_wanted_is_noticed() {
    let world = World::new();
    world.edit(REGISTRY, |registry| {
        registry["spec"]["service"] = json!({"annotations": {"a": "b"}});
    });
    world.settle().await;
    world.edit(REGISTRY, |registry| registry["spec"]["service"] = json!({}));
    world.api.take_writes();
    world.reconcile().await.unwrap();
    assert!(world.api.take_writes().contains(&format!("PATCH {SERVICE}")));
}

#[tokio::test]
async fn a_selector_of_tenants_that_can_not_be_read_is_told() {
    let world = World::new();
    world.edit(REGISTRY, |registry| {
        let selector = json!({"matchExpressions": [{"key": "team", "operator": "Like"}]});
        registry["spec"]["tenancy"] = json!({"namespaces": {"selector": selector}});
    });
    world.settle().await;
    assert_eq!(world.ready_reason(), "InvalidSelector");
}
