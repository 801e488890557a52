//! What becomes of a target as its runs go on and end.

use channel::replication::{Failure as Failed, Problem, Reason};
use rstest::rstest;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn run(number: i64, state: State, progress: Progress) -> Seen {
    Seen {
        job: format!("job-{number}"),
        number,
        comparison: "plan".into(),
        continues: false,
        scheduled: None,
        now: None,
        began: at(0),
        state,
        progress: Some(progress),
    }
}

fn active() -> State {
    State::Active { waiting: None }
}

fn equal(second: i64) -> Progress {
    Progress {
        phase: RunPhase::Ended,
        cursor: Some("c1".into()),
        equal_at: Some(at(second).to_string()),
        total: 3,
        done: 3,
        bytes_moved: 10,
        ..Progress::default()
    }
}

fn failing(reason: Reason) -> Progress {
    let problem = Some(Problem { reason, message: "it is so".into() });
    Progress { phase: RunPhase::Ended, cursor: Some("c2".into()), problem, failed: 1, ..Progress::default() }
}

fn failed(second: i64) -> State {
    State::Failed { at: at(second), why: "BackoffLimitExceeded: x".into() }
}

fn well() -> TargetStatus {
    after(TargetStatus::default(), Some(&run(0, State::Succeeded { at: at(9) }, equal(8))), at(10))
}

#[test]
fn a_run_that_made_everything_the_same() {
    let target = well();
    assert_eq!((target.phase, target.runs, target.job.as_ref()), (Phase::Idle, 1, None));
    assert_eq!(target.compared, Some(at(9).to_string()));
    assert_eq!((target.cursor.as_deref(), target.lag_seconds), (Some("c1"), Some(0)));
    // Its Job is there for a while, and changes nothing.
    let again = after(target.clone(), Some(&run(0, State::Succeeded { at: at(9) }, equal(8))), at(20));
    assert_eq!(again, target);
}

#[test]
fn failures_in_a_row_wait_longer_and_longer_and_one_success_ends_them() {
    let mut target = TargetStatus::default();
    let mut waits = Vec::new();
    for number in 0..6 {
        let run = run(number, failed(100), failing(Reason::TargetUnreachable));
        target = after(target, Some(&run), at(100));
        waits.push(time(target.retry.as_ref()).unwrap().as_second() - 100);
    }
    assert_eq!(waits, [10, 20, 40, 80, 120, 120]);
    assert_eq!((target.phase, target.reason.as_deref()), (Phase::Failing, Some("TargetUnreachable")));
    assert_eq!((target.message.as_deref(), target.cursor.as_ref()), (Some("it is so"), None));
    let target = after(target, Some(&run(6, State::Succeeded { at: at(200) }, equal(199))), at(201));
    assert_eq!((target.phase, target.failed_runs, target.retry, target.reason), (Phase::Idle, 0, None, None));
}

#[test]
fn single_images_that_keep_failing_wait_longer_and_one_just_pushed_does_not() {
    let mut target = TargetStatus::default();
    let mut wait = |number, continues| {
        let run = Seen { continues, ..run(number, failed(100), failing(Reason::ImagesFailed)) };
        target = after(std::mem::take(&mut target), Some(&run), at(100));
        time(target.retry.as_ref()).unwrap().as_second() - 100
    };
    let waits: Vec<_> = (0..10).map(|number| wait(number, false)).collect();
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800]);
    assert_eq!((wait(10, true), wait(11, false)), (120, 1800));
}

#[test]
fn what_only_a_person_can_mend_waits_long_from_the_first_time_and_pushes_go_on() {
    let mut target = well();
    for number in 1..4 {
        let run = run(number, failed(100), failing(Reason::DeletionsStopped));
        target = after(target, Some(&run), at(100));
        assert_eq!(target.retry, Some(at(1900).to_string()));
    }
    let odd = run(4, failed(100), failing(Reason::InvalidPlan));
    assert_eq!(after(well(), Some(&odd), at(100)).retry, Some(at(1900).to_string()));
    assert!(goes_on(&target));
    assert_eq!(target.cursor.as_deref(), Some("c2"), "all but the deletions was done");
    let pushed = Seen { continues: true, ..run(4, State::Succeeded { at: at(125) }, equal(124)) };
    let target = after(target, Some(&pushed), at(125));
    assert_eq!(
        (target.phase, target.reason.as_deref(), target.retry),
        (Phase::Failing, Some("DeletionsStopped"), Some(at(1900).to_string()))
    );
}

#[test]
fn where_single_images_fail_the_cursor_goes_on_and_the_failures_stay() {
    let failure = Failed { reason: "gone".into(), attempts: 3, last_try: "now".into() };
    let failures = [("team/app:1".to_owned(), failure)].into();
    let progress = Progress { failures, ..failing(Reason::ImagesFailed) };
    let target = after(well(), Some(&run(1, failed(20), progress)), at(20));
    assert_eq!((target.cursor.as_deref(), target.failures[0].image.as_str()), (Some("c2"), "team/app:1"));
    // A push meanwhile is copied, and does not make up for them.
    let pushed = Seen { continues: true, ..run(2, State::Succeeded { at: at(25) }, equal(24)) };
    let target = after(target, Some(&pushed), at(25));
    assert_eq!(
        (target.phase, target.failures.len(), target.cursor.as_deref()),
        (Phase::Failing, 1, Some("c1"))
    );
    assert_eq!((target.reason.as_deref(), target.retry), (Some("ImagesFailed"), Some(at(30).to_string())));
}

#[test]
fn a_cursor_counts_only_once_everything_before_it_was_compared() {
    let comparing = Progress { phase: RunPhase::Copying, cursor: Some("c9".into()), ..Progress::default() };
    let target = after(TargetStatus::default(), Some(&run(0, active(), comparing)), at(5));
    assert_eq!((target.phase, target.cursor), (Phase::Running, None));
    let following = Progress { phase: RunPhase::Following, ..equal(6) };
    let target = after(TargetStatus::default(), Some(&run(0, active(), following)), at(7));
    assert_eq!((target.phase, target.cursor.as_deref()), (Phase::Following, Some("c1")));
    assert_eq!((target.compared, target.job.as_deref()), (Some(at(6).to_string()), Some("job-0")));
}

#[test]
fn another_comparison_forgets_how_far_the_former_was() {
    let other = Seen { comparison: "other".into(), ..run(1, active(), Progress::default()) };
    let target = after(well(), Some(&other), at(20));
    assert_eq!((target.cursor, target.compared, target.comparison.as_deref()), (None, None, Some("other")));
    assert_eq!((target.images.done, target.last_success), (0, Some(at(9).to_string())));
}

#[test]
fn what_a_run_that_goes_on_leaves_behind_is_told_until_it_is_there() {
    let following = |failed, cursor: &str| {
        let cursor = Some(cursor.to_owned());
        let progress =
            Progress { phase: RunPhase::Following, failed, cursor, done: 5, ..Progress::default() };
        Seen { continues: true, ..run(1, active(), progress) }
    };
    let target = after(well(), Some(&following(2, "c2")), at(20));
    assert_eq!((target.phase, target.reason.as_deref()), (Phase::Following, Some("ImagesFailed")));
    assert_eq!(target.message.as_deref(), Some("2 images were not copied; the failures say why"));
    let target = after(target, Some(&following(0, "c3")), at(30));
    assert_eq!((target.reason, target.cursor.as_deref()), (None, Some("c3")));
    // What an earlier run left behind is another matter.
    let failed = after(well(), Some(&run(1, failed(20), failing(Reason::ImagesFailed))), at(20));
    let next = Seen { number: 2, ..following(0, "c4") };
    assert_eq!(after(failed, Some(&next), at(30)).reason.as_deref(), Some("ImagesFailed"));
}

#[test]
fn a_run_that_says_nothing_failed_all_the_same() {
    let silent = Seen { progress: None, ..run(0, failed(20), Progress::default()) };
    let target = after(TargetStatus::default(), Some(&silent), at(20));
    assert_eq!(target.reason.as_deref(), Some("RunFailed"));
    assert!(target.message.unwrap().contains("kubectl logs job/job-0"));
}

#[test]
fn a_pod_that_does_not_run_is_told_until_it_does() {
    let stuck = State::Active { waiting: Some("no such image".into()) };
    let target = after(TargetStatus::default(), Some(&run(0, stuck, Progress::default())), at(20));
    assert_eq!(target.reason.as_deref(), Some("PodNotRunning"));
    let target = after(target, Some(&run(0, active(), Progress::default())), at(21));
    assert_eq!(target.reason, None);
}

#[rstest]
#[case(None, Some(1500), 2)]
#[case(None, Some(400), 0)]
#[case(Some(10), Some(1500), 30)]
#[case(None, Some(100_000), 100)]
#[case(None, Some(101_000), 0)]
fn how_far_behind(
    #[case] behind_since: Option<i64>,
    #[case] lag_milliseconds: Option<u64>,
    #[case] expected: i64,
) {
    let behind_since = behind_since.map(|second| at(second).to_string());
    let progress = Progress { behind_since, lag_milliseconds, ..Progress::default() };
    let target = after(TargetStatus::default(), Some(&run(0, active(), progress)), at(40));
    assert_eq!(target.lag_seconds, Some(expected));
}

#[test]
fn a_target_that_is_away_is_behind_until_a_run_has_seen_to_it() {
    let failure = Failed { reason: "refused".into(), attempts: 1, last_try: at(30).to_string() };
    let failures = [("team/app:1".to_owned(), failure)].into();
    let progress = Progress { phase: RunPhase::Following, failed: 1, failures, ..equal(20) };
    let target = after(well(), Some(&run(1, active(), progress)), at(31));
    assert_eq!((target.behind_since.clone(), target.lag_seconds), (Some(at(30).to_string()), Some(1)));
    // Attempts that get nowhere know nothing of it.
    let mut target = after(target, Some(&run(1, failed(40), failing(Reason::TargetUnreachable))), at(40));
    target = after(target, Some(&run(2, active(), Progress::default())), at(50));
    target = after(target, Some(&run(2, failed(55), failing(Reason::TargetUnreachable))), at(55));
    assert_eq!((target.behind_since.clone(), target.lag_seconds), (Some(at(30).to_string()), Some(25)));
    let comparing = Progress { phase: RunPhase::Copying, ..Progress::default() };
    assert!(after(target.clone(), Some(&run(3, active(), comparing)), at(60)).behind_since.is_some());
    let following = Progress { phase: RunPhase::Following, ..equal(61) };
    assert_eq!(after(target.clone(), Some(&run(3, active(), following)), at(62)).behind_since, None);
    // Others are not behind because of one that can't be copied.
    let target = after(target, Some(&run(3, failed(70), failing(Reason::ImagesFailed))), at(70));
    assert_eq!((target.behind_since, target.lag_seconds), (None, Some(0)));
}

#[test]
fn a_stopped_run_counts_and_what_it_left_behind_is_compared_at_once() {
    let run = run(1, active(), Progress { failed: 1, ..Progress::default() });
    let target = stopped(after(well(), Some(&run), at(20)), &run, at(20));
    assert_eq!((target.runs, target.failed_runs, target.retry), (2, 1, Some(at(20).to_string())));
    let run = super::Seen { progress: None, ..run };
    let target = stopped(after(well(), Some(&run), at(20)), &run, at(20));
    assert_eq!((target.runs, target.failed_runs, target.retry), (2, 0, None));
    // Its Job may be there for a while, or not.
    assert_eq!((target.phase, target.job), (Phase::Idle, None));
}

#[rstest]
#[case(well(), "RunFailed")]
#[case(TargetStatus { reason: Some("PodNotRunning".into()), ..TargetStatus::default() }, "RunFailed")]
#[case(TargetStatus { reason: Some("ImagesFailed".into()), ..well() }, "ImagesFailed")]
fn a_run_whose_job_is_gone_counts_and_everything_is_compared_at_once(
    #[case] former: TargetStatus,
    #[case] reason: &str,
) {
    let (runs, job) = (former.runs, Some("job-1".to_owned()));
    let of_before = run(0, State::Succeeded { at: at(9) }, equal(8));
    for seen in [None, Some(&of_before).filter(|_| runs > 0)] {
        let target = after(TargetStatus { job: job.clone(), ..former.clone() }, seen, at(20));
        assert_eq!((target.phase, target.runs, target.job.as_ref()), (Phase::Failing, runs + 1, None));
        assert_eq!(
            (target.reason.as_deref(), target.retry.clone()),
            (Some(reason), Some(at(20).to_string()))
        );
        assert_eq!(target.cursor, former.cursor);
        let again = after(target.clone(), seen, at(20));
        assert_eq!((again.runs, again.retry), (target.runs, target.retry));
    }
}

#[test]
fn no_number_that_somebody_wrote_is_too_large() {
    let progress = Progress { lag_milliseconds: Some(u64::MAX), done: u64::MAX, ..Progress::default() };
    let former = TargetStatus { failed_runs: i64::MAX, ..TargetStatus::default() };
    let failed = State::Failed { at: at(5), why: "it is so".into() };
    let target = after(former.clone(), Some(&run(i64::MAX, failed, progress.clone())), at(5));
    assert_eq!((target.runs, target.failed_runs, target.images.done), (i64::MAX, i64::MAX, i64::MAX));
    let target = stopped(former, &run(i64::MAX, active(), progress), at(5));
    assert_eq!(target.runs, i64::MAX);
}
