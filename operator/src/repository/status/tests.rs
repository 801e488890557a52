//! What is said of a Repository in which situation.

use channel::policy::{Login, Role, SecretHash};
use crds::RegistryStatus;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{
    desired::{policy::DeliveredLogin, told::decide},
    tenancy::Tenants,
    testing,
};

/// Accepted by a Registry whose replicas were heard at some time.
fn accepted() -> Observed {
    let mut registry = testing::registry("demo");
    registry.status = Some(RegistryStatus { policy_revision: Some("1".into()), ..RegistryStatus::default() });
    Observed {
        accepted: Answer::yes("Accepted", ""),
        registry: Some(registry),
        told: Heard::Nothing,
        usage: Heard::Nothing,
        logins: Vec::new(),
        secrets: Vec::new(),
        refused: Vec::new(),
    }
}

/// With a status that said this of `Enforced` when the generation was that.
fn formerly(status: &str, reason: &str, generation: i64) -> Repository {
    let mut repository = testing::repository("apps", "web", &json!({}));
    let enforced = json!({
        "type": "Enforced", "status": status, "reason": reason, "message": "", "observedGeneration": generation,
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    });
    repository.status = serde_json::from_value(json!({ "conditions": [enforced] })).unwrap();
    repository
}

fn another_rule() -> Heard<Arc<Told>> {
    let other = testing::repository("apps", "web", &json!({"visibility": "Public"}));
    Heard::This(Arc::new(Told::of(&other, &Vec::new())))
}

#[rstest]
#[case::never_heard(formerly("False", "Pending", 1), Heard::Nothing, "Pending")]
#[case::heard_by_an_earlier_operator(formerly("True", "Enforced", 1), Heard::Nothing, "Enforced")]
#[case::changed_meanwhile(formerly("True", "Enforced", 0), Heard::Nothing, "Updating")]
#[case::not_there_yet(formerly("False", "Pending", 1), Heard::NotOfIt, "Pending")]
#[case::lost(formerly("True", "Enforced", 1), Heard::NotOfIt, "Updating")]
#[case::changed(formerly("True", "Enforced", 1), another_rule(), "Updating")]
#[case::still_changing(formerly("False", "Updating", 1), another_rule(), "Updating")]
fn tells_whether_replicas_decide_by_it(
    #[case] repository: Repository,
    #[case] told: Heard<Arc<Told>>,
    #[case] expected: &str,
) {
    let status = status(&repository, &Observed { told, ..accepted() }, Timestamp::now());
    assert_eq!(find(&status.conditions, "Enforced").unwrap().reason, expected);
}

#[test]
fn what_an_earlier_operator_saw_of_a_registry_that_was_lost_does_not_hold() {
    let mut observed = accepted();
    observed.registry = Some(testing::registry("demo"));
    let status = status(&formerly("True", "Enforced", 1), &observed, Timestamp::now());
    assert_eq!(find(&status.conditions, "Enforced").unwrap().status, "False");
}

#[test]
fn a_stopped_registry_is_said_before_what_follows_from_it() {
    for told in [Heard::Nothing, Heard::NotOfIt] {
        let mut observed = Observed { told, ..accepted() };
        observed.registry.as_mut().unwrap().spec.replicas = 0;
        let status = status(&formerly("True", "Enforced", 1), &observed, Timestamp::now());
        let ready = find(&status.conditions, "Ready").unwrap();
        let sentence = "Registry demo of namespace apps is stopped: set its spec.replicas to 1";
        assert_eq!((&*ready.status, &*ready.reason, &*ready.message), ("False", "RegistryStopped", sentence));
    }
}

fn secret(problems: &Value) -> SecretStatus {
    serde_json::from_value(json!({"name": "pull", "namespaces": 1, "problems": problems})).unwrap()
}

#[rstest]
#[case::not_made(vec![], "Pending", "Pending")]
#[case::refused(vec![secret(&json!({"blue": "it does not agree"}))], "SecretsFailing", "SecretsFailing")]
#[case::there(vec![secret(&json!({}))], "Delivered", "Ready")]
fn declared_secrets_have_to_be_there(
    #[case] secrets: Vec<SecretStatus>,
    #[case] expected: &str,
    #[case] ready: &str,
) {
    let repository = testing::repository("apps", "web", &json!({"pullSecrets": [{"name": "pull"}]}));
    let told = Heard::This(Arc::new(Told::of(&repository, &Vec::new())));
    let observed = Observed { told, secrets, ..accepted() };
    let status = status(&repository, &observed, Timestamp::now());
    assert_eq!(find(&status.conditions, "SecretsReady").unwrap().reason, expected);
    assert_eq!(find(&status.conditions, "Ready").unwrap().reason, ready);
}

#[test]
fn secrets_are_ready_when_replicas_know_what_opens_them() {
    let repository = testing::repository("apps", "web", &json!({"pullSecrets": [{"name": "pull"}]}));
    let logins = |passwords: &[&str]| {
        let secrets = passwords.iter().map(|password| SecretHash::of(password.as_bytes())).collect();
        let login = Login { username: "pull".into(), secrets, ends: Vec::new(), role: None };
        vec![DeliveredLogin { login, role: Role::Reader, announced: None }]
    };
    let told = |logins: &Logins| Heard::This(Arc::new(Told::of(&repository, logins)));
    let cases = [
        (told(&logins(&["1"])), "Delivered", "Ready"),
        (told(&Vec::new()), "Pending", "Pending"),
        (told(&logins(&["leaked"])), "Pending", "Pending"),
        (told(&logins(&["leaked", "1"])), "Pending", "Pending"),
        (Heard::NotOfIt, "Pending", "Pending"),
        (Heard::Nothing, "Pending", "Pending"),
    ];
    for (told, expected, ready) in cases {
        let observed =
            Observed { told, logins: logins(&["1"]), secrets: vec![secret(&json!({}))], ..accepted() };
        let status = status(&repository, &observed, Timestamp::now());
        assert_eq!(find(&status.conditions, "SecretsReady").unwrap().reason, expected);
        assert_eq!(find(&status.conditions, "Ready").unwrap().reason, ready);
    }
}

#[test]
fn what_a_path_holds_is_told_to_whom_it_belongs_and_kept_until_heard_anew() {
    let mut repository = testing::repository("apps", "web", &json!({}));
    let push = channel::usage::LastPush {
        time: "2026-01-01T00:00:00Z".into(),
        tag: Some("1".into()),
        digest: "sha256:0".into(),
    };
    let usage = PathUsage { path: "apps/web".into(), tags: 3, bytes: 1_299_227_607, last_push: Some(push) };
    let now = Timestamp::now();
    let heard = status(&repository, &Observed { usage: Heard::This(usage.clone()), ..accepted() }, now);
    assert_eq!(
        (heard.tags, heard.bytes, heard.size.as_deref()),
        (Some(3), Some(1_299_227_607), Some("1.2Gi"))
    );
    assert_eq!(heard.last_push.as_ref().unwrap().tag.as_deref(), Some("1"));

    repository.status = Some(heard.clone());
    let after_restart = status(&repository, &accepted(), now);
    assert_eq!((after_restart.tags, &after_restart.last_push), (heard.tags, &heard.last_push));

    let refused = Observed {
        accepted: Answer::no("PathTaken", ""),
        registry: None,
        usage: Heard::This(usage),
        ..accepted()
    };
    let refused = status(&repository, &refused, now);
    assert_eq!((refused.tags, refused.size, refused.last_push, refused.reference), (None, None, None, None));
}

#[test]
fn one_that_there_is_no_room_for_is_told_so_and_again_by_the_next_operator() {
    let all = ["a", "b"].map(|name| {
        let access: Vec<_> = (0..64).map(|_| json!({"user": "x".repeat(20_000), "role": "Reader"})).collect();
        testing::repository("apps", name, &json!({ "access": access }))
    });
    let registry = testing::registry("demo");
    let tenants = Tenants::new(&registry, all.iter().collect(), &|_| None);
    let mut decided = decide(&tenants, |_| Ok::<_, ()>(Vec::new())).unwrap();
    let told = Heard::This(Arc::new(decided.remove(1).told));
    let first = status(&all[1], &Observed { told, ..accepted() }, Timestamp::now());
    let enforced = find(&first.conditions, "Enforced").unwrap();
    assert_eq!((&*enforced.status, &*enforced.reason), ("False", "TooMany"));
    assert_eq!(find(&first.conditions, "Ready").unwrap().message, enforced.message);
    let mut repository = all[1].clone();
    repository.status = Some(first.clone());
    assert_eq!(status(&repository, &accepted(), Timestamp::now()), first);
}
