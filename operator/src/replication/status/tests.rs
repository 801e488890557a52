//! What a Replication says of itself.

use serde_json::json;

use super::*;
use crate::testing::replication;

fn well(name: &str) -> TargetStatus {
    TargetStatus {
        name: name.into(),
        last_success: Some(Timestamp::UNIX_EPOCH.to_string()),
        ..TargetStatus::default()
    }
}

fn failing(name: &str) -> TargetStatus {
    let (reason, message) = (Some("TargetUnreachable".into()), Some("no answer".into()));
    TargetStatus { reason, message, ..well(name) }
}

fn ready_of(
    spec: &serde_json::Value,
    problem: Option<&Answer>,
    targets: Vec<TargetStatus>,
) -> (String, String, String) {
    let status = status(&replication("apps", spec), problem, None, targets, Timestamp::UNIX_EPOCH);
    let ready = &status.conditions[0];
    (ready.reason.clone(), ready.message.clone(), status.summary.unwrap())
}

#[test]
fn ready_says_what_is_wrong_first() {
    let all_well = ready_of(&json!({}), None, vec![well("a"), well("b")]);
    assert_eq!((all_well.0.as_str(), all_well.2.as_str()), ("Replicated", "2/2"));
    let one = ready_of(&json!({}), None, vec![well("a"), failing("b"), failing("c")]);
    assert_eq!(
        one,
        ("TargetUnreachable".into(), "target b: no answer (and 1 more targets)".into(), "1/3".into())
    );
    let new = ready_of(&json!({}), None, vec![TargetStatus::default()]);
    assert_eq!((new.0.as_str(), new.2.as_str()), (PENDING, "0/1"));
    let problem = Answer::no("RegistryNotFound", "there is none");
    assert_eq!(ready_of(&json!({}), Some(&problem), vec![well("a")]).0, "RegistryNotFound");
    assert_eq!(ready_of(&json!({"suspend": true}), None, vec![failing("a")]).0, "Suspended");
}

#[test]
fn a_refused_login_names_the_grant_that_is_missing_and_once() {
    let target = json!({"name": "here", "registryRef": {"name": "copy"}});
    let replication = replication("red", &json!({"targets": [target], "deletions": "Propagate"}));
    let mut refused = TargetStatus { reason: Some("TargetUnauthorized".into()), ..failing("here") };
    explain(&replication, &mut refused);
    let message = refused.message.clone().unwrap();
    let grant = "a Repository of Registry copy in namespace red has to grant ServiceAccount replicator of namespace red access: `access: [{serviceAccount: {name: replicator, namespace: red}, role: Admin}]`";
    assert_eq!(message, format!("no answer: {grant}"));
    explain(&replication, &mut refused);
    assert_eq!(refused.message, Some(message));
    let mut source = TargetStatus { reason: Some("SourceUnauthorized".into()), ..failing("here") };
    explain(&replication, &mut source);
    assert!(source.message.unwrap().contains("Registry demo in namespace apps"));
}

#[test]
fn a_message_names_the_target_once() {
    let message = Some("target: no answer".into());
    let there = TargetStatus { message, ..failing("there") };
    assert_eq!(ready_of(&json!({}), None, vec![there.clone()]).1, "target there: no answer");
    let note = event(&well("there"), &there).unwrap().note;
    assert_eq!(note.as_deref(), Some("target there: no answer"));
}

#[test]
fn deletions_that_wait_for_a_person_say_how_it_goes_on() {
    let mut stopped = TargetStatus { reason: Some("DeletionsStopped".into()), ..failing("there") };
    for _ in 0..2 {
        explain(&replication("red", &json!({})), &mut stopped);
        let message = stopped.message.clone().unwrap();
        assert_eq!(message, format!("no answer: {AFTER_DELETIONS}"));
    }
    assert!(AFTER_DELETIONS.contains(crate::replication::job::NOW));
}

#[test]
fn events_tell_of_the_first_failure_and_of_the_recovery_only() {
    let reason =
        |former: &TargetStatus, target: &TargetStatus| event(former, target).map(|event| event.reason);
    let other = TargetStatus { reason: Some("TargetFull".into()), ..failing("a") };
    assert_eq!(reason(&well("a"), &failing("a")).as_deref(), Some("TargetUnreachable"));
    assert_eq!(reason(&failing("a"), &failing("a")), None);
    assert_eq!(reason(&failing("a"), &other), None);
    assert_eq!(reason(&other, &well("a")).as_deref(), Some("Recovered"));
    assert_eq!(reason(&well("a"), &well("a")), None);
    assert_eq!(reason(&TargetStatus::default(), &well("a")).as_deref(), Some("Replicated"));
}

#[test]
fn a_refusal_is_told_once() {
    let problem = Answer::no("InvalidSchedule", "no cron");
    let replication = replication("apps", &json!({}));
    assert!(refusal(None, &problem).is_some());
    let former = status(&replication, Some(&problem), None, Vec::new(), Timestamp::UNIX_EPOCH);
    assert!(refusal(Some(&former), &problem).is_none());
    assert!(refusal(Some(&former), &Answer::no("InvalidTimeZone", "")).is_some());
}
