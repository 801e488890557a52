//! A start without room for what the journal holds, and what comes of it when there is some.

use std::time::Duration;

use rustix::io::Errno;

use super::{
    journal::{copy_journal, filled, put, tagged},
    *,
};

#[test]
fn a_start_on_a_full_disk_needs_no_room_for_what_is_there() {
    let (root, store) = filled();
    let one = put(&store, "one", "tag").unwrap();
    let mut full = 0;
    for step in 1.. {
        let killed = killed(root.path());
        let (disk, tmp) = (Disk::default(), killed.path().join("tmp"));
        disk.faults.plan(step, 1, Errno::NOSPC);
        let opened = Store::open_on(disk.clone(), killed.path(), feed::boot_id());
        let steps = disk.faults.heal();
        match &opened {
            Ok(found) => {
                full += 1;
                assert_eq!(tagged(found, "tag").as_ref(), Some(&one));
                assert!(found.durable.journal.is_empty() && leftovers(found).is_empty());
            }
            Err(OpenError::Storage(Error::Full { path, .. })) => {
                assert!(path.parent() != Some(&tmp), "there is no room for {}", path.display());
            }
            Err(error) => panic!("{error}"),
        }
        if steps < step {
            break;
        }
    }
    assert!(full > 8, "a push has more files than the {full} for which there was no room");
}

#[test]
fn a_start_without_room_for_what_is_missing_serves_the_rest_and_takes_nothing() {
    let (root, store) = filled();
    let one = put(&store, "one", "there").unwrap();
    store.durable.journal.checkpoint().unwrap();
    let before = killed(root.path());
    let two = put(&store, "two", "missing").unwrap();
    push(&store, "three");
    copy_journal(&root, &before);
    for room in 0.. {
        let killed = killed(before.path());
        let disk = Disk::default();
        disk.faults.leave_room(room);
        let found = Store::open_on(disk.clone(), killed.path(), "another run".to_owned()).unwrap();
        assert_eq!(tagged(&found, "there").as_ref(), Some(&one));
        assert!(found.open_blob(&repository(), &digest("one")).unwrap().is_some());
        let is_taking = found.takes_changes();
        disk.faults.heal();
        if !is_taking {
            let is_full = |done: Result<(), Error>| matches!(done, Err(Error::Full { .. }));
            assert!(is_full(put(&found, "one", "new").map(drop)));
            assert!(is_full(found.delete_tag(&repository(), &"there".parse().unwrap(), None).map(drop)));
            let how = Collecting { dry_run: false, grace: Duration::ZERO };
            assert!(is_full(found.collect(how, &mut |_| {}, &mut || true)));
            assert!(is_full(found.verify(true, &mut |_| {}, &mut || true)));
        }
        let found = if room % 2 == 0 {
            drop(found);
            Store::open(killed.path()).unwrap()
        } else {
            found.catch_up().unwrap();
            found
        };
        assert!(found.takes_changes());
        assert_eq!(tagged(&found, "missing").as_ref(), Some(&two), "room for {room}");
        assert!(found.open_blob(&repository(), &digest("three")).unwrap().is_some());
        if is_taking {
            assert!(room > 15, "there was more to do again");
            break;
        }
    }
}

#[test]
fn what_there_was_no_room_for_is_done_when_there_is_some_whatever_fails_meanwhile() {
    let (root, store) = filled();
    let one = put(&store, "one", "moves").unwrap();
    store.durable.journal.checkpoint().unwrap();
    let before = killed(root.path());
    put(&store, "two", "moves").unwrap();
    put(&store, "one", "moves").unwrap();
    let two = put(&store, "two", "missing").unwrap();
    copy_journal(&root, &before);
    let mut failed = 0;
    for step in 1.. {
        let killed = killed(before.path());
        let disk = Disk::default();
        disk.faults.leave_room(2);
        let found = Store::open_on(disk.clone(), killed.path(), "another run".to_owned()).unwrap();
        assert!(!found.takes_changes());
        // Somebody has looked.
        assert_eq!(found.tags(&repository(), None, 10).unwrap().unwrap().0, ["moves"]);
        disk.faults.leave_room(1);
        assert!(matches!(found.catch_up(), Err(Error::Full { .. })) && !found.takes_changes());
        disk.faults.plan(step, 1, Errno::IO);
        let done = found.catch_up();
        let steps = disk.faults.heal();
        failed += usize::from(done.is_err());
        if found.durable.journal.is_behind() {
            put(&found, "one", "new").unwrap_err();
            found.catch_up().unwrap();
        }
        if found.takes_changes() {
            put(&found, "one", "new").unwrap();
        }
        // The disk could not be synced: that takes another start.
        let found = if found.takes_changes() {
            found
        } else {
            drop(found);
            Store::open(killed.path()).unwrap()
        };
        assert_eq!(tagged(&found, "moves").as_ref(), Some(&one), "step {step}");
        assert_eq!(tagged(&found, "missing").as_ref(), Some(&two), "step {step}");
        let names = found.tags(&repository(), None, 10).unwrap().unwrap().0;
        assert!(names == ["missing", "moves", "new"] || names == ["missing", "moves"], "{names:?}");
        if steps < step {
            done.unwrap();
            break;
        }
    }
    assert!(failed > 10, "it has more steps than the {failed} that failed it");
}
