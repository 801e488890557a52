//! How far a run is, for whoever asks: counted in one place, and told as a [`Progress`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use channel::replication::{Failure, Phase, Problem, Progress, Reason};
use jiff::Timestamp;
use oci::copy::Copier;

/// Failures that are told; more are counted.
const MOST_FAILURES: usize = 100;

/// Shared by all that work and all that tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    progress: Progress,
    copier: Option<Copier>,
    /// Pushes that the target does not have, by time: of each image the first one.
    behind: BTreeSet<(Timestamp, String)>,
    /// The same by image.
    waiting: BTreeMap<String, Timestamp>,
    /// When the newest push was made that was copied.
    newest: Option<Timestamp>,
    /// Images that failed, told or not.
    failed: BTreeSet<String>,
    /// An end let nobody in, or did not answer: the first such failure.
    blocked: Option<Problem>,
}

impl Counts {
    fn settle(&mut self, image: &str) {
        if let Some(pushed) = self.waiting.remove(image) {
            self.behind.remove(&(pushed, image.to_owned()));
        }
        if self.failed.remove(image) {
            self.progress.failed = self.failed.len() as u64;
            self.progress.failures.remove(image);
        }
    }
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes are counted there.
    pub(super) fn follow(&self, copier: &Copier) {
        self.counts().copier = Some(copier.clone());
    }

    /// Which of Berth's registries the target is.
    pub(super) fn target(&self, id: Option<&String>) {
        self.counts().progress.target_id = id.cloned();
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.counts().progress.phase = phase;
    }

    /// So many more images are known of.
    pub(super) fn found(&self, images: usize) {
        self.counts().progress.total += images as u64;
    }

    pub(super) fn skipped(&self, images: usize) {
        self.counts().progress.skipped += images as u64;
    }

    /// An image is to be copied that was pushed then.
    pub(super) fn behind(&self, image: &str, pushed: Option<Timestamp>) {
        let (mut counts, Some(pushed)) = (self.counts(), pushed) else { return };
        if !counts.waiting.contains_key(image) {
            counts.waiting.insert(image.to_owned(), pushed);
            counts.behind.insert((pushed, image.to_owned()));
        }
    }

    /// The target has what it should have of an image.
    pub(super) fn caught_up(&self, image: &str, pushed: Option<Timestamp>, copied: bool) {
        let mut counts = self.counts();
        counts.settle(image);
        if !copied {
            counts.progress.skipped += 1;
            return;
        }
        counts.progress.done += 1;
        if let Some(pushed) = pushed.filter(|pushed| counts.newest.is_none_or(|newest| newest <= *pushed)) {
            let lag = Timestamp::now().as_millisecond().saturating_sub(pushed.as_millisecond());
            counts.progress.lag_milliseconds = Some(u64::try_from(lag).unwrap_or_default());
            counts.newest = Some(pushed);
        }
    }

    /// An image went at the target.
    pub(super) fn deleted(&self, image: &str) {
        let mut counts = self.counts();
        counts.settle(image);
        counts.progress.deleted += 1;
    }

    /// Nothing is left to be done for an image, whatever failed before.
    pub(super) fn settled(&self, image: &str) {
        self.counts().settle(image);
    }

    /// An image is not there, and will not be tried again for now.
    pub(super) fn failed(&self, image: &str, reason: String, attempts: u32) {
        let mut counts = self.counts();
        counts.failed.insert(image.to_owned());
        counts.progress.failed = counts.failed.len() as u64;
        if counts.progress.failures.len() < MOST_FAILURES || counts.progress.failures.contains_key(image) {
            let failure = Failure { reason, attempts, last_try: now() };
            counts.progress.failures.insert(image.to_owned(), failure);
        }
    }

    /// Something failed because an end lets nobody in, or does not answer.
    pub(super) fn blocked(&self, reason: Reason, message: String) {
        self.counts().blocked.get_or_insert(Problem { reason, message });
    }

    /// Makes failures a problem of the run: where nothing worked and an end is to blame, that is it.
    pub(super) fn conclude(&self) {
        let mut counts = self.counts();
        if counts.failed.is_empty() {
            return;
        }
        let nothing = counts.progress.done + counts.progress.skipped + counts.progress.deleted == 0;
        let message = "some images were not copied; the failures say why".to_owned();
        let failed = Problem { reason: Reason::ImagesFailed, message };
        let problem = counts.blocked.take().filter(|_| nothing).unwrap_or(failed);
        counts.progress.problem.get_or_insert(problem);
    }

    /// All that was copied or seen is equal up to here.
    pub(super) fn cursor(&self, cursor: &str) {
        self.counts().progress.cursor = Some(cursor.to_owned());
    }

    /// A comparison ended; where nothing failed, with everything equal.
    pub(super) fn compared(&self) {
        let mut counts = self.counts();
        if counts.failed.is_empty() {
            counts.progress.equal_at = Some(now());
        }
    }

    /// What a person has to know. The first one stays: others follow from it.
    pub(super) fn problem(&self, reason: Reason, message: String) {
        self.counts().progress.problem.get_or_insert(Problem { reason, message });
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        let counts = self.counts();
        let mut progress = counts.progress.clone();
        if let Some(copier) = &counts.copier {
            progress.bytes_moved = copier.counters().bytes_moved();
            progress.bytes_skipped = copier.counters().bytes_skipped();
        }
        progress.behind_since = counts.behind.first().map(|(time, _)| time.to_string());
        progress
    }
}

/// Now, as times are written everywhere: microseconds, UTC.
pub(super) fn now() -> String {
    format!("{:.6}", Timestamp::now())
}

/// A progress whose JSON has at most so many bytes: the last failures go first, then reasons get shorter.
pub(super) fn shortened(mut progress: Progress, most: usize) -> String {
    let json = |progress: &Progress| serde_json::to_string(progress).unwrap_or_default();
    let cut = |text: &mut String, most: usize| *text = text.chars().take(most).collect();
    for failure in progress.failures.values_mut() {
        cut(&mut failure.reason, 400);
    }
    if let Some(problem) = &mut progress.problem {
        cut(&mut problem.message, 400);
    }
    let mut failures = std::mem::take(&mut progress.failures);
    let mut length = json(&progress).len() + r#","failures":{}"#.len();
    let mut kept = BTreeMap::new();
    while let Some((image, failure)) = failures.pop_first() {
        length += serde_json::to_string(&(&image, &failure)).unwrap_or_default().len();
        if length > most {
            break;
        }
        kept.insert(image, failure);
    }
    progress.failures = kept;
    json(&progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_was_mended_is_none() {
        let tally = Tally::default();
        tally.found(2);
        tally.failed("a:1", "no".into(), 3);
        tally.compared();
        assert_eq!(tally.progress().equal_at, None);
        tally.caught_up("a:1", None, true);
        tally.compared();
        let progress = tally.progress();
        assert!(progress.failures.is_empty() && progress.failed == 0 && progress.equal_at.is_some());
    }

    #[test]
    fn who_is_to_blame() {
        let reason = |work: fn(&Tally)| {
            let tally = Tally::default();
            tally.failed("a:1", "no".into(), 3);
            tally.blocked(Reason::TargetUnauthorized, "no".into());
            work(&tally);
            tally.conclude();
            tally.progress().problem.unwrap().reason
        };
        assert_eq!(reason(|_| {}), Reason::TargetUnauthorized);
        assert_eq!(reason(|tally| tally.skipped(1)), Reason::ImagesFailed, "others worked");
        assert_eq!(reason(|tally| tally.problem(Reason::TargetFull, String::new())), Reason::TargetFull);
        let tally = Tally::default();
        tally.conclude();
        assert_eq!(tally.progress().problem, None);
    }

    #[test]
    fn behind_since_the_oldest() {
        let tally = Tally::default();
        let time = |second| Some(Timestamp::from_second(second).unwrap());
        tally.behind("a:1", time(20));
        tally.behind("a:2", time(10));
        assert_eq!(tally.progress().behind_since.as_deref(), Some("1970-01-01T00:00:10Z"));
        tally.caught_up("a:2", time(10), true);
        tally.caught_up("a:1", time(20), false);
        let progress = tally.progress();
        assert_eq!((progress.behind_since, progress.done, progress.skipped), (None, 1, 1));
        assert!(progress.lag_milliseconds.unwrap() > 1_000_000);
    }

    #[test]
    fn what_failed_and_was_pushed_or_deleted_later_is_behind_no_more() {
        let tally = Tally::default();
        let time = |second| Some(Timestamp::from_second(second).unwrap());
        for image in ["a:1", "a:2"] {
            tally.behind(image, time(10));
            tally.failed(image, "no".into(), 3);
        }
        tally.behind("a:1", time(20));
        assert_eq!(tally.progress().behind_since.as_deref(), Some("1970-01-01T00:00:10Z"));
        tally.caught_up("a:1", time(20), true);
        assert_eq!(tally.progress().failed, 1);
        tally.deleted("a:2");
        let progress = tally.progress();
        assert_eq!((progress.behind_since, progress.failed, progress.deleted), (None, 0, 1));
        assert!(progress.failures.is_empty());
    }

    #[test]
    fn a_termination_message_is_short_and_whole() {
        let tally = Tally::default();
        for n in 0..200 {
            tally.failed(&format!("team/app:{n}"), format!("\"{}\"", "é".repeat(n * 5)), 3);
        }
        tally.problem(Reason::ImagesFailed, "x".repeat(5000));
        let text = shortened(tally.progress(), 4000);
        assert!(text.len() <= 4000);
        let read: Progress = serde_json::from_str(&text).unwrap();
        assert_eq!(read.failed, 200);
        assert!(!read.failures.is_empty());
    }
}
