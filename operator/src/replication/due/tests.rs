//! When runs begin and end.

use channel::replication::{Phase, Progress};
use crds::replication::Images;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::{replication::terms::Terms, testing::replication};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn text(second: i64) -> String {
    at(second).to_string()
}

fn trigger(fields: &serde_json::Value) -> Trigger {
    Terms::parse(&replication("apps", &json!({"trigger": fields})).spec).unwrap().trigger
}

fn on_push() -> Trigger {
    trigger(&json!({"resyncInterval": "1h"}))
}

/// Everything was the same at second 1000, up to cursor `c`.
fn target() -> TargetStatus {
    TargetStatus {
        name: "there".into(),
        runs: 1,
        comparison: Some("plan".into()),
        compared: Some(text(1000)),
        cursor: Some("c".into()),
        ..TargetStatus::default()
    }
}

fn run(phase: Phase) -> Seen {
    Seen {
        job: "job".into(),
        number: 1,
        comparison: "plan".into(),
        continues: true,
        scheduled: None,
        now: None,
        began: at(1000),
        state: State::Active { waiting: None },
        progress: Some(Progress { phase, ..Progress::default() }),
    }
}

fn known<'a>(trigger: &'a Trigger, target: &'a TargetStatus, second: i64) -> Situation<'a> {
    Situation {
        trigger,
        suspended: false,
        target,
        run: None,
        comparison: "plan",
        now_value: None,
        pushed: false,
        created: at(0),
        now: at(second),
    }
}

fn comparing() -> Next {
    Next::Start(Start::default())
}

fn going_on() -> Next {
    Next::Start(Start { cursor: Some("c".into()), ..Start::default() })
}

#[test]
fn a_push_goes_on_from_the_cursor_and_calm_ends_with_a_comparison() {
    let (trigger, target) = (on_push(), target());
    assert_eq!(next(&known(&trigger, &target, 2000)), Next::Wait(Some(at(4600))));
    assert_eq!(next(&Situation { pushed: true, ..known(&trigger, &target, 2000) }), going_on());
    assert_eq!(next(&known(&trigger, &target, 4600)), comparing());
    assert_eq!(next(&Situation { pushed: true, ..known(&trigger, &target, 4600) }), comparing());
}

#[test]
fn what_was_never_compared_or_is_another_now_is_compared_at_once() {
    let trigger = on_push();
    assert_eq!(next(&known(&trigger, &TargetStatus::default(), 0)), comparing());
    let target = TargetStatus { retry: Some(text(9000)), ..target() };
    assert_eq!(next(&Situation { comparison: "other", ..known(&trigger, &target, 2000) }), comparing());
}

#[test]
fn a_failure_is_tried_again_later_and_pushes_wait_unless_single_images_failed() {
    let trigger = on_push();
    let failed =
        |reason: &str| TargetStatus { retry: Some(text(2100)), reason: Some(reason.into()), ..target() };
    let (away, images) = (failed("TargetUnreachable"), failed("ImagesFailed"));
    let deletions = failed("DeletionsStopped");
    let pushed = |target, second| next(&Situation { pushed: true, ..known(&trigger, target, second) });
    assert_eq!(pushed(&away, 2000), Next::Wait(Some(at(2100))));
    assert_eq!(pushed(&away, 2100), comparing());
    assert_eq!(pushed(&images, 2000), going_on());
    assert_eq!(pushed(&deletions, 2000), going_on());
    assert_eq!(pushed(&images, 2100), comparing());
}

#[test]
fn one_run_at_a_time() {
    let (trigger, target) = (on_push(), target());
    for phase in [Phase::Comparing, Phase::Copying, Phase::Following] {
        let run = run(phase);
        let situation = Situation { run: Some(&run), pushed: true, ..known(&trigger, &target, 2000) };
        assert_eq!(next(&situation), Next::Wait(None), "{phase:?}");
    }
    let going = Seen { state: State::Going, ..run(Phase::Following) };
    let situation = Situation { run: Some(&going), suspended: true, ..known(&trigger, &target, 9000) };
    assert_eq!(next(&situation), Next::Wait(None));
}

#[rstest]
#[case::suspended(Phase::Copying, 2000, true, "plan", None, true)]
#[case::another_plan(Phase::Copying, 2000, false, "other", None, true)]
#[case::asked_while_following(Phase::Following, 2000, false, "plan", Some("1"), true)]
#[case::asked_while_copying(Phase::Copying, 2000, false, "plan", Some("1"), false)]
#[case::resync_while_following(Phase::Following, 4600, false, "plan", None, true)]
#[case::resync_while_copying(Phase::Copying, 4600, false, "plan", None, false)]
fn what_ends_a_run(
    #[case] phase: Phase,
    #[case] second: i64,
    #[case] suspended: bool,
    #[case] comparison: &str,
    #[case] now_value: Option<&str>,
    #[case] ends: bool,
) {
    let (trigger, target, run) = (on_push(), target(), run(phase));
    let run = Some(&run);
    let known = Situation { suspended, run, comparison, now_value, ..known(&trigger, &target, second) };
    assert_eq!(next(&known), if ends { Next::Stop } else { Next::Wait(None) });
}

#[test]
fn a_run_that_follows_and_leaves_images_behind_makes_way_for_another_attempt() {
    let trigger = on_push();
    let failing =
        TargetStatus { images: Images { failed: 1, ..Images::default() }, compared: None, ..target() };
    let run = Seen { continues: false, ..run(Phase::Following) };
    let at = |second| next(&Situation { run: Some(&run), ..known(&trigger, &failing, second) });
    assert_eq!((at(1599), at(1600)), (Next::Wait(None), Next::Stop));
}

#[test]
fn a_schedule_has_one_run_for_each_of_its_times() {
    let trigger = trigger(&json!({"type": "Schedule", "schedule": {"cron": "*/10 * * * *"}}));
    let target = |second| TargetStatus { scheduled: Some(text(second)), ..TargetStatus::default() };
    let scheduled = |second| Next::Start(Start { scheduled: Some(at(second)), ..Start::default() });
    assert_eq!(next(&known(&trigger, &target(0), 599)), Next::Wait(Some(at(600))));
    assert_eq!(next(&known(&trigger, &target(0), 601)), scheduled(600));
    assert_eq!(next(&known(&trigger, &target(600), 601)), Next::Wait(Some(at(1200))));
    // The operator was away for half an hour.
    assert_eq!(next(&known(&trigger, &target(600), 2500)), scheduled(2400));
    // What was before the Replication is none of its times.
    let new = TargetStatus::default();
    let young = Situation { created: at(610), ..known(&trigger, &new, 620) };
    assert_eq!(next(&young), Next::Wait(Some(at(1200))));
}

#[test]
fn a_manual_one_runs_once_for_each_value_and_again_where_it_failed() {
    let trigger = trigger(&json!({"type": "Manual"}));
    let asked = |target: &TargetStatus, value, second| {
        next(&Situation { now_value: value, ..known(&trigger, target, second) })
    };
    let new = TargetStatus::default();
    assert_eq!(asked(&new, None, 0), Next::Wait(None));
    let start = Start { now: Some("1".into()), ..Start::default() };
    assert_eq!(asked(&new, Some("1"), 0), Next::Start(start));
    let done = TargetStatus { replicate_now: Some("1".into()), ..target() };
    assert_eq!(asked(&done, Some("1"), 9000), Next::Wait(None));
    let failed = TargetStatus { retry: Some(text(100)), ..done };
    assert_eq!(
        (asked(&failed, Some("1"), 99), asked(&failed, Some("1"), 100)),
        (Next::Wait(Some(at(100))), comparing())
    );
}

#[test]
fn nothing_begins_while_suspended() {
    let trigger = on_push();
    let new = TargetStatus::default();
    let situation =
        Situation { suspended: true, now_value: Some("1"), pushed: true, ..known(&trigger, &new, 0) };
    assert_eq!(next(&situation), Next::Wait(None));
}
