//! What registries are told of Repositories that can't be enforced, and of logins.

use channel::policy::{Policy, Role};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{desired::policy::policy, keys::Keys, testing};

/// Of namespace `apps`, the older ones first.
fn repositories(all: &[(&str, Value)]) -> Vec<Repository> {
    let aged = |((name, spec), second): (&(&str, Value), i64)| {
        let mut repository = testing::repository("apps", name, spec);
        let at = k8s_openapi::jiff::Timestamp::from_second(second).unwrap();
        repository.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
        repository
    };
    all.iter().zip(0..).map(aged).collect()
}

/// The policy of `demo`, whose Repositories' Secrets open this.
fn made(all: &[Repository], logins: impl Fn(&Repository) -> Logins) -> Policy {
    let registry = testing::registry("demo");
    let tenants = Tenants::new(&registry, all.iter().collect(), &|_| None);
    let decided = decide(&tenants, |repository| Ok::<_, ()>(logins(repository))).unwrap();
    let told: Vec<_> = decided.into_iter().map(|decided| decided.told.into()).collect();
    let key = Keys::new(&[7; 32]).unwrap().of(&registry);
    policy(&registry, &key, policy::Htpasswd::default(), &told, "nodes")
}

#[rstest]
#[case::too_small("1m")]
#[case::no_number("lots")]
fn a_quota_that_can_not_be_read_shuts_the_path_and_opens_nothing(#[case] quota: &str) {
    let access = json!([{"user": "ann", "role": "Admin"}]);
    let all = repositories(&[
        ("all", json!({"path": "team/*", "visibility": "Public", "access": access})),
        ("secret", json!({"path": "team/secret", "access": access, "quota": quota})),
    ]);
    let policy = made(&all, |_| Vec::new());
    let shut = policy::Repository { path: "team/secret".into(), ..policy::Repository::default() };
    assert_eq!(policy.repositories[1], shut);
    assert_eq!(policy.repositories[0].path, "team/*");
}

/// As many namespaces as receive a Secret, at most so many.
fn delivered(repository: &Repository, count: usize) -> Logins {
    let login = |number: usize| {
        let username =
            format!("pull.apps.{}.{}.{number}", repository.metadata.name.as_deref().unwrap(), "n".repeat(60));
        let secrets = vec![SecretHash::of(b"1"); 6];
        DeliveredLogin {
            login: Login { username, secrets, ends: Vec::new(), role: None },
            role: Role::Reader,
            announced: None,
        }
    };
    (0..count).map(login).collect()
}

#[test]
fn what_secrets_really_open_has_no_more_room_than_a_policy_has() {
    let secret = json!([{"name": "pull", "namespaces": {"selector": {}}}]);
    let all = repositories(&[
        ("old", json!({})),
        ("large", json!({"path": "team/secret", "pullSecrets": secret})),
        ("all", json!({"path": "team/*", "visibility": "Public"})),
        ("larger", json!({"pullSecrets": secret})),
    ]);
    let policy = made(&all, |repository| {
        let receiving = if repository.spec.pull_secrets.is_empty() { 1 } else { 5000 };
        delivered(repository, receiving)
    });
    assert!(serde_json::to_vec(&policy).unwrap().len() < 4 << 20);
    let shut = |path: &str| policy::Repository { path: path.into(), ..policy::Repository::default() };
    for path in ["team/secret", "apps/larger"] {
        assert!(policy.repositories.contains(&shut(path)), "{path}");
    }
    // The younger one that is small has room, and does not decide for what is shut.
    let open = |path: &str| policy.repositories.iter().find(|rule| rule.path == path).unwrap().access.len();
    assert_eq!((open("apps/old"), open("team/*")), (1, 1));
    assert_eq!(policy.logins.len(), 4);
}

#[test]
fn only_a_password_that_nobody_uses_yet_may_be_unknown() {
    let [former, current, next] = [b"1", b"2", b"3"].map(|password| SecretHash::of(password));
    let logins = |secrets: &[SecretHash], announced| {
        let login =
            Login { username: "pull".into(), secrets: secrets.to_vec(), ends: Vec::new(), role: None };
        vec![DeliveredLogin { login, role: policy::Role::Reader, announced }]
    };
    let repository = testing::repository("apps", "web", &json!({}));
    let before = Told::of(&repository, &logins(&[former, current], None));
    let announced = Told::of(&repository, &logins(&[former, current, next], Some(next)));
    for wanted in [logins(&[former, current], None), logins(&[former, current, next], Some(next))] {
        assert!(before.is_of(&repository, &wanted));
    }
    assert!(announced.is_of(&repository, &logins(&[former, current, next], Some(next))));
    assert!(announced.opens("pull", &next) && !before.opens("pull", &next));
    assert!(!announced.opens("push", &next));
    let swapped = logins(&[former, current, next], None);
    assert!(announced.is_of(&repository, &swapped) && !before.is_of(&repository, &swapped));
    // What is over has to be shut.
    assert!(!before.is_of(&repository, &logins(&[current], None)));
    assert!(!before.is_of(&repository, &Vec::new()));
}
