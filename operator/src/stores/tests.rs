//! What watches tell is there before anybody hears of it.

use std::sync::Mutex;

use serde_json::json;

use kube::core::DeserializeGuard;

use super::*;
use crate::testing;

#[tokio::test]
async fn a_change_is_told_once_the_store_has_it_with_what_was_before() {
    let with = |generation| {
        let mut repository = testing::repository("apps", "web", &json!({}));
        repository.metadata.generation = Some(generation);
        DeserializeGuard(Ok(repository))
    };
    let events = [
        Event::Init,
        Event::InitApply(with(1)),
        Event::InitDone,
        Event::Apply(with(2)),
        Event::Delete(with(2)),
    ];
    let writer = Writer::<GuardedRepository>::default();
    let (store, told) = (writer.as_reader(), Arc::new(Mutex::new(Vec::new())));
    let generation =
        |guarded: Option<&GuardedRepository>| guarded.and_then(|guarded| guarded.meta().generation);
    let tell = {
        let told = Arc::clone(&told);
        move |change: Change<'_, GuardedRepository>| {
            let there = store.state().first().and_then(|guarded| generation(Some(guarded)));
            told.lock().unwrap().push(match change {
                Change::One { before, now } => (generation(before), generation(now), there),
                Change::Anything => (None, None, there),
            });
        }
    };
    let touched = follow(futures::stream::iter(events.map(Ok)), writer, tell);
    assert_eq!(touched.count().await, 3);
    let expected = [(None, None, Some(1)), (Some(1), Some(2), Some(2)), (Some(2), None, None)];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn a_repository_that_cannot_be_read_any_more_stays_what_it_was_and_its_images_stay() {
    let fields = json!({"visibility": "Public", "deletionPolicy": "Delete"});
    let readable = testing::repository("apps", "web", &fields);
    let unreadable = |name: &str, uid: &str| -> GuardedRepository {
        let now = "2026-01-01T00:00:00Z";
        let metadata =
            json!({"namespace": "apps", "name": name, "uid": uid, "generation": 2, "deletionTimestamp": now});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"visibility": "Sideways"}})).unwrap()
    };
    let mut writer = Writer::<GuardedRepository>::default();
    writer.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(readable.clone()))));
    let known = writer.as_reader();
    let kept = |guarded: GuardedRepository| match keep_readable(Event::InitApply(guarded), &known) {
        Event::InitApply(kept) => kept.0.ok(),
        other => panic!("{other:?}"),
    };
    let uid = readable.metadata.uid.clone().unwrap();
    let now = kept(unreadable("web", &uid)).unwrap();
    assert_eq!(now.spec.visibility, readable.spec.visibility);
    assert_eq!((now.metadata.generation, now.spec.deletion_policy), (Some(1), DeletionPolicy::Retain));
    assert!(now.metadata.deletion_timestamp.is_some());
    // Another one of the name, and one that never could be read.
    assert!(kept(unreadable("web", "another")).is_none() && kept(unreadable("other", &uid)).is_none());
    let changed = testing::repository("apps", "web", &json!({"visibility": "Cluster"}));
    assert_eq!(kept(DeserializeGuard(Ok(changed.clone()))).unwrap().spec.visibility, changed.spec.visibility);
}
