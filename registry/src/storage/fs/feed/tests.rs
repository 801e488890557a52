use std::{collections::HashMap, path::Path};

use rustix::io::Errno;
use tempfile::TempDir;

use super::{
    super::{disk::Disk, layout::Layout},
    *,
};

fn root() -> (TempDir, Durable) {
    let root = tempfile::tempdir().unwrap();
    let durable = Durable::open(&Layout::new(root.path()), Disk::default()).unwrap();
    (root, durable)
}

fn open(root: &Path, durable: &Durable, boot: &str) -> Feed {
    Feed::open(&root.join("feed"), durable, boot.to_owned()).unwrap()
}

fn tagged(repository: &str, tag: &str) -> Entry {
    Entry {
        kind: Kind::Push,
        repository: repository.into(),
        tag: Some(tag.into()),
        digest: format!("sha256:{}", "0".repeat(64)),
        subject: None,
        stamp: channel::feed::Stamp { time: String::new(), origin: String::new() },
    }
}

fn append(feed: &Feed, durable: &Durable, tag: &str) {
    drop(feed.announce(durable, &[tagged("a", tag)]));
}

/// Tags after a cursor, read `n` at a time.
fn tags(feed: &Feed, cursor: &str, n: usize) -> Option<Vec<String>> {
    let mut at = feed.position(cursor)?;
    let mut tags = Vec::new();
    loop {
        let piece = feed.read(at, n, |_| true).unwrap()?;
        assert!(piece.entries.len() <= n);
        tags.extend(piece.entries.into_iter().filter_map(|entry| entry.tag));
        at = piece.next;
        if piece.is_end {
            return Some(tags);
        }
    }
}

#[test]
fn entries_come_in_order_and_in_pages() {
    let (root, durable) = root();
    let feed = open(root.path(), &durable, "one");
    let begin = feed.present().cursor();
    assert_eq!(tags(&feed, &begin, 10).unwrap(), [""; 0]);
    let names: Vec<_> = (0..25).map(|n| n.to_string()).collect();
    for name in &names {
        append(&feed, &durable, name);
    }
    for n in [1, 7, 1000] {
        assert_eq!(tags(&feed, &begin, n).unwrap(), names);
    }
    append(&feed, &durable, "other");
    let none = feed.read(feed.position(&begin).unwrap(), 5, |name| name.as_str() != "a").unwrap().unwrap();
    assert!(none.entries.is_empty() && !none.is_end, "it goes on behind what nobody may see");
    assert_eq!(tags(&feed, &none.next.cursor(), 5).unwrap(), [""; 0]);
    for unknown in ["", "0", &"0".repeat(48), &Epoch::random().to_string()] {
        assert_eq!(feed.position(unknown), None);
    }
}

#[test]
fn what_is_not_visible_yet_and_what_came_after_it_waits() {
    let (root, durable) = root();
    let feed = open(root.path(), &durable, "one");
    let begin = feed.present().cursor();
    let mut changes = feed.changes();
    let slow = feed.announce(&durable, &[tagged("a", "slow"), tagged("a", "with it")]);
    append(&feed, &durable, "fast");
    assert_eq!(tags(&feed, &begin, 10).unwrap(), [""; 0]);
    assert_eq!(feed.present().offset, 0);
    changes.mark_unchanged();
    drop(slow);
    assert!(changes.has_changed().unwrap());
    assert_eq!(tags(&feed, &begin, 10).unwrap(), ["slow", "with it", "fast"]);
}

#[test]
fn a_process_that_ends_anyhow_loses_nothing_and_a_machine_that_stops_begins_anew() {
    let (root, durable) = root();
    let feed = open(root.path(), &durable, "one");
    let begin = feed.present().cursor();
    drop(feed);
    let feed = open(root.path(), &durable, "two");
    append(&feed, &durable, "first");
    assert_eq!(tags(&feed, &begin, 10).unwrap(), ["first"], "nothing had been appended yet");
    // kill -9, in the middle of an entry.
    drop(feed);
    let segment = fs::read_dir(root.path().join("feed")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.into_iter().find(|path| !path.ends_with("boot")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes.extend(b"{\"kind");
    fs::write(&segment, bytes).unwrap();
    let feed = open(root.path(), &durable, "two");
    append(&feed, &durable, "second");
    assert_eq!(tags(&feed, &begin, 10).unwrap(), ["first", "second"]);
    // It ends in order, and the machine does.
    feed.close(&durable).unwrap();
    drop(feed);
    let feed = open(root.path(), &durable, "three");
    assert_eq!(tags(&feed, &begin, 10).unwrap(), ["first", "second"]);
    // Somebody pushes while it ends.
    append(&feed, &durable, "third");
    feed.close(&durable).unwrap();
    append(&feed, &durable, "late");
    drop(feed);
    let feed = open(root.path(), &durable, "three");
    assert_eq!(tags(&feed, &begin, 10).unwrap().len(), 4);
    drop(feed);
    let feed = open(root.path(), &durable, "four");
    assert_eq!(tags(&feed, &begin, 10), None);
    assert_eq!(tags(&feed, &feed.present().cursor(), 10).unwrap(), [""; 0]);
}

#[test]
fn the_oldest_go_and_who_is_behind_is_told() {
    let (root, durable) = root();
    let feed = open(root.path(), &durable, "one");
    let begin = feed.present().cursor();
    let many: Vec<_> = (0..1000).map(|_| tagged(&"a".repeat(255), &"t".repeat(128))).collect();
    let mut cursors = HashMap::new();
    for round in 0..200 {
        drop(feed.announce(&durable, &many));
        cursors.insert(round, feed.present().cursor());
    }
    assert!(feed.bytes() > 60 << 20 && feed.bytes() < 72 << 20, "{}", feed.bytes());
    assert_eq!(tags(&feed, &begin, 1000), None);
    assert_eq!(tags(&feed, &cursors[&150], 1000).unwrap().len(), 49_000);
    assert_eq!(tags(&feed, &cursors[&199], 1000).unwrap().len(), 0);
    drop(feed);
    let feed = open(root.path(), &durable, "one");
    assert_eq!(tags(&feed, &cursors[&190], 300).unwrap().len(), 9000);
    append(&feed, &durable, "more");
    assert_eq!(tags(&feed, &cursors[&199], 1).unwrap(), ["more"]);
}

#[test]
fn an_entry_that_could_not_be_written_ends_the_epoch() {
    for step in 1.. {
        let (root, durable) = root();
        let feed = open(root.path(), &durable, "one");
        let begin = feed.present().cursor();
        durable.disk.faults.plan(step, 1, Errno::NOSPC);
        append(&feed, &durable, "one");
        let steps = durable.disk.faults.heal();
        append(&feed, &durable, "two");
        let known = tags(&feed, &begin, 10);
        drop(feed);
        let feed = open(root.path(), &durable, "one");
        assert_eq!(tags(&feed, &begin, 10), known, "a start changes nothing of that");
        if steps < step {
            assert_eq!(known.unwrap(), ["one", "two"]);
            assert!(step > 3, "an entry has more steps");
            break;
        }
        assert_eq!(known, None);
    }
}

#[test]
fn what_is_not_whole_is_not_gone_on_with() {
    let damage: [fn(&Path); 2] = [
        |segment| fs::remove_file(segment).unwrap(),
        |segment| fs::write(segment.with_file_name(format!("{}-0", Epoch::random())), "").unwrap(),
    ];
    for damage in damage {
        let (root, durable) = root();
        let feed = open(root.path(), &durable, "one");
        let begin = feed.present().cursor();
        append(&feed, &durable, "first");
        let segment = feed.folder.join(format!("{}-{:016x}", feed.present().epoch, 0));
        drop(feed);
        damage(&segment);
        let feed = open(root.path(), &durable, "one");
        assert_eq!(tags(&feed, &begin, 10), None);
        append(&feed, &durable, "second");
        assert_eq!(
            feed.bytes(),
            fs::read(feed.folder.join(format!("{}-{:016x}", feed.present().epoch, 0))).unwrap().len() as u64
        );
    }
}

#[test]
fn only_so_many_read_at_the_same_time() {
    use futures::FutureExt as _;
    let (root, durable) = root();
    let feed = open(root.path(), &durable, "one");
    let mut turns: Vec<_> = (0..READERS).map(|_| feed.turn().now_or_never().flatten().unwrap()).collect();
    let mut next = Box::pin(feed.turn());
    assert!((&mut next).now_or_never().is_none());
    turns.pop();
    assert!(next.now_or_never().flatten().is_some());
}
