//! Two instances on one bucket: what comes of failures, collection, and everything at once.

mod collecting;
mod failing;
mod racing;

use std::sync::{Arc, atomic::AtomicU64};

use bytes::Bytes;
use oci::{Algorithm, Digest, Manifest, Reference, RepoName, Tag};

use super::{
    Clock, Objects,
    bucket::LONGEST,
    strict::{Failing, Strict},
};
use crate::storage::{
    Collected, Collecting, Deleted, Error, Finished, NewTag, NotOpened, Put, StoredManifest, UploadId,
    walk::{everything, tests::by_rules},
};

/// A registry's instances, and the time that they go by.
struct Pair {
    bucket: Strict,
    clock: Arc<AtomicU64>,
    one: Objects,
    two: Objects,
}

impl Pair {
    fn new() -> Self {
        let (bucket, clock) = (Strict::default(), Arc::new(AtomicU64::new(1_000_000_000)));
        let open = || Objects::open(Arc::new(bucket.clone()), Clock::Manual(Arc::clone(&clock)));
        let (one, two) = (open(), open());
        Self { bucket, clock, one, two }
    }

    /// As long passes as collection waits for requests that it may not know of.
    fn wait(&self) {
        self.clock.fetch_add(2 * LONGEST.as_secs(), std::sync::atomic::Ordering::SeqCst);
    }
}

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn repository(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

/// An image with a config `{}` and one layer.
fn image(layer: &str) -> (Manifest, Bytes, Digest) {
    let descriptor = |kind: &str, content: &str| serde_json::json!({"mediaType": kind, "digest": digest(content), "size": content.len()});
    let document = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": oci::manifest::IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", "{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    parsed(document.to_string())
}

fn parsed(document: String) -> (Manifest, Bytes, Digest) {
    let digest = digest(&document);
    (Manifest::parse(None, document.as_bytes()).unwrap(), document.into(), digest)
}

async fn append(objects: &Objects, name: &RepoName, id: UploadId, content: Bytes) -> Result<(), NotOpened> {
    let upload = objects.open_upload(name.clone(), id).await?;
    let upload = blocking(move || upload.append(vec![content])).await.map_err(NotOpened::Storage)?;
    upload.suspend().await.map_err(NotOpened::Storage)
}

/// As requests do: work that blocks is done elsewhere.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn push(objects: &Objects, name: &RepoName, content: &Bytes) -> Result<Finished, Error> {
    let id = objects.create_upload(name.clone(), Algorithm::Sha256).await?;
    let upload = match objects.open_upload(name.clone(), id).await {
        Ok(upload) => upload,
        Err(NotOpened::Storage(error)) => return Err(error),
        Err(other) => panic!("{other:?}"),
    };
    let bytes = content.clone();
    let upload = blocking(move || upload.append(vec![bytes])).await?;
    upload.finish(Digest::of(Algorithm::Sha256, content)).await
}

async fn push_text(objects: &Objects, name: &RepoName, content: &str) -> Result<Finished, Error> {
    push(objects, name, &Bytes::copy_from_slice(content.as_bytes())).await
}

async fn put(objects: &Objects, name: &RepoName, layer: &str, tags: &[Tag]) -> Result<Put, Error> {
    let (manifest, bytes, digest) = image(layer);
    let tags = tags.iter().cloned().map(NewTag::from).collect();
    objects.put_manifest(name.clone(), manifest, digest, bytes, tags).await
}

async fn find(objects: &Objects, name: &RepoName, reference: Reference) -> Option<(StoredManifest, Bytes)> {
    objects.read_manifest(name.clone(), reference).await.unwrap()
}

/// A whole blob's bytes, where the repository has it.
async fn pull(objects: &Objects, name: &RepoName, digest: &Digest) -> Option<Bytes> {
    let blob = objects.open_blob(name.clone(), digest.clone()).await.unwrap()?;
    let size = blob.size();
    let body = http_body_util::BodyExt::collect(blob.into_body(0, size, None)).await.unwrap();
    Some(body.to_bytes())
}

async fn collect(objects: &Objects, grace: std::time::Duration) -> Result<Vec<Collected>, Error> {
    let objects = objects.clone();
    blocking(move || {
        let mut collected = Vec::new();
        let how = Collecting { dry_run: false, grace };
        objects.collect(how, &mut |found| collected.push(found), &mut || true)?;
        Ok(collected)
    })
    .await
}

#[tokio::test]
async fn several_make_one_token_key() {
    let pair = Pair::new();
    let (one, two) = tokio::join!(pair.one.token_key(), pair.two.token_key());
    assert_eq!(one.unwrap(), two.unwrap());
}

#[tokio::test]
async fn a_session_goes_on_elsewhere_and_is_one_requests_at_a_time() {
    let pair = Pair::new();
    let name = repository("a");
    let id = pair.one.create_upload(name.clone(), Algorithm::Sha256).await.unwrap();
    append(&pair.one, &name, id, Bytes::from_static(b"01")).await.unwrap();
    append(&pair.two, &name, id, Bytes::from_static(b"23")).await.unwrap();
    let first = pair.one.open_upload(name.clone(), id).await.unwrap();
    // Whoever comes meanwhile waits, here until the first one is gone without a word.
    let (second, ()) = tokio::join!(pair.two.open_upload(name.clone(), id), async { drop(first) });
    let second = second.unwrap();
    assert_eq!(second.received(), 4);
    assert_eq!(second.finish(digest("0123")).await.unwrap(), Finished::Stored);
    assert_eq!(pull(&pair.one, &name, &digest("0123")).await.unwrap(), "0123");
}

#[tokio::test]
async fn a_request_that_was_given_up_finds_out_and_does_no_harm() {
    let pair = Pair::new();
    let name = repository("a");
    let id = pair.one.create_upload(name.clone(), Algorithm::Sha256).await.unwrap();
    append(&pair.one, &name, id, Bytes::from_static(b"01")).await.unwrap();
    let stuck = pair.one.open_upload(name.clone(), id).await.unwrap();
    let stuck = blocking(move || stuck.append(vec![Bytes::from_static(b"xx")])).await.unwrap();
    pair.wait();
    append(&pair.two, &name, id, Bytes::from_static(b"23")).await.unwrap();
    assert!(matches!(stuck.suspend().await, Err(Error::SessionLost)));
    let last = pair.two.open_upload(name.clone(), id).await.unwrap();
    assert_eq!(last.finish(digest("0123")).await.unwrap(), Finished::Stored);
}

#[tokio::test]
async fn a_cancelled_session_is_over_for_a_request_that_has_it() {
    let pair = Pair::new();
    let name = repository("a");
    let id = pair.one.create_upload(name.clone(), Algorithm::Sha256).await.unwrap();
    let upload = pair.one.open_upload(name.clone(), id).await.unwrap();
    assert!(pair.two.cancel_upload(name.clone(), id).await.unwrap());
    assert!(!pair.two.cancel_upload(name.clone(), id).await.unwrap());
    assert_eq!(upload.finish(digest("")).await.unwrap(), Finished::Unknown);
    assert_eq!(pull(&pair.one, &name, &digest("")).await, None);
    pair.wait();
    pair.wait();
    collect(&pair.one, LONGEST).await.unwrap();
    assert_eq!(pair.bucket.keys("").await, [""; 0]);
}

#[tokio::test]
async fn a_tag_that_was_moved_does_not_go_with_the_manifest_that_it_pointed_to() {
    let pair = Pair::new();
    let name = repository("a");
    for layer in ["{}", "one", "two"] {
        push_text(&pair.one, &name, layer).await.unwrap();
    }
    for (objects, layer) in [(&pair.one, "one"), (&pair.two, "two"), (&pair.one, "one"), (&pair.two, "two")] {
        assert_eq!(put(objects, &name, layer, &[tag("v1"), tag(layer)]).await.unwrap(), Put::Stored);
    }
    let gone = image("one").2;
    let deleted = pair.two.delete_manifest(name.clone(), Reference::Digest(gone)).await.unwrap();
    assert_eq!(deleted, Deleted::Done);
    let (found, _) = find(&pair.one, &name, Reference::Tag(tag("v1"))).await.unwrap();
    assert_eq!(found.digest, image("two").2);
    let tags = pair.one.tags(name.clone(), None, 10).await.unwrap().unwrap();
    assert_eq!(tags.0, ["two", "v1"]);
}

#[tokio::test]
async fn the_list_of_who_may_see_few_of_many_takes_few_requests() {
    let pair = Pair::new();
    for n in 0..20 {
        for name in [format!("team-{n:02}/app"), format!("team-{n:02}/app/web"), format!("t{n:02}")] {
            let name = repository(&name);
            push_text(&pair.one, &name, "{}").await.unwrap();
            put(&pair.one, &name, "{}", &[]).await.unwrap();
        }
    }
    let list = async |rules: &[(&str, bool)], last: Option<&str>| {
        let rules = rules.iter().map(|(path, is_open)| ((*path).to_owned(), *is_open)).collect();
        let before = pair.bucket.operations();
        let found = pair.two.repositories(last.map(str::to_owned), 10, by_rules(&rules)).await.unwrap();
        assert!(!found.1);
        let found: Vec<_> = found.0.iter().map(ToString::to_string).collect();
        (found.join(" "), pair.bucket.operations() - before)
    };
    assert_eq!(list(&[], None).await, (String::new(), 0));
    // One for each, whether it is there or not.
    let alone = [("t07", true), ("t09", true), ("u", true)];
    assert_eq!(list(&alone, None).await, ("t07 t09".into(), 3));
    assert_eq!(list(&alone, Some("t07")).await, ("t09".into(), 2));
    // The folder, that of each one in it, and a look at each.
    let below = [("team-07/*", true), ("team-07/app/*", false), ("team-19/none/*", true)];
    assert_eq!(list(&below, None).await, ("team-07/app".into(), 3));
}
