//! What is said of a Registry in which situation.

use channel::policy::ReplicaStatus;
use rstest::rstest;

use super::*;
use crate::testing;

fn replica(ready: bool, revision: Option<&str>) -> Replica {
    let status = ReplicaStatus { policy_revision: revision.map(Into::into), ..ReplicaStatus::default() };
    Replica { pod: "demo-0".into(), ready, status: Ok(status), waiting: None }
}

fn observed(replicas: Vec<Replica>, nodes: View) -> Observed {
    Observed {
        problem: None,
        people: None,
        cluster_ip: Some("10.0.0.1".into()),
        certificate_expires: None,
        volume_size: None,
        storage: None,
        policy_revision: "current".into(),
        replicas,
        nodes_granted: true,
        nodes: Some(nodes),
        fallbacks: Standing::default(),
    }
}

fn view(ready: i32, total: i32) -> View {
    View { ready, total, ..View::default() }
}

fn reason<'a>(status: &'a RegistryStatus, type_: &str) -> &'a str {
    &status.conditions.iter().find(|condition| condition.type_ == type_).unwrap().reason
}

#[rstest]
#[case::nothing_yet(vec![], view(0, 3), "Starting")]
#[case::not_ready(vec![replica(false, Some("current"))], view(3, 3), "Starting")]
#[case::old_policy(vec![replica(true, Some("old"))], view(3, 3), "PolicyNotApplied")]
#[case::nodes_not_told(vec![replica(true, Some("current"))], view(0, 3), "NodesPending")]
#[case::some_nodes_told(vec![replica(true, Some("current"))], view(2, 3), "NodesPending")]
#[case::all_well(vec![replica(true, Some("current"))], view(3, 3), "Ready")]
fn tells_why_it_is_not_ready(#[case] replicas: Vec<Replica>, #[case] nodes: View, #[case] expected: &str) {
    let status = status(&testing::registry("demo"), &observed(replicas, nodes), Timestamp::now());
    assert_eq!(reason(&status, "Ready"), expected);
}

#[test]
fn a_node_that_goes_away_does_not_make_a_ready_registry_unready() {
    let mut registry = testing::registry("demo");
    let now = Timestamp::now();
    let well = || vec![replica(true, Some("current"))];
    registry.status = Some(status(&registry, &observed(well(), view(3, 3)), now));
    let later = status(&registry, &observed(well(), view(2, 3)), now);
    assert_eq!((reason(&later, "Ready"), reason(&later, "NodesReady")), ("Ready", "NodesPending"));
}

#[test]
fn a_new_operator_says_of_nodes_what_the_former_did_until_it_has_asked() {
    let mut registry = testing::registry("demo");
    let now = Timestamp::now();
    let well = || vec![replica(true, Some("current"))];
    let first = status(&registry, &observed(well(), view(3, 3)), now);
    registry.status = Some(first.clone());
    let unasked = Observed { nodes: None, ..observed(well(), view(0, 0)) };
    assert_eq!(status(&registry, &unasked, now + PATIENCE), first);
    registry.status = None;
    assert_eq!(reason(&status(&registry, &unasked, now), "Ready"), "NodesPending");
}

#[test]
fn patience_with_nodes_ends() {
    let mut registry = testing::registry("demo");
    let now = Timestamp::now();
    let partly = || observed(vec![replica(true, Some("current"))], view(2, 3));
    registry.status = Some(status(&registry, &partly(), now));
    assert_eq!(reason(&status(&registry, &partly(), now + PATIENCE), "Ready"), "Ready");
}

#[test]
fn stopped_and_ungranted_say_so() {
    let mut registry = testing::registry("demo");
    let mut ungranted = observed(vec![replica(true, Some("current"))], view(0, 3));
    ungranted.nodes_granted = false;
    assert_eq!(reason(&status(&registry, &ungranted, Timestamp::now()), "Ready"), "NotGranted");
    registry.spec.replicas = 0;
    assert_eq!(reason(&status(&registry, &ungranted, Timestamp::now()), "Ready"), "Stopped");
}

#[test]
fn an_unchanged_world_has_an_unchanged_status() {
    let mut registry = testing::registry("demo");
    let now = Timestamp::now();
    let well = || observed(vec![replica(true, Some("current"))], view(3, 3));
    let first = status(&registry, &well(), now);
    registry.status = Some(first.clone());
    assert_eq!(status(&registry, &well(), now + PATIENCE), first);
}

#[test]
fn small_changes_of_the_fill_level_are_not_reported() {
    let former = StorageStatus { used_bytes: 500, total_bytes: 1000 };
    assert_eq!(fill(Some(&former), 509, 1000), former);
    assert_eq!(fill(Some(&former), 510, 1000).used_bytes, 510);
    assert_eq!(fill(Some(&former), 500, 2000).total_bytes, 2000);
}
