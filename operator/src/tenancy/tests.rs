//! Which Repository a Registry takes, and what is said to others.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::testing;

fn registry(tenancy: &Value) -> Registry {
    let mut registry = testing::registry("demo");
    registry.spec.tenancy = serde_json::from_value(tenancy.clone()).unwrap();
    registry
}

fn labels(namespace: &str) -> Option<Labels> {
    let blue = || [("team".to_owned(), "blue".to_owned())].into();
    (namespace != "gone").then(|| if namespace == "blue" { blue() } else { Labels::new() })
}

fn repository(namespace: &str, path: &str) -> Repository {
    testing::repository(namespace, "app", &json!({ "path": path }))
}

/// Made so many seconds after the Unix epoch.
fn aged(namespace: &str, path: &str, second: i64) -> Repository {
    let mut repository = repository(namespace, path);
    let at = k8s_openapi::jiff::Timestamp::from_second(second).unwrap();
    repository.metadata.creation_timestamp = Some(Time(at));
    repository
}

fn verdict(tenancy: &Value, repository: &Repository, others: &[&Repository]) -> Answer {
    let registry = registry(tenancy);
    Tenants::new(&registry, others.to_vec(), &labels).verdict(repository)
}

fn paths(tenancy: &Value, repositories: &[&Repository]) -> Vec<String> {
    let registry = registry(tenancy);
    let tenants = Tenants::new(&registry, repositories.to_vec(), &labels);
    let name =
        |repository: &&Repository| format!("{}:{}", repository.namespace().unwrap(), repository.path());
    tenants.accepted().iter().map(name).collect()
}

#[rstest]
#[case::own_namespace_any_path(json!({}), "apps", "x/y", "Accepted")]
#[case::own_namespace_when_others_are_named(json!({"namespaces": {"names": ["red"]}}), "apps", "x", "Accepted")]
#[case::nobody_else_by_default(json!({}), "red", "red/x", "NotGranted")]
#[case::by_name(json!({"namespaces": {"names": ["red"]}}), "red", "red/x", "Accepted")]
#[case::another_than_named(json!({"namespaces": {"names": ["red"]}}), "blue", "blue/x", "NotGranted")]
#[case::by_label(json!({"namespaces": {"selector": {"matchLabels": {"team": "blue"}}}}), "blue", "blue/x", "Accepted")]
#[case::without_label(json!({"namespaces": {"selector": {"matchLabels": {"team": "blue"}}}}), "red", "red/x", "NotGranted")]
#[case::by_expression(
    json!({"namespaces": {"selector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}}),
    "blue", "blue/x", "Accepted"
)]
#[case::by_either(
    json!({"namespaces": {"names": ["red"], "selector": {"matchLabels": {"team": "blue"}}}}), "red", "red/x", "Accepted"
)]
#[case::all(json!({"namespaces": {"selector": {}}}), "red", "red/x", "Accepted")]
#[case::all_that_there_are(json!({"namespaces": {"selector": {}}}), "gone", "gone/x", "NotGranted")]
#[case::unreadable_selector(
    json!({"namespaces": {"selector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}}),
    "blue", "blue/x", "NotGranted"
)]
#[case::everything_below_the_own_path(json!({"namespaces": {"names": ["red"]}}), "red", "red/*", "Accepted")]
#[case::path_of_another(json!({"namespaces": {"names": ["red"]}}), "red", "blue/x", "PathNotGranted")]
#[case::path_that_only_begins_alike(json!({"namespaces": {"names": ["red"]}}), "red", "reddish/x", "PathNotGranted")]
#[case::the_namespace_itself(json!({"namespaces": {"names": ["red"]}}), "red", "red", "PathNotGranted")]
#[case::any_path(json!({"namespaces": {"names": ["red"]}, "paths": "Any"}), "red", "blue/x", "Accepted")]
fn tenancy_decides(
    #[case] tenancy: Value,
    #[case] namespace: &str,
    #[case] path: &str,
    #[case] expected: &str,
) {
    let repository = repository(namespace, path);
    let answer = verdict(&tenancy, &repository, &[&repository]);
    assert_eq!(answer.reason, expected, "{}", answer.message);
    assert_eq!(answer.yes, expected == "Accepted");
}

#[test]
fn the_oldest_that_is_granted_has_the_path() {
    let any = json!({"namespaces": {"names": ["red", "blue"]}, "paths": "Any"});
    let (old, young) = (aged("red", "x", 1), aged("blue", "x", 2));
    let stranger = aged("green", "x", 0);
    let all = [&young, &stranger, &old];
    assert_eq!(verdict(&any, &old, &all).reason, "Accepted");
    assert_eq!(verdict(&any, &young, &all).reason, "PathTaken");
    assert_eq!(verdict(&any, &young, &[&young, &stranger]).reason, "Accepted");
    assert_eq!(paths(&any, &all), ["red:x"]);
}

#[test]
fn of_the_same_age_namespace_and_name_decide() {
    let any = json!({"namespaces": {"selector": {}}, "paths": "Any"});
    let (first, second) = (aged("blue", "x", 1), aged("red", "x", 1));
    assert_eq!(paths(&any, &[&second, &first]), ["blue:x"]);
    assert_eq!(verdict(&any, &second, &[&first, &second]).reason, "PathTaken");
}

/// As it is once it was told so.
fn told(mut repository: Repository, reason: &'static str) -> Repository {
    let answer = Answer { yes: reason == "Accepted", reason: reason.into(), message: String::new() };
    let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    let conditions = vec![crate::conditions::condition("Accepted", &answer, Some(1), &[], now)];
    repository.status = Some(crds::RepositoryStatus { conditions, ..Default::default() });
    repository
}

#[rstest]
#[case::has_it("Accepted", "red:x")]
#[case::has_it_with_a_mistake("InvalidQuota", "red:x")]
#[case::was_granted_nothing_so_far("NotGranted", "blue:x")]
#[case::lost_it("PathTaken", "blue:x")]
fn who_was_told_to_have_a_path_keeps_it(#[case] reason: &'static str, #[case] expected: &str) {
    let any = json!({"namespaces": {"selector": {}}, "paths": "Any"});
    let (holder, older) = (told(aged("red", "x", 2), reason), aged("blue", "x", 1));
    for all in [[&holder, &older], [&older, &holder]] {
        assert_eq!(paths(&any, &all), [expected]);
        let refused = if expected == "red:x" { &older } else { &holder };
        assert_eq!(verdict(&any, refused, &all).reason, "PathTaken");
    }
    // Two that were told so at the same time: the older one.
    let both = [&holder, &told(older, "Accepted")];
    assert_eq!(paths(&any, &both), ["blue:x"]);
}

#[test]
fn who_took_a_path_is_told_to_the_same_namespace_only() {
    let any = json!({"namespaces": {"selector": {}}, "paths": "Any"});
    let mut older = aged("green", "x", 1);
    older.metadata.name = Some("secret-project".into());
    let said = |namespace| verdict(&any, &aged(namespace, "x", 2), &[&older]).message;
    assert!(said("green").contains("secret-project"));
    assert!(!said("blue").contains("secret-project") && !said("blue").contains("green"), "{}", said("blue"));
}

#[test]
fn a_registry_that_grants_nothing_looks_like_none() {
    let repository = repository("red", "red/x");
    assert_eq!(verdict(&json!({}), &repository, &[]), no_such_registry(&repository));
    assert_eq!(no_such_registry(&self::repository("apps", "x")).reason, "RegistryNotFound");
}

#[rstest]
#[case::going(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), "Accepted")]
#[case::without_a_valid_quota(json!({"spec": {"quota": "1m"}}), "InvalidQuota")]
fn what_can_not_be_enforced_now_keeps_its_path(#[case] fields: Value, #[case] expected: &str) {
    let mut older = serde_json::to_value(aged("apps", "x", 1)).unwrap();
    for part in ["metadata", "spec"] {
        let fields = fields.get(part).and_then(Value::as_object).cloned().unwrap_or_default();
        older[part].as_object_mut().unwrap().extend(fields);
    }
    let older = serde_json::from_value(older).unwrap();
    let mut younger = aged("apps", "x", 2);
    younger.metadata.name = Some("younger".into());
    let all = [&older, &younger];
    assert_eq!(verdict(&json!({}), &older, &all).reason, expected);
    assert_eq!(verdict(&json!({}), &younger, &all).reason, "PathTaken");
    assert_eq!(paths(&json!({}), &all), Vec::<String>::new());
    let registry = testing::registry("demo");
    let tenants = Tenants::new(&registry, all.to_vec(), &labels);
    assert!(tenants.holds_its_path(&older) && !tenants.holds_its_path(&younger));
}

#[test]
fn the_policy_is_in_the_order_of_paths() {
    let repositories = [repository("apps", "b"), repository("apps", "a/*"), repository("apps", "a")];
    assert_eq!(paths(&json!({}), &repositories.each_ref()), ["apps:a", "apps:a/*", "apps:b"]);
}
