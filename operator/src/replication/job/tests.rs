//! Jobs as they are applied.

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::{
    replication::{end::Login, plan, terms::Terms},
    testing::replication,
};

fn secret() -> String {
    "login".into()
}

fn here() -> End {
    End {
        url: "https://demo.apps.svc:5000".into(),
        login: Login::Token { audience: "berth.dev/apps/demo".into() },
        trust: Trust::Berth,
    }
}

fn there() -> End {
    End {
        url: "https://there.example".into(),
        login: Login::Basic { secret: secret() },
        trust: Trust::Secret("ca".into()),
    }
}

fn made(spec: &serde_json::Value, follows: bool, source: &End, there: &End, start: &Start) -> Job {
    let replication = replication("apps", spec);
    let terms = Terms::parse(&replication.spec).unwrap();
    let mut plan = plan::plan(&replication, &terms, source, there);
    let comparison = plan::comparison(&plan, &replication);
    if follows {
        plan = plan::following(plan, start.cursor.clone());
    }
    job(&Run {
        replication: &replication,
        target: "there",
        number: 7,
        start,
        plan: &plan,
        comparison: &comparison,
        source,
        there,
        ca: "PEM",
        image: "registry:1",
    })
}

#[test]
fn a_run_that_follows() {
    let start = Start { cursor: Some("c1".into()), ..Start::default() };
    insta::assert_yaml_snapshot!(made(
        &json!({"limits": {"timeout": "1h"}}),
        true,
        &here(),
        &there(),
        &start
    ));
}

#[test]
fn a_run_that_compares_once_ends_when_its_time_is_over() {
    let spec = json!({"trigger": {"type": "Manual"}, "limits": {"timeout": "1h"}});
    let start = Start { scheduled: Some(Timestamp::UNIX_EPOCH), now: Some("1".into()), ..Start::default() };
    let job = made(&spec, false, &there(), &there(), &start);
    assert_eq!(job.spec.as_ref().unwrap().active_deadline_seconds, Some(3660));
    let annotations = job.annotations();
    assert_eq!((annotations[SCHEDULED].as_str(), annotations[NOW].as_str()), ("1970-01-01T00:00:00Z", "1"));
    assert!(!annotations.contains_key(CONTINUES));
}

#[test]
fn nothing_of_a_login_is_in_the_job_but_names() {
    let docker = End { login: Login::DockerConfig { secret: secret() }, trust: Trust::Public, ..there() };
    let job = made(&json!({}), true, &docker, &here(), &Start::default());
    let pod = job.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    let arguments = pod.containers[0].args.clone().unwrap();
    assert!(arguments.iter().all(|argument| !argument.contains("login")), "{arguments:?}");
    assert_eq!(pod.containers[0].env, None);
    let source = pod.volumes.unwrap().into_iter().find(|volume| volume.name == "source").unwrap();
    let items = source.secret.unwrap().items.unwrap();
    assert_eq!((items[0].key.as_str(), items[0].path.as_str()), (".dockerconfigjson", "config.json"));
}

#[test]
fn a_run_has_one_name_and_no_other_run_has_it() {
    let one = replication("apps", &json!({}));
    let mut recreated = one.clone();
    recreated.metadata.uid = Some("another".into());
    assert_eq!(name(&one, "there", 7), name(&one, "there", 7));
    let others = [name(&one, "there", 8), name(&one, "other", 7), name(&recreated, "there", 7)];
    assert!(!others.contains(&name(&one, "there", 7)), "{others:?}");
    assert!(name(&one, "there", 7).strip_prefix("mirror-").is_some_and(|run| run.len() == 8));
}
