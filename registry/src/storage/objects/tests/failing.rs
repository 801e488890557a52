//! Each operation of a push, a delete and a collection fails once: what is answered is true, and trying again works.

use std::time::Duration;

use super::*;

/// A push of an image whose layer has several parts.
async fn push_image(objects: &Objects, name: &RepoName, layer: &Bytes) -> Result<Digest, Error> {
    push_text(objects, name, "{}").await?;
    assert_eq!(push(objects, name, layer).await?, Finished::Stored);
    let (manifest, bytes, digest) = of(layer);
    let tags = vec![tag("v1").into()];
    match objects.put_manifest(name.clone(), manifest, digest.clone(), bytes, tags).await? {
        Put::Stored => Ok(digest),
        other => panic!("{other:?}, though all of it was acknowledged"),
    }
}

fn of(layer: &Bytes) -> (Manifest, Bytes, Digest) {
    let layer_digest = Digest::of(Algorithm::Sha256, layer);
    let (_, bytes, _) = image("layer");
    let text = String::from_utf8(bytes.into()).unwrap();
    parsed(text.replace(digest("layer").as_str(), layer_digest.as_str()))
}

async fn is_whole(objects: &Objects, name: &RepoName, layer: &Bytes) {
    let (_, bytes, digest) = of(layer);
    for reference in [Reference::Digest(digest), Reference::Tag(tag("v1"))] {
        assert_eq!(find(objects, name, reference).await.unwrap().1, bytes);
    }
    let found = pull(objects, name, &Digest::of(Algorithm::Sha256, layer)).await;
    assert!(found.is_some_and(|found| found == *layer));
    assert_eq!(pull(objects, name, &super::digest("{}")).await.unwrap(), "{}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push() {
    let name = repository("a");
    let layer = Bytes::from(vec![1; 9 << 20]);
    let mut failed = [0, 0];
    for (kind, how) in [Failing::Before, Failing::After].into_iter().enumerate() {
        for operation in 0.. {
            let pair = Pair::new();
            pair.bucket.fail_after(operation, how);
            let pushed = push_image(&pair.one, &name, &layer).await;
            if pair.bucket.no_failure() {
                pushed.unwrap();
                break;
            }
            match pushed {
                Ok(_) => is_whole(&pair.two, &name, &layer).await,
                Err(_) => failed[kind] += 1,
            }
            // Whoever sees the manifest sees all of it, acknowledged or not.
            if find(&pair.two, &name, Reference::Digest(of(&layer).2)).await.is_some() {
                let layer = Digest::of(Algorithm::Sha256, &layer);
                assert!(pull(&pair.two, &name, &layer).await.is_some(), "{how:?} {operation}");
            }
            push_image(&pair.two, &name, &layer).await.unwrap();
            is_whole(&pair.one, &name, &layer).await;
            // What the failure left goes, and nothing else.
            for _ in 0..4 {
                pair.wait();
                collect(&pair.one, Duration::ZERO).await.unwrap();
            }
            is_whole(&pair.two, &name, &layer).await;
            assert_eq!(pair.bucket.keys("data").await.len(), 2, "{how:?} {operation}");
            assert_eq!(pair.bucket.keys("uploads").await, [""; 0], "{how:?} {operation}");
            assert_eq!((pair.one.damaged(), pair.two.damaged()), (0, 0));
        }
    }
    assert!(failed.iter().all(|failed| *failed > 20), "{failed:?}: or this tested nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk() {
    let name = repository("a");
    let (first, second) = (Bytes::from(vec![1; 9 << 20]), Bytes::from(vec![2; 9 << 20]));
    let whole = Digest::of(Algorithm::Sha256, &[&first[..], &second[..]].concat());
    for how in [Failing::Before, Failing::After] {
        for operation in 0.. {
            let pair = Pair::new();
            let id = pair.one.create_upload(name.clone(), Algorithm::Sha256).await.unwrap();
            append(&pair.one, &name, id, first.clone()).await.unwrap();
            pair.bucket.fail_after(operation, how);
            let appended = append(&pair.one, &name, id, second.clone()).await;
            let no_failure = pair.bucket.no_failure();
            let received = pair.two.upload_received(name.clone(), id).await.unwrap().unwrap();
            let all = (first.len() + second.len()) as u64;
            assert!(received == all || appended.is_err() && received == first.len() as u64, "{received}");
            // A request whose end nobody could write down keeps the session for a while.
            pair.wait();
            if received < all {
                append(&pair.two, &name, id, second.clone()).await.unwrap();
            }
            let upload = pair.one.open_upload(name.clone(), id).await.unwrap();
            assert_eq!(upload.finish(whole.clone()).await.unwrap(), Finished::Stored, "{how:?} {operation}");
            assert_eq!(pull(&pair.two, &name, &whole).await.unwrap().len() as u64, all);
            if no_failure {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete() {
    let name = repository("a");
    let layer = Bytes::from_static(b"layer");
    for how in [Failing::Before, Failing::After] {
        for operation in 0.. {
            let pair = Pair::new();
            let manifest = push_image(&pair.one, &name, &layer).await.unwrap();
            pair.bucket.fail_after(operation, how);
            let needed = pair.one.delete_blob(name.clone(), digest("{}")).await;
            assert!(!matches!(needed, Ok(Deleted::Done | Deleted::Unknown)));
            let deleted = pair.one.delete_manifest(name.clone(), Reference::Digest(manifest.clone())).await;
            let no_failure = pair.bucket.no_failure();
            let found = find(&pair.two, &name, Reference::Digest(manifest.clone())).await;
            match deleted {
                Ok(deleted) => assert!(deleted == Deleted::Done && found.is_none()),
                Err(_) if found.is_some() => is_whole(&pair.two, &name, &layer).await,
                Err(_) => {}
            }
            let again = pair.two.delete_manifest(name.clone(), Reference::Digest(manifest)).await.unwrap();
            assert_eq!(again == Deleted::Done, found.is_some());
            assert_eq!(find(&pair.one, &name, Reference::Tag(tag("v1"))).await, None);
            let tags = pair.one.tags(name.clone(), None, 10).await.unwrap().unwrap();
            assert_eq!(tags.0, [""; 0], "{how:?} {operation}");
            pair.wait();
            assert_eq!(pair.two.delete_blob(name.clone(), digest("{}")).await.unwrap(), Deleted::Done);
            if no_failure {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection() {
    let name = repository("a");
    let layer = Bytes::from_static(b"layer");
    for how in [Failing::Before, Failing::After] {
        for operation in 0.. {
            let pair = Pair::new();
            push_image(&pair.one, &name, &layer).await.unwrap();
            push_text(&pair.one, &name, "unneeded").await.unwrap();
            let id = pair.one.create_upload(name.clone(), Algorithm::Sha256).await.unwrap();
            append(&pair.one, &name, id, Bytes::from_static(b"01")).await.unwrap();
            pair.wait();
            pair.bucket.fail_after(operation, how);
            for _ in 0..3 {
                // One of them may fail: the next goes on.
                let _ = collect(&pair.two, Duration::ZERO).await;
                pair.wait();
            }
            let no_failure = pair.bucket.no_failure();
            for _ in 0..3 {
                collect(&pair.one, Duration::ZERO).await.unwrap();
                pair.wait();
            }
            is_whole(&pair.one, &name, &layer).await;
            assert_eq!(pair.bucket.keys("data").await.len(), 2, "{how:?} {operation}");
            assert_eq!(pair.bucket.keys("uploads").await, [""; 0], "{how:?} {operation}");
            if no_failure {
                break;
            }
        }
    }
}
