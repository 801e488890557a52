//! Both files hold records: an end came while a checkpoint was under way.

use std::fs;

use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::storage::fs::disk::faults::Done;

impl Journal {
    /// Lets changes be made until both files are about as long as they get, as if no checkpoint came to an end.
    pub(in super::super) fn fill(&self, mut work: impl FnMut()) {
        let _nobody_else = lock(&self.checkpointing);
        for _ in 0..2 {
            self.turn().unwrap();
            loop {
                let state = self.state();
                let is_full = state.lanes[state.current].end() > MOST - (1 << 20);
                drop(state);
                if is_full {
                    break;
                }
                work();
            }
        }
    }

    /// Lets changes run beside each other, so that one write holds the first record of each, in this order.
    pub(in super::super) fn together(&self, changes: &[&(dyn Fn() + Sync)]) {
        self.state().is_writing = true;
        std::thread::scope(|scope| {
            for (n, change) in changes.iter().enumerate() {
                let running = scope.spawn(change);
                // Where they wait for each other the write goes on, and holds less.
                for _ in 0..5000 {
                    if self.state().waiting.records.len() > n || running.is_finished() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            self.state().is_writing = false;
            self.changed.notify_all();
        });
    }
}

impl Left {
    pub(in super::super) fn all(mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.take().unwrap()).collect()
    }
}

fn open(root: &Path, disk: &Disk) -> (Journal, Vec<Vec<u8>>) {
    let (journal, left) = Journal::open(disk.clone(), root, root.join("journal")).unwrap();
    (journal, left.all())
}

fn record(name: &str) -> Record {
    let mut record = Record::default();
    record.add(&Step::Mark(Path::new(name)));
    record
}

fn append(journal: &Journal, name: &str) {
    journal.append(record(name)).unwrap().done();
}

fn names(records: &[Vec<u8>]) -> Vec<String> {
    let steps = records.iter().flat_map(|record| Record::steps(record).unwrap());
    steps
        .map(|step| match step {
            Step::Mark(path) => path.to_str().unwrap().to_owned(),
            step => panic!("{step:?} was not appended"),
        })
        .collect()
}

/// A journal with a record in one file and two in the other.
fn with_both() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("journal")).unwrap();
    let (journal, records) = open(root.path(), &Disk::default());
    assert!(records.is_empty() && journal.is_empty());
    append(&journal, "first");
    // A checkpoint begins, and does not end.
    assert_eq!(journal.turn().unwrap(), Some(vec![0]));
    append(&journal, "second");
    append(&journal, "third");
    root
}

#[test]
fn what_came_first_is_done_first() {
    let root = with_both();
    assert_eq!(names(&open(root.path(), &Disk::default()).1), ["first", "second", "third"]);
}

#[test]
fn what_came_later_is_never_forgotten_before_what_came_first() {
    for step in 1.. {
        let root = with_both();
        let disk = Disk::default();
        let (journal, _) = open(root.path(), &disk);
        disk.faults.plan(step, usize::MAX, Errno::IO);
        let done = journal.checkpoint();
        let steps = disk.faults.heal();
        drop(journal);
        let (journal, left) = open(root.path(), &disk);
        let left = names(&left);
        assert!(["first", "second", "third"].ends_with(&left.iter().map(|name| &**name).collect::<Vec<_>>()));
        assert!(left.len() != 1, "a file is forgotten as a whole");
        journal.checkpoint().unwrap();
        append(&journal, "fourth");
        assert_eq!(names(&open(root.path(), &disk).1), ["fourth"], "step {step}");
        if steps < step {
            done.unwrap();
            assert!(left.is_empty() && step > 5);
            break;
        }
    }
}

#[test]
fn what_lay_behind_a_torn_record_never_comes_back() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("journal")).unwrap();
    let (journal, _) = open(root.path(), &Disk::default());
    let empty = journal.state().lanes[0].end();
    let batch = ["torn", "left"].map(|name| record(name).seal().unwrap());
    journal.state().lanes[0].writer().write(&Disk::default(), &batch).unwrap();
    drop(journal);
    let first = root.path().join("journal/0");
    let mut bytes = fs::read(&first).unwrap();
    bytes[usize::try_from(empty).unwrap()] ^= 1;
    fs::write(&first, bytes).unwrap();
    for name in ["next", "last"] {
        let (journal, records) = open(root.path(), &Disk::default());
        assert!(records.is_empty() && journal.is_empty());
        append(&journal, name);
        drop(journal);
        let (journal, records) = open(root.path(), &Disk::default());
        assert_eq!(names(&records), [name]);
        journal.checkpoint().unwrap();
    }
}

#[test]
fn who_waits_for_a_checkpoint_makes_no_other_one() {
    let root = with_both();
    let disk = Disk::default();
    let (journal, _) = open(root.path(), &disk);
    // Since its start it is in doubt, so that all who come wait for the first turn.
    let turn = lock(&journal.checkpointing);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| append(&journal, "waits"));
        }
        std::thread::sleep(Duration::from_millis(100));
        journal.checkpoint_alone(&turn).unwrap();
        append(&journal, "first");
        disk.faults.record();
        drop(turn);
    });
    let synced = disk.faults.done().iter().any(|done| matches!(done, Done::SyncedAll));
    assert!(!synced, "there was room");
}

#[test]
fn what_is_too_long_for_a_record_is_refused_and_leaves_nothing() {
    let root = with_both();
    let (journal, _) = open(root.path(), &Disk::default());
    journal.checkpoint().unwrap();
    let long = vec![0; 16 << 20];
    let mut record = Record::default();
    record.add(&Step::Write { path: Path::new("a"), time: std::time::SystemTime::now(), bytes: &long });
    let refused = journal.append(record).unwrap_err();
    assert!(refused.to_string().contains("too large"), "{refused}");
    append(&journal, "next");
    assert_eq!(names(&open(root.path(), &Disk::default()).1), ["next"]);
}
