//! A manifest and its tags go at one moment, whatever their number, and whatever happens meanwhile.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::io::Errno;

use super::{
    super::deleting::TAGS_AT_ONCE,
    checking::check,
    power::model::{Model, every_moment},
    *,
};
use crate::storage::{NewTag, Severity};

/// Tags of the manifest that goes, between which that of another one lies.
const TAGS: usize = 3 * TAGS_AT_ONCE + 1;
const OTHER: &str = "t4-of-another";

fn tags() -> Vec<NewTag> {
    (0..TAGS).map(|n| format!("t{n}").parse().unwrap()).collect()
}

fn put(store: &Store, layer: &str, tags: &[NewTag]) -> Result<Put, Error> {
    let (manifest, bytes) = image(layer);
    store.put_manifest(&repository(), manifest, &of(layer), &bytes, tags, None)
}

fn of(layer: &str) -> Digest {
    Digest::of(Algorithm::Sha256, &image(layer).1)
}

fn filled() -> (TempDir, Store) {
    let (root, store) = store();
    for content in ["{}", "goes", "stays"] {
        push(&store, content);
    }
    assert_eq!(put(&store, "goes", &tags()).unwrap(), Put::Stored);
    assert_eq!(put(&store, "stays", &[OTHER.parse().unwrap()]).unwrap(), Put::Stored);
    store.durable.journal.checkpoint().unwrap();
    (root, store)
}

fn delete(store: &Store) -> Result<Deleted, Error> {
    store.delete_manifest(&repository(), &of("goes"), None)
}

fn is_there(store: &Store, reference: &str) -> bool {
    store.find_manifest(&repository(), &reference.parse().unwrap()).unwrap().is_some()
}

/// All tags, in pages of so many.
fn listed(store: &Store, n: usize) -> Vec<String> {
    let mut listed: Vec<String> = Vec::new();
    loop {
        let last = listed.last().cloned();
        let (page, more) = store.tags(&repository(), last.as_deref(), n).unwrap().unwrap();
        assert!(page.len() == n || !more, "a page is full");
        listed.extend(page);
        if !more {
            return listed;
        }
    }
}

/// What all that can be seen says: whether the manifest is there with all its tags, or gone with all of them.
fn is_whole(store: &Store) -> bool {
    let is_whole = is_there(store, of("goes").as_str());
    let mut expected: Vec<_> = tags().into_iter().map(|new| new.tag.to_string()).collect();
    assert!(expected.iter().all(|tag| is_there(store, tag) == is_whole), "half of it can be pulled");
    if !is_whole {
        expected.clear();
    }
    expected.push(OTHER.to_owned());
    expected.sort();
    for n in [1, 2, 1000] {
        assert_eq!(listed(store, n), expected, "in pages of {n}");
    }
    let state = store.state(&repository(), None, 1000).unwrap().unwrap().entries;
    let deleted = state.iter().filter(|entry| entry.deleted);
    let stamps: BTreeSet<_> = deleted.clone().map(|entry| &entry.stamp.time).collect();
    assert_eq!((state.len(), deleted.count()), if is_whole { (TAGS + 1, 0) } else { (TAGS + 2, TAGS + 1) });
    assert!(stamps.len() < 2, "all went at one time: {stamps:?}");
    assert!(is_there(store, OTHER));
    is_whole
}

/// Nothing is left of it but records.
fn assert_gone(store: &Store) {
    assert!(!is_whole(store));
    let folder = store.layout.repository(&repository());
    assert_eq!(folder::names(&folder.tags()).unwrap(), [OTHER]);
    for name in tags().iter().map(|new| new.tag.as_str()).chain([of("goes").as_str()]) {
        assert!(store.deletion(&repository(), name).unwrap().is_some(), "{name}");
    }
    assert!(!store.layout.deleting(&of("goes"), &repository()).exists());
}

fn assert_no_damage(store: &Store) {
    let damage = check(store, false).into_iter().find(|problem| problem.severity == Severity::Damage);
    assert_eq!(damage, None);
}

/// As a kill leaves it, when nothing is done any more from a step on, or a failure of the disk.
#[test]
fn wherever_it_ends_all_of_it_is_there_or_nothing() {
    let (mut whole, mut gone) = (0, 0);
    for step in 1.. {
        let (root, store) = filled();
        let faults = Arc::clone(&store.durable.disk.faults);
        faults.plan(step, if step % 2 == 0 { 1 } else { usize::MAX }, Errno::IO);
        let done = delete(&store);
        let steps = faults.heal();
        let was_whole = is_whole(&store);
        *(if was_whole { &mut whole } else { &mut gone }) += usize::from(done.is_err());
        assert_no_damage(&store);
        if step % 3 == 0 {
            // What is to be done is not in the journal alone.
            store.durable.journal.checkpoint().unwrap();
        }
        let killed = killed(root.path());
        let found = Store::open(killed.path()).unwrap();
        if !was_whole || !is_whole(&found) {
            assert_gone(&found);
        }
        assert_no_damage(&found);
        match step % 4 {
            // What comes next finds nothing of it.
            0 => assert_eq!(put(&store, "goes", &tags()[..1]).unwrap(), Put::Stored),
            1 => {
                let again = delete(&store).unwrap();
                assert_eq!(again, if was_whole { Deleted::Done } else { Deleted::Unknown });
                assert_gone(&store);
            }
            2 if !was_whole => {
                assert_eq!(store.delete_tag(&repository(), &tags()[0].tag, None).unwrap(), Deleted::Unknown);
                assert_gone(&store);
            }
            _ if !was_whole => {
                collecting::collect(&store, false, Duration::from_secs(1000));
                assert_gone(&store);
            }
            _ => {}
        }
        assert_no_damage(&store);
        if step % 4 == 0 && !was_whole {
            assert_eq!(listed(&store, 10), ["t0", OTHER]);
        }
        if steps < step {
            assert_eq!(done.unwrap(), Deleted::Done);
            break;
        }
    }
    assert!(whole > 5 && gone > 5, "{whole} ended before, {gone} after it was gone");
}

#[test]
fn whenever_the_power_fails_all_of_it_is_there_or_nothing() {
    let (root, store) = filled();
    let faults = Arc::clone(&store.durable.disk.faults);
    let model = Model::of(root.path());
    faults.record();
    assert_eq!(delete(&store).unwrap(), Deleted::Done);
    let done = faults.done();
    let (mut whole, mut again) = (0, 0);
    every_moment(model, root.path(), &done, 4, |moment, seed, kept| {
        let model = (seed % 3 == 0).then(|| Model::of(kept.path()));
        let disk = Disk::default();
        disk.faults.record();
        let found = Store::open_on(disk.clone(), kept.path(), "the next run".to_owned()).unwrap();
        let is_whole = is_whole(&found);
        assert!(!is_whole || moment < done.len(), "it was acknowledged");
        if !is_whole {
            assert_gone(&found);
        }
        assert_no_damage(&found);
        whole += usize::from(is_whole);
        let Some(model) = model.filter(|_| !is_whole) else { return };
        drop(found);
        // It may fail again while the rest goes.
        let steps = disk.faults.done();
        again += steps.len();
        every_moment(model, kept.path(), &steps, 1, |_, _, kept| {
            let found = Store::open_on(Disk::default(), kept.path(), "the one after it".to_owned()).unwrap();
            assert_gone(&found);
            assert_no_damage(&found);
        });
    });
    assert!(whole > 20 && again > 300, "{whole}, {again}");
}

/// A mark that was left when nothing else was changed, as a power failure may leave it.
#[test]
fn a_mark_does_not_hide_what_is_there() {
    let (root, store) = filled();
    let mark = store.layout.deleting(&of("goes"), &repository());
    store.durable.mark(std::slice::from_ref(&mark)).unwrap();
    drop(store);
    let store = Store::open(root.path()).unwrap();
    assert!(is_whole(&store) && !mark.exists());
    assert_eq!(delete(&store).unwrap(), Deleted::Done);
    assert_gone(&store);
}

#[test]
fn who_looks_meanwhile_sees_all_of_it_or_nothing() {
    let (_root, store) = filled();
    for _ in 0..20 {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for n in [2, 1000] {
                let (store, is_over) = (&store, &is_over);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        // One page, for another one is of another moment.
                        let (page, _) = store.tags(&repository(), None, n).unwrap().unwrap();
                        let whole = (TAGS + 1).min(n);
                        assert!(page == [OTHER] || page.len() == whole, "{page:?}");
                        let state = store.state(&repository(), None, 1000).unwrap().unwrap().entries;
                        let deleted = state.iter().filter(|entry| entry.deleted).count();
                        assert!(deleted == 0 || deleted == TAGS + 1, "{deleted}");
                    }
                });
            }
            let done = delete(&store);
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(done.unwrap(), Deleted::Done);
        });
        assert_gone(&store);
        assert_eq!(put(&store, "goes", &tags()).unwrap(), Put::Stored);
    }
}

#[test]
fn the_feed_tells_of_each_tag_and_of_the_manifest_last() {
    let (_root, store) = filled();
    let mut at = store.feed.present();
    assert_eq!(delete(&store).unwrap(), Deleted::Done);
    let mut told = Vec::new();
    loop {
        let piece = store.feed.read(at, 2, |_| true).unwrap().unwrap();
        told.extend(piece.entries.into_iter().map(|entry| entry.tag));
        at = piece.next;
        if piece.is_end {
            break;
        }
    }
    assert_eq!(told.pop(), Some(None));
    let mut told: Vec<_> = told.into_iter().flatten().collect();
    told.sort();
    let mut expected: Vec<_> = tags().into_iter().map(|new| new.tag.to_string()).collect();
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn a_start_without_room_ends_it_when_there_is_some() {
    let (root, store) = filled();
    let before = killed(root.path());
    assert_eq!(delete(&store).unwrap(), Deleted::Done);
    for file in ["0", "1"] {
        let path = Path::new("journal").join(file);
        fs::copy(root.path().join(&path), before.path().join(&path)).unwrap();
    }
    for room in 0.. {
        let killed = killed(before.path());
        let disk = Disk::default();
        disk.faults.leave_room(room);
        let found = Store::open_on(disk.clone(), killed.path(), "another run".to_owned()).unwrap();
        disk.faults.heal();
        let is_enough = found.takes_changes();
        found.catch_up().unwrap();
        assert_gone(&found);
        assert_no_damage(&found);
        if is_enough {
            assert!(room > TAGS, "each record needs some");
            break;
        }
    }
}
