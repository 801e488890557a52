//! Primaries and replicas in a cluster in memory.

use std::sync::Arc;

use channel::policy::Visibility;
use serde_json::{Value, json};

use super::*;
use crate::testing::{self, world::World};

const API: &str = "/apis/berth.dev/v1alpha1/namespaces";
const DEMO: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/registries/demo";
const OTHER: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/registries/other";
const FAR: &str = "/apis/berth.dev/v1alpha1/namespaces/far/registries/far";

/// A Registry that serves, with these fields besides.
fn serving(namespace: &str, name: &str, spec: &Value) -> Value {
    let mut object = json!(testing::registry(name));
    object["metadata"]["namespace"] = json!(namespace);
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let condition = json!({
        "type": "Available", "status": "True", "reason": "Serving", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    object["status"] = json!({"conditions": [condition], "clusterIP": "10.96.0.9"});
    object
}

fn falling_back_on(all: &[Value]) -> Value {
    let all: Vec<_> = all.iter().map(|reference| json!({"registryRef": reference})).collect();
    json!({ "fallbacks": all })
}

/// `apps/demo` falls back on `apps/other`, and has a Repository `apps/web` and one for the cluster.
fn world() -> World {
    let mut world = World::empty();
    world.api.put(DEMO, serving("apps", "demo", &falling_back_on(&[json!({"name": "other"})])));
    world.api.put(OTHER, serving("apps", "other", &json!({})));
    for (name, spec) in [("web", json!({})), ("base", json!({"visibility": "Cluster"}))] {
        let repository = testing::repository("apps", name, &spec);
        world.api.put(&format!("{API}/apps/repositories/{name}"), json!(repository));
    }
    world.watch();
    world
}

/// What is said of the fallbacks of `apps/demo`.
fn said(world: &World) -> (String, Vec<String>) {
    let standing = standing(&world.context, &world.read(DEMO)).unwrap();
    (standing.answer.unwrap().reason.into_owned(), standing.endpoints)
}

/// Paths that are open at a replica because of each primary.
fn open(world: &World, replica: &str) -> Vec<(String, Vec<String>)> {
    let primaries = primaries(&world.context, &world.read(replica)).unwrap();
    let open = |primary: policy::Primary| {
        let open = primary.repositories.into_iter().filter(|it| !it.readers.is_empty());
        (primary.name, open.map(|readable| readable.path).collect())
    };
    primaries.into_iter().map(open).collect()
}

fn one(reason: &str, endpoint: &str) -> (String, Vec<String>) {
    (reason.to_owned(), vec![endpoint.to_owned()])
}

#[tokio::test]
async fn a_replica_beside_it_stands_in_for_all_that_it_has() {
    let world = world();
    assert_eq!(said(&world), one("StandingIn", "other.apps.svc:5000"));
    let all = vec!["apps/base".to_owned(), "apps/web".to_owned()];
    assert_eq!(open(&world, OTHER), [("apps/demo".to_owned(), all)]);
    let primary = primaries(&world.context, &world.read(OTHER)).unwrap().remove(0);
    assert_eq!(primary.repositories[0].visibility, Visibility::Cluster);
    assert_eq!(primary.logins[0].username, "reader");
    assert_eq!(primary.logins[0].role, None);
    // Not the other way round.
    assert_eq!(open(&world, DEMO), []);
    assert!(standing(&world.context, &world.read(OTHER)).unwrap().answer.is_none());
}

#[tokio::test]
async fn what_is_missing_is_said_and_heals() {
    let mut world = world();
    let other = world.api.remove(OTHER).unwrap();
    world.watch();
    assert_eq!(said(&world), ("RegistryNotFound".to_owned(), vec![]));
    world.api.put(OTHER, other);
    world.edit(OTHER, |other| other["status"]["conditions"][0]["status"] = json!("False"));
    assert_eq!(said(&world), ("FallbackDown".to_owned(), vec![]));
    world.edit(OTHER, |other| other["spec"]["nodeAccess"] = json!({"enabled": false}));
    assert_eq!(said(&world), ("NoNodeAccess".to_owned(), vec![]));
    assert_eq!(open(&world, OTHER), []);
    world.edit(OTHER, |other| *other = serving("apps", "other", &json!({})));
    assert_eq!(said(&world), one("StandingIn", "other.apps.svc:5000"));
    let itself = falling_back_on(&[json!({"name": "demo", "namespace": "apps"})]);
    world.edit(DEMO, |demo| *demo = serving("apps", "demo", &itself));
    assert_eq!(said(&world), ("Itself".to_owned(), vec![]));
    assert_eq!(open(&world, DEMO), []);
}

#[tokio::test]
async fn one_of_another_namespace_agrees_by_its_tenancy_or_looks_like_none() {
    let mut world = world();
    let far = falling_back_on(&[json!({"name": "far", "namespace": "far"})]);
    world.edit(DEMO, |demo| *demo = serving("apps", "demo", &far));
    let message = |world: &World| standing(&world.context, &world.read(DEMO)).unwrap().answer.unwrap();
    let none = message(&world);
    assert_eq!(none.reason, "NotGranted");
    world.api.put(FAR, serving("far", "far", &json!({})));
    world.watch();
    assert_eq!(message(&world), none);
    assert_eq!(open(&world, FAR), []);
    world.edit(FAR, |far| far["spec"]["tenancy"] = json!({"namespaces": {"names": ["apps"]}}));
    assert_eq!(said(&world), one("StandingIn", "far.far.svc:5000"));
    assert_eq!(open(&world, FAR)[0].1, ["apps/base", "apps/web"]);
    // Only what that namespace could declare there.
    let outside = testing::repository("apps", "outside", &json!({"path": "team/app"}));
    world.api.put(&format!("{API}/apps/repositories/outside"), json!(outside));
    world.watch();
    assert_eq!(said(&world), one("PathsNotGranted", "far.far.svc:5000"));
    assert_eq!(open(&world, FAR)[0].1, ["apps/base", "apps/web"]);
    world.edit(FAR, |far| far["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    assert_eq!(message(&world), none);
}

#[tokio::test]
async fn one_outside_of_the_cluster_serves_what_is_public_where_its_host_is_granted() {
    let mut world = world();
    let both = json!({"fallbacks": [
        {"endpoint": {"url": "https://eu.example.com"}},
        {"registryRef": {"name": "other"}},
    ]});
    world.edit(DEMO, |demo| *demo = serving("apps", "demo", &both));
    assert_eq!(said(&world), one("HostNotGranted", "other.apps.svc:5000"));
    Arc::get_mut(&mut world.context).unwrap().config.fallback_hosts = vec!["eu.example.com".into()];
    let standing = standing(&world.context, &world.read(DEMO)).unwrap();
    assert_eq!(standing.endpoints, ["eu.example.com:443", "other.apps.svc:5000"]);
    let answer = standing.answer.unwrap();
    assert!(answer.yes && answer.message.contains("at eu.example.com:443, only what is Public"));
}

#[tokio::test]
async fn a_primary_that_goes_or_turns_elsewhere_opens_nothing_any_more() {
    let mut world = world();
    world.edit(DEMO, |demo| demo["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    assert_eq!(open(&world, OTHER), []);
    world.edit(DEMO, |demo| *demo = serving("apps", "demo", &json!({})));
    assert_eq!(open(&world, OTHER), []);
}

#[test]
fn those_that_come_first_have_room_before_others() {
    let guest = |name: &str| Guest {
        uid: None,
        policy: policy::Primary { name: name.into(), ..policy::Primary::default() },
        untaken: Vec::new(),
        fits: false,
    };
    let fitting = |room: usize| {
        let mut guests = [guest("a"), guest(&"b".repeat(100)), guest("c")];
        admit(&mut guests, room);
        guests.map(|guest| guest.fits)
    };
    assert_eq!(fitting(ROOM), [true; 3]);
    assert_eq!(fitting(100), [true, false, true]);
    assert_eq!(fitting(10), [false; 3]);
}

#[tokio::test]
async fn the_status_says_which_stand_in() {
    let world = world();
    for _ in 0..4 {
        world.api.take_writes();
        let demo: Registry = world.read(DEMO);
        crate::reconcile::reconcile(Arc::new(demo), Arc::clone(&world.context)).await.unwrap();
    }
    assert!(world.api.take_writes().is_empty(), "an unchanged world is written to");
    let status = world.api.get(DEMO).unwrap()["status"].clone();
    assert_eq!(status["fallbacks"], json!(["other.apps.svc:5000"]));
    let conditions = status["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|condition| condition["type"] == "FallbacksReady").unwrap();
    assert_eq!(ready["status"], "True");
    assert_eq!(ready["observedGeneration"], 1);
}
