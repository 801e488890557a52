//! Collection.

use std::time::Duration;

use super::*;
use crate::storage::fs::CollectedKind as Kind;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn kinds(objects: &Objects, grace: Duration) -> Vec<Kind> {
    let mut kinds: Vec<_> =
        collect(objects, grace).await.unwrap().into_iter().map(|found| found.kind).collect();
    kinds.sort_unstable();
    kinds
}

#[tokio::test]
async fn what_nothing_needs_goes_and_everything_else_stays() {
    let pair = Pair::new();
    let (name, other) = (repository("a"), repository("b/c"));
    for content in ["{}", "layer", "unneeded"] {
        push_text(&pair.one, &name, content).await.unwrap();
    }
    assert!(pair.one.mount_blob(name.clone(), other.clone(), digest("{}")).await.unwrap());
    put(&pair.two, &name, "layer", &[tag("v1")]).await.unwrap();
    assert_eq!(kinds(&pair.one, DAY).await, [], "everything was just touched");

    // First the repositories' blobs, then, a long time later, what nobody holds.
    assert_eq!(kinds(&pair.one, Duration::ZERO).await, [Kind::Blob, Kind::Blob]);
    assert_eq!(kinds(&pair.two, Duration::ZERO).await, []);
    pair.wait();
    assert_eq!(kinds(&pair.two, Duration::ZERO).await, [Kind::Content]);
    assert_eq!(pull(&pair.one, &name, &digest("unneeded")).await, None);
    assert_eq!(pull(&pair.one, &name, &digest("layer")).await.unwrap(), "layer");
    assert_eq!(pair.bucket.keys("data").await.len(), 2);

    let deleted = pair.one.delete_manifest(name.clone(), Reference::Digest(image("layer").2)).await;
    assert_eq!(deleted.unwrap(), Deleted::Done);
    for _ in 0..4 {
        kinds(&pair.one, Duration::ZERO).await;
        pair.wait();
    }
    assert_eq!(pair.bucket.keys("").await, [""; 0], "no traces are left");
}

#[tokio::test]
async fn graves_go_too_and_what_comes_back_stays() {
    let pair = Pair::new();
    let name = repository("a");
    push_text(&pair.one, &name, "{}").await.unwrap();
    put(&pair.one, &name, "{}", &[tag("v1"), tag("v2")]).await.unwrap();
    for name_of_tag in ["v1", "v2"] {
        let deleted = pair.one.delete_manifest(name.clone(), Reference::Tag(tag(name_of_tag))).await;
        assert_eq!(deleted.unwrap(), Deleted::Done);
    }
    let (seconds, now) = (std::sync::atomic::Ordering::SeqCst, std::time::SystemTime::now());
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // The store has a clock of its own.
    pair.clock.store(now + 2 * LONGEST.as_secs(), seconds);
    let graves = async || {
        let found = pair.one.bucket.list(&"repositories/a/_tags".into());
        futures::StreamExt::count(found).await
    };
    assert_eq!(graves().await, 2);
    collect(&pair.two, DAY).await.unwrap();
    assert_eq!(graves().await, 0);
    put(&pair.one, &name, "{}", &[tag("v1")]).await.unwrap();
    assert_eq!(find(&pair.two, &name, Reference::Tag(tag("v1"))).await.unwrap().0.digest, image("{}").2);
}

#[tokio::test]
async fn who_comes_to_hold_content_that_is_about_to_go_keeps_it() {
    let pair = Pair::new();
    let name = repository("a");
    push_text(&pair.one, &name, "content").await.unwrap();
    pair.one.delete_blob(name.clone(), digest("content")).await.unwrap();
    assert_eq!(kinds(&pair.one, Duration::ZERO).await, []);
    pair.wait();
    // It is said to be held by nobody; whoever pushes it now takes that back.
    push_text(&pair.two, &name, "content").await.unwrap();
    assert_eq!(kinds(&pair.one, DAY).await, []);
    pair.wait();
    assert_eq!(kinds(&pair.one, DAY).await, []);
    assert_eq!(pull(&pair.one, &name, &digest("content")).await.unwrap(), "content");
    assert_eq!(pair.bucket.keys("data").await.len(), 1, "the second one's bytes were not needed");
}

#[tokio::test]
async fn sessions_that_were_given_up_go() {
    let pair = Pair::new();
    let name = repository("a");
    let id = pair.one.create_upload(name.clone(), Algorithm::Sha256).await.unwrap();
    append(&pair.one, &name, id, vec![7; 10 << 20].into()).await.unwrap();
    assert_eq!(kinds(&pair.two, Duration::ZERO).await, []);
    pair.wait();
    assert_eq!(kinds(&pair.two, Duration::ZERO).await, [Kind::Upload]);
    assert_eq!(pair.bucket.unfinished(), 0);
    assert_eq!(pair.bucket.keys("").await, [""; 0]);
    assert_eq!(pair.one.upload_received(name, id).await.unwrap(), None);
}
