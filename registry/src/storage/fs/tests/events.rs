//! Stamps of tags, and records of deletions.

use std::time::{Duration, SystemTime};

use super::{checking::check, collecting::collect, damaged::filled, *};
use crate::storage::{Collected, Stamp, StatePage};

fn stamp(time: &str) -> Stamp {
    Stamp::parse(&format!("elsewhere; time=2026-01-01T00:00:{time}Z")).unwrap()
}

/// Pushes an image; what became of it.
fn push_image(store: &Store, layer: &str, tags: &[&str], stamp: Option<&Stamp>) -> Put {
    push(store, layer);
    let (manifest, bytes) = image(layer);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let tags: Vec<_> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    store.put_manifest(&repository(), manifest, &digest, &bytes, &tags, stamp).unwrap()
}

fn delete(store: &Store, tag: &str, stamp: Option<&Stamp>) -> Deleted {
    store.delete_tag(&repository(), &tag.parse().unwrap(), stamp).unwrap()
}

fn all(store: &Store) -> StatePage {
    store.state(&repository(), None, 1000).unwrap().unwrap()
}

/// Names, with a minus before those that were deleted, and times.
fn state(store: &Store) -> Vec<(String, String)> {
    let entries = all(store).entries.into_iter();
    let name = |deleted, name| if deleted { format!("-{name}") } else { name };
    entries.map(|entry| (name(entry.deleted, entry.name), entry.stamp.time)).collect()
}

fn at(name: &str, second: &str) -> (String, String) {
    (name.to_owned(), format!("2026-01-01T00:00:{second}.000000Z"))
}

fn of(layer: &str) -> Digest {
    Digest::of(Algorithm::Sha256, &image(layer).1)
}

#[test]
fn the_later_of_two_stamps_counts_whatever_comes_first() {
    let (_root, store) = store();
    push(&store, "{}");
    assert_eq!(push_image(&store, "one", &["v1", "v2"], Some(&stamp("10"))), Put::Stored);
    assert_eq!(push_image(&store, "two", &["v1"], Some(&stamp("09"))), Put::Older(stamp("10")));
    assert_eq!(push_image(&store, "two", &["v3", "v1"], Some(&stamp("09"))), Put::Older(stamp("10")));
    assert_eq!(state(&store), [at("v1", "10"), at("v2", "10")], "nothing changed, not even `v3`");
    assert_eq!(push_image(&store, "one", &["v1"], Some(&stamp("11"))), Put::Stored);
    assert_eq!(state(&store)[0], at("v1", "10"), "the same again changes nothing");
    // At the same time the larger digest.
    let (small, large) = if of("one") < of("two") { ("one", "two") } else { ("two", "one") };
    push_image(&store, small, &["tie"], Some(&stamp("10")));
    assert_eq!(push_image(&store, large, &["tie"], Some(&stamp("10"))), Put::Stored);
    assert_eq!(push_image(&store, small, &["tie"], Some(&stamp("10"))), Put::Older(stamp("10")));
    // Here it is now, so that this is later than anything.
    assert_eq!(push_image(&store, small, &["tie"], None), Put::Stored);
    assert!(state(&store)[0].1 > at("", "59").1);
    assert_eq!(all(&store).entries[0].stamp.origin, store.id().as_str());
}

#[test]
fn deletions_are_recorded_until_what_they_deleted_is_back() {
    let (_root, store) = store();
    push(&store, "{}");
    push_image(&store, "one", &["v1", "v2"], Some(&stamp("10")));
    assert_eq!(delete(&store, "v1", Some(&stamp("09"))), Deleted::Older(stamp("10")));
    assert_eq!(delete(&store, "v1", Some(&stamp("11"))), Deleted::Done);
    assert_eq!(delete(&store, "v1", Some(&stamp("12"))), Deleted::Unknown);
    assert_eq!(state(&store), [at("-v1", "11"), at("v2", "10")]);
    assert_eq!(push_image(&store, "one", &["v1"], Some(&stamp("10"))), Put::Older(stamp("11")));
    assert_eq!(push_image(&store, "one", &["v1"], Some(&stamp("12"))), Put::Stored);
    assert_eq!(state(&store), [at("v1", "12"), at("v2", "10")]);

    let remove = |second| store.delete_manifest(&repository(), &of("one"), Some(&stamp(second))).unwrap();
    assert_eq!(remove("11"), Deleted::Older(stamp("12")), "one of its tags is later");
    assert_eq!(remove("13"), Deleted::Done);
    let manifest = format!("-{}", of("one"));
    assert_eq!(state(&store), [at(&manifest, "13"), at("-v1", "13"), at("-v2", "13")]);
    let (manifest, bytes) = image("one");
    let by_digest = |second| {
        store
            .put_manifest(&repository(), manifest.clone(), &of("one"), &bytes, &[], Some(&stamp(second)))
            .unwrap()
    };
    assert_eq!(by_digest("12"), Put::Older(stamp("13")));
    assert_eq!(by_digest("14"), Put::Stored);
    assert_eq!(by_digest("12"), Put::Stored, "it is there already");
    assert_eq!(state(&store), [at("-v1", "13"), at("-v2", "13")]);
    assert_eq!(push_image(&store, "one", &["v1", "v2"], None), Put::Stored);
    assert_eq!(state(&store).len(), 2);
    assert_eq!(check(&store, false), []);
}

#[test]
fn tags_from_before_there_were_stamps_count_from_when_they_were_written() {
    let (_root, store, digest) = filled();
    let path = store.layout.repository(&repository()).tag(&"v1".parse().unwrap());
    fs::write(&path, format!("{digest}\n")).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    File::open(&path).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(state(&store), [("v1".to_owned(), "2023-11-14T22:13:20.000000Z".to_owned())]);
    assert_eq!(all(&store).entries[0].stamp.origin, store.id().as_str());
    assert_eq!(check(&store, false), []);
    assert_eq!(push_image(&store, "layer", &["v1"], None), Put::Stored);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{digest}\n"), "the same again changes nothing");
    assert_eq!(push_image(&store, "new", &["v1"], Some(&stamp("10"))), Put::Stored);
    assert_eq!(state(&store), [at("v1", "10")]);
}

#[test]
fn pages_hold_tags_and_deletions_in_the_order_of_names() {
    let (_root, store) = store();
    push(&store, "{}");
    push_image(&store, "layer", &["a", "b", "c", "d", "e"], None);
    for tag in ["b", "d"] {
        delete(&store, tag, None);
    }
    let mut names = Vec::new();
    let mut last: Option<String> = None;
    loop {
        let page = store.state(&repository(), last.as_deref(), 2).unwrap().unwrap();
        names.extend(page.entries.into_iter().map(|entry| (entry.name, entry.deleted)));
        last = page.more_after;
        if last.is_none() {
            break;
        }
    }
    let expected = [("a", false), ("b", true), ("c", false), ("d", true), ("e", false)];
    assert_eq!(names, expected.map(|(name, deleted)| (name.to_owned(), deleted)));
    assert!(store.state(&"other".parse().unwrap(), None, 2).unwrap().is_none());
    // Where nothing is left, what was deleted still is.
    store.delete_manifest(&repository(), &of("layer"), None).unwrap();
    collect(&store, false, Duration::ZERO);
    assert_eq!(all(&store).entries.iter().filter(|entry| entry.deleted).count(), 6);
}

#[test]
fn records_go_after_ninety_days_and_where_they_do_not_count() {
    let (_root, store) = store();
    push(&store, "{}");
    push_image(&store, "layer", &["old", "undone", "young"], None);
    let folder = store.layout.repository(&repository());
    for tag in ["old", "undone", "young"] {
        delete(&store, tag, None);
    }
    let undone = fs::read(folder.deletion("undone")).unwrap();
    push_image(&store, "layer", &["undone"], None);
    assert!(!folder.deletion("undone").exists());
    // As a power failure may leave it.
    fs::write(folder.deletion("undone"), undone).unwrap();
    let age = |days: u64| SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    File::open(folder.deletion("old")).unwrap().set_modified(age(90)).unwrap();
    File::open(folder.deletion("young")).unwrap().set_modified(age(89)).unwrap();
    assert_eq!(
        state(&store).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["-old", "undone", "-young"]
    );
    assert_eq!(check(&store, false).len(), 1, "the one that a crash left");
    let deletions = |collected: Vec<Collected>| {
        let paths = collected.into_iter().map(|one| one.path);
        let mut names: Vec<_> =
            paths.filter_map(|path| Some(path.split_once("_deleted/")?.1.to_owned())).collect();
        names.sort();
        names
    };
    assert_eq!(deletions(collect(&store, true, Duration::ZERO)), ["old", "undone"]);
    assert_eq!(deletions(collect(&store, false, Duration::ZERO)), ["old", "undone"]);
    assert_eq!(folder::names(&folder.deletions()).unwrap(), ["young"]);
    fs::write(folder.deletion("young"), "torn").unwrap();
    assert_eq!(check(&store, true).len(), 1);
    assert_eq!(state(&store).len(), 1, "what can't be read is no deletion");
}

/// Of pushes that race, with stamps in any order, the latest one is what stays.
#[test]
fn pushes_that_race_end_with_the_latest_stamp() {
    let (_root, store) = store();
    push(&store, "{}");
    for round in 0..20 {
        let tag = format!("t{round}");
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (store, tag) = (&store, &tag);
                scope.spawn(move || {
                    let stamp = stamp(&format!("1{n}"));
                    push_image(store, &format!("layer {n}"), &[tag], Some(&stamp));
                });
            }
        });
        let tag: oci::Tag = tag.parse().unwrap();
        assert_eq!(store.resolve(&repository(), &tag).unwrap(), Some(of("layer 3")));
    }
}

#[test]
fn a_registry_keeps_its_id() {
    let (root, store) = store();
    let id = store.id().clone();
    drop(store);
    let store = Store::open(root.path()).unwrap();
    assert_eq!(*store.id(), id);
    drop(store);
    fs::write(root.path().join("registry.id"), "no id").unwrap();
    assert!(matches!(Store::open(root.path()), Err(OpenError::Storage(Error::Damaged { .. }))));
}

#[test]
fn what_is_attached_is_said_in_a_word_whatever_entries_are_left_over() {
    let (_root, store) = store();
    push(&store, "{}");
    push_image(&store, "one", &["v1"], None);
    let attached = || all(&store).entries.into_iter().find(|entry| entry.name == "v1").unwrap().attached;
    assert_eq!(attached(), None);
    let folder = store.layout.repository(&repository());
    store.durable.mark(&[folder.referrer(&of("one"), &digest("gone"))]).unwrap();
    assert_eq!(attached(), None, "there is no such manifest");

    // A manifest that refers to it, and one that refers to that.
    let refer = |subject: &Digest, note: &str| {
        let mut document: serde_json::Value = serde_json::from_slice(&image("one").1).unwrap();
        document["subject"] = serde_json::json!({"mediaType": manifest::IMAGE, "digest": subject, "size": 1});
        document["annotations"] = serde_json::json!({"note": note});
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let manifest = Manifest::parse(Some(manifest::IMAGE), &bytes).unwrap();
        store.put_manifest(&repository(), manifest, &digest, &bytes, &[], None).unwrap();
        digest
    };
    let signature = refer(&of("one"), "");
    let of_one = attached();
    refer(&signature, "");
    assert!(of_one.is_some() && attached().is_some() && attached() != of_one);
    store.delete_manifest(&repository(), &signature, None).unwrap();
    assert_eq!(attached(), None, "nothing leads to the second one any more");

    let many: Vec<_> = (0..2000).map(|n| folder.referrer(&of("one"), &digest(&n.to_string()))).collect();
    store.durable.mark(&many).unwrap();
    assert_eq!(attached().as_deref(), Some(channel::feed::MANY));
}
