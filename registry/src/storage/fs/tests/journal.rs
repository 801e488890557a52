//! The journal: what is done again at a start, and what a failing one does.

use std::sync::Arc;

use rustix::io::Errno;

use super::*;

pub(super) fn tagged(store: &Store, tag: &str) -> Option<Digest> {
    store.resolve(&repository(), &tag.parse().unwrap()).unwrap()
}

/// Pushes an image of one layer that is there.
pub(super) fn put(store: &Store, layer: &str, tag: &str) -> Result<Digest, Error> {
    let (manifest, bytes) = image(layer);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let put = store.put_manifest(&repository(), manifest, &digest, &bytes, &[tag.parse().unwrap()], None)?;
    assert_eq!(put, Put::Stored);
    Ok(digest)
}

/// A store with two layers, and nothing in its journal.
pub(super) fn filled() -> (TempDir, Store) {
    let (root, store) = store();
    for content in ["{}", "one", "two"] {
        push(&store, content);
    }
    store.durable.journal.checkpoint().unwrap();
    assert!(store.durable.journal.is_empty());
    (root, store)
}

pub(super) fn copy_journal(from: &TempDir, to: &TempDir) {
    for file in ["0", "1"] {
        let path = Path::new("journal").join(file);
        fs::copy(from.path().join(&path), to.path().join(&path)).unwrap();
    }
}

/// Opens what is left when only the journal was synced: nothing that was changed in the folders.
fn only_the_journal(before: TempDir, root: &TempDir) -> (TempDir, Store) {
    copy_journal(root, &before);
    let store = Store::open(before.path()).unwrap();
    (before, store)
}

#[test]
fn everything_is_done_again_in_its_order() {
    let (root, store) = filled();
    let remove = |tag: &str| {
        assert_eq!(store.delete_tag(&repository(), &tag.parse().unwrap(), None).unwrap(), Deleted::Done);
    };
    let before = killed(root.path());
    let one = put(&store, "one", "moves").unwrap();
    let two = put(&store, "two", "moves").unwrap();
    put(&store, "one", "goes").unwrap();
    remove("goes");
    put(&store, "one", "back").unwrap();
    remove("back");
    put(&store, "two", "back").unwrap();
    push(&store, "three");
    push(&store, "four");
    assert_eq!(store.delete_blob(&repository(), &digest("four")).unwrap(), Deleted::Done);
    let (_root, found) = only_the_journal(before, &root);
    assert_eq!((tagged(&found, "moves"), tagged(&found, "goes")), (Some(two.clone()), None));
    assert_eq!(
        found.deletion(&repository(), "goes").unwrap(),
        store.deletion(&repository(), "goes").unwrap()
    );
    assert_eq!(tagged(&found, "back"), Some(two));
    assert_eq!(found.deletion(&repository(), "back").unwrap(), None, "what was undone stays undone");
    let (one, file) = found.open_manifest(&repository(), &Reference::Digest(one)).unwrap().unwrap();
    assert!(found.read_manifest(&one, file).unwrap().is_some());
    assert!(found.open_blob(&repository(), &digest("three")).unwrap().is_some());
    assert!(found.open_blob(&repository(), &digest("four")).unwrap().is_none());
    assert!(found.durable.journal.is_empty());
}

#[test]
fn a_start_that_fails_loses_nothing() {
    let (root, store) = filled();
    let before = killed(root.path());
    let one = put(&store, "one", "moves").unwrap();
    let two = put(&store, "two", "moves").unwrap();
    copy_journal(&root, &before);
    let mut failed = 0;
    for step in 1.. {
        let killed = killed(before.path());
        let disk = Disk::default();
        disk.faults.plan(step, 1, Errno::IO);
        let opened = Store::open_on(disk.clone(), killed.path(), feed::boot_id()).map(drop);
        let steps = disk.faults.heal();
        failed += usize::from(opened.is_err());
        let found = Store::open(killed.path()).unwrap();
        assert_eq!(tagged(&found, "moves").as_ref(), Some(&two), "step {step}");
        assert!(found.record(&repository(), &one).unwrap().is_some());
        if steps < step {
            opened.unwrap();
            break;
        }
    }
    assert!(failed > 20, "a start has more steps than the {failed} that failed it");
}

#[test]
fn a_first_start_that_fails_does_not_keep_the_next_one_from_beginning() {
    for step in 1.. {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let disk = Disk::default();
        disk.faults.plan(step, usize::MAX, Errno::IO);
        let opened = Store::open_on(disk.clone(), root.path(), feed::boot_id()).map(drop);
        let steps = disk.faults.heal();
        Store::open(root.path()).unwrap();
        if steps < step {
            opened.unwrap();
            assert!(step > 20, "a first start has more steps");
            break;
        }
    }
}

#[test]
fn an_orderly_end_leaves_an_empty_journal() {
    let (root, store) = filled();
    put(&store, "one", "tag").unwrap();
    assert!(!store.durable.journal.is_empty());
    drop(store);
    let before = killed(root.path());
    for file in ["0", "1"] {
        fs::remove_file(before.path().join("journal").join(file)).unwrap();
    }
    fs::remove_dir(before.path().join("journal")).unwrap();
    // As a root of a former layout is.
    assert!(tagged(&Store::open(before.path()).unwrap(), "tag").is_some());
}

#[test]
fn many_changes_at_once_are_all_there_again_and_the_journal_stays_short() {
    let (root, store) = filled();
    let large = vec![b'x'; 300_000];
    std::thread::scope(|scope| {
        for pusher in 0..4 {
            let (store, large) = (&store, &large);
            scope.spawn(move || {
                for n in 0..40 {
                    put(store, "one", &format!("t{pusher}-{n}")).unwrap();
                    store.durable.write(&store.layout.quarantine().join("large"), large).unwrap();
                }
            });
        }
    });
    for file in ["0", "1"] {
        let length = fs::metadata(root.path().join("journal").join(file)).unwrap().len();
        assert!(length < 18 << 20, "{length} bytes are many");
    }
    let killed = killed(root.path());
    let found = Store::open(killed.path()).unwrap();
    for pusher in 0..4 {
        for n in 0..40 {
            assert!(tagged(&found, &format!("t{pusher}-{n}")).is_some());
        }
    }
}

#[test]
fn a_change_that_fails_is_not_done_after_what_came_later() {
    for step in 1.. {
        let (root, store) = filled();
        let faults = Arc::clone(&store.durable.disk.faults);
        faults.plan(step, 1, Errno::IO);
        let failed = put(&store, "one", "tag");
        let steps = faults.heal();
        if let Err(error) = &failed {
            assert!(error.to_string().contains("failed to "), "{error}");
            // What the failed push would need goes, which is right only if that never comes to be.
            if tagged(&store, "tag").is_none()
                && store.delete_blob(&repository(), &digest("one")).unwrap() == Deleted::Done
            {
                let killed = killed(root.path());
                let found = Store::open(killed.path()).unwrap();
                assert_eq!(tagged(&found, "tag"), None, "step {step}");
            }
        }
        put(&store, "two", "tag").unwrap();
        if steps < step {
            failed.unwrap();
            break;
        }
    }
}

#[test]
fn after_a_checkpoint_that_can_not_sync_nothing_is_taken_until_the_next_start() {
    let (root, store) = filled();
    let before = killed(root.path());
    let one = put(&store, "one", "tag").unwrap();
    let faults = Arc::clone(&store.durable.disk.faults);
    faults.plan(1, 1, Errno::IO);
    assert!(store.takes_changes());
    store.durable.journal.checkpoint().unwrap_err();
    assert!(!store.takes_changes());
    faults.heal();
    for _ in 0..2 {
        put(&store, "two", "tag").unwrap_err();
        store.delete_tag(&repository(), &"tag".parse().unwrap(), None).unwrap_err();
        store.durable.journal.checkpoint().unwrap_err();
    }
    assert_eq!(tagged(&store, "tag"), Some(one.clone()), "reading goes on");
    drop(store);
    let (_root, found) = only_the_journal(before, &root);
    assert_eq!(tagged(&found, "tag"), Some(one));
    assert!(found.takes_changes());
    put(&found, "two", "tag").unwrap();
}

#[test]
fn a_checkpoint_may_fail_at_any_step() {
    for step in 1..8 {
        let (root, store) = filled();
        let before = killed(root.path());
        let one = put(&store, "one", "one").unwrap();
        let faults = Arc::clone(&store.durable.disk.faults);
        faults.plan(step, 1, Errno::IO);
        let done = store.durable.journal.checkpoint();
        let two = put(&store, "two", "two").ok();
        faults.heal();
        let killed = killed(root.path());
        let found = Store::open(killed.path()).unwrap();
        assert_eq!(tagged(&found, "one"), Some(one.clone()));
        assert!(two.is_none() || tagged(&found, "two") == two);
        if step == 1 {
            done.unwrap_err();
            let (_root, found) = only_the_journal(before, &root);
            assert_eq!(tagged(&found, "one"), Some(one));
        }
    }
}

#[test]
fn a_journal_that_holds_something_else_is_no_reason_to_do_that() {
    let (root, store) = filled();
    drop(store);
    for file in ["0", "1"] {
        fs::write(root.path().join("journal").join(file), vec![7; 100_000]).unwrap();
    }
    let store = Store::open(root.path()).unwrap();
    put(&store, "one", "tag").unwrap();
    assert!(tagged(&Store::open(killed(root.path()).path()).unwrap(), "tag").is_some());
}
