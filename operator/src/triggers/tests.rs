//! Whom which change concerns.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::testing::{self, world::World};

const API: &str = "/apis/berth.dev/v1alpha1/namespaces";

/// `apps/demo`, with Repositories of `apps` and `red`; two of them declare the same path.
fn world() -> World {
    let mut world = World::empty();
    world.api.put(&format!("{API}/apps/registries/demo"), json!(testing::registry("demo")));
    for (namespace, name, path) in [("apps", "a", "x"), ("apps", "b", "y"), ("red", "c", "x")] {
        let repository = testing::repository(namespace, name, &json!({ "path": path }));
        world.api.put(&format!("{API}/{namespace}/repositories/{name}"), json!(repository));
    }
    world.watch();
    world
}

/// Repositories and Registries to look at, by name.
fn concerned(world: &mut World) -> (Vec<String>, Vec<String>) {
    let mut repositories: Vec<_> =
        std::iter::from_fn(|| world.repository_refs.try_recv().ok()).map(|r| r.name).collect();
    repositories.sort();
    let registries = std::iter::from_fn(|| world.policy_refs.try_recv().ok()).map(|r| r.name).collect();
    (repositories, registries)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_repository_that_goes_concerns_who_declares_its_path_and_the_policy() {
    let mut world = world();
    let before: GuardedRepository = world.read(&format!("{API}/red/repositories/c"));
    let mut now = testing::repository("red", "c", &json!({"path": "x"}));
    now.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
    let now = kube::core::DeserializeGuard(Ok(now));
    world.context.triggers.repository(&Change::One { before: Some(&before), now: Some(&now) });
    assert_eq!(concerned(&mut world), (names(&["a", "c"]), names(&["demo"])));
    world.context.triggers.repository(&Change::One { before: Some(&now), now: None });
    assert_eq!(concerned(&mut world), (names(&["a", "c"]), names(&["demo"])));
}

#[tokio::test]
async fn a_repositorys_status_concerns_others_only_where_it_says_who_has_the_path() {
    let mut world = world();
    let path = format!("{API}/red/repositories/c");
    let mut status = |accepted: &str, message: &str| -> GuardedRepository {
        let condition = json!({
            "type": "Accepted", "status": accepted, "reason": "A", "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        world.edit(&path, |repository| repository["status"] = json!({"conditions": [condition]}));
        world.read(&path)
    };
    let [refused, had, has] = [status("False", ""), status("True", "a"), status("True", "b")];
    let mut told = |before, now| {
        world.context.triggers.repository(&Change::One { before: Some(before), now: Some(now) });
        concerned(&mut world)
    };
    assert_eq!(told(&refused, &had), (names(&["a", "c"]), names(&["demo"])));
    assert_eq!(told(&had, &has), (vec![], vec![]));
}

#[tokio::test]
async fn a_registry_concerns_its_repositories_but_not_by_its_status() {
    let mut world = world();
    let path = format!("{API}/apps/registries/demo");
    let before: Guarded = world.read(&path);
    world.context.triggers.registry(&Change::One { before: None, now: Some(&before) });
    assert_eq!(concerned(&mut world), (names(&["a", "b", "c"]), vec![]));
    world.edit(&path, |registry| registry["status"] = json!({"policyRevision": "1"}));
    let now: Guarded = world.read(&path);
    world.context.triggers.registry(&Change::One { before: Some(&before), now: Some(&now) });
    assert_eq!(concerned(&mut world), (vec![], vec![]));
}

#[tokio::test]
async fn a_namespaces_labels_concern_its_repositories_in_other_namespaces_registries() {
    let mut world = world();
    let namespace = |labels: &Value, annotation: &str| -> PartialObjectMeta<Namespace> {
        let metadata = json!({"name": "red", "labels": labels, "annotations": {"a": annotation}});
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    };
    let (before, same) = (namespace(&json!({}), "1"), namespace(&json!({}), "2"));
    world
        .context
        .triggers
        .namespace(&world.context.watched, &Change::One { before: Some(&before), now: Some(&same) });
    assert_eq!(concerned(&mut world), (vec![], vec![]));
    let now = namespace(&json!({"team": "blue"}), "2");
    world
        .context
        .triggers
        .namespace(&world.context.watched, &Change::One { before: Some(&same), now: Some(&now) });
    assert_eq!(concerned(&mut world), (names(&["c"]), names(&["demo"])));
}

/// `apps/demo` falls back on `apps/other`.
fn with_fallback() -> World {
    let mut world = world();
    world.api.put(&format!("{API}/apps/registries/other"), json!(testing::registry("other")));
    let fallbacks = json!([{"registryRef": {"name": "other"}}]);
    world.edit(&format!("{API}/apps/registries/demo"), |demo| demo["spec"]["fallbacks"] = fallbacks);
    world
}

#[tokio::test]
async fn what_changes_a_primarys_policy_concerns_its_fallbacks_and_the_other_way_round() {
    let mut world = with_fallback();
    let repository: GuardedRepository = world.read(&format!("{API}/red/repositories/c"));
    let change = Change::One { before: None, now: Some(&repository) };
    world.context.triggers.repository(&change);
    assert_eq!(concerned(&mut world).1, names(&["other", "demo"]));
    let spec = json!({"registryRef": {"name": "other", "namespace": "apps"}});
    let there = kube::core::DeserializeGuard(Ok(testing::repository("red", "d", &spec)));
    world.context.triggers.repository(&Change::One { before: None, now: Some(&there) });
    assert_eq!(concerned(&mut world).1, names(&["demo", "other"]));
}

#[tokio::test]
async fn a_registry_concerns_those_that_it_names_or_named_and_those_that_name_it() {
    let mut world = with_fallback();
    let [demo, other] = ["demo", "other"].map(|name| format!("{API}/apps/registries/{name}"));
    let mut told = |path: &str, edit: &dyn Fn(&mut Value)| {
        let before: Guarded = world.read(path);
        world.edit(path, edit);
        let now: Guarded = world.read(path);
        world.context.triggers.registry(&Change::One { before: Some(&before), now: Some(&now) });
        concerned(&mut world).1
    };
    assert_eq!(told(&other, &|other| other["status"]["clusterIP"] = json!("10.0.0.1")), names(&["demo"]));
    assert_eq!(told(&other, &|other| other["status"]["policyRevision"] = json!("1")), names(&[]));
    assert_eq!(told(&other, &|other| other["metadata"]["generation"] = json!(2)), names(&["demo"]));
    let unnamed = told(&demo, &|demo| {
        demo["spec"]["fallbacks"] = json!([]);
        demo["metadata"]["generation"] = json!(2);
    });
    assert_eq!(unnamed, names(&["other"]));
}

#[tokio::test]
async fn after_a_watch_of_what_is_delivered_began_anew_who_has_secrets_is_looked_at() {
    let mut world = world();
    let spec = json!({"path": "z", "pullSecrets": [{"name": "pull"}]});
    let repository = testing::repository("red", "d", &spec);
    world.api.put(&format!("{API}/red/repositories/d"), json!(repository));
    world.watch();
    world.context.triggers.delivery(&world.context.watched, &delivery::Change::Anything);
    assert_eq!(concerned(&mut world), (names(&["d"]), names(&["demo"])));
}

#[tokio::test]
async fn after_a_watch_began_anew_everything_is_looked_at() {
    let mut world = world();
    world.context.triggers.namespace(&world.context.watched, &Change::Anything);
    assert_eq!(concerned(&mut world), (names(&["a", "b", "c"]), names(&["demo"])));
}
