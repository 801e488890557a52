//! What the network does not show: what is on the disk, what a crash leaves, what races do.

mod behind;
mod checking;
mod collecting;
mod costs;
mod counting;
mod damaged;
mod deleting;
mod events;
mod failing;
mod journal;
mod power;
mod racing;
mod repositories;

use std::{
    fs::File,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use oci::{Algorithm, Digest, Manifest, Reference, manifest};
use tempfile::TempDir;

use super::*;
use crate::storage::{Deleted, Finished, Holding, OpenError, Put, UploadId, walk::everything};

fn store() -> (TempDir, Store) {
    // In memory, where that is possible: some of these tests sync a hundred thousand times.
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

fn repository() -> RepoName {
    "team/app".parse().unwrap()
}

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn open(store: &Store, id: UploadId) -> Option<Upload> {
    let busy = store.busy.try_take(id).unwrap();
    store.open_upload(&repository(), id, busy).unwrap()
}

fn push(store: &Store, content: &str) -> Digest {
    let id = store.create_upload(repository(), Algorithm::Sha256).unwrap();
    let mut upload = open(store, id).unwrap();
    upload.append(&[Bytes::copy_from_slice(content.as_bytes())]).unwrap();
    assert_eq!(store.finish_upload(upload, &digest(content)).unwrap(), Finished::Stored);
    digest(content)
}

/// What another process finds after a kill -9 at this moment.
fn killed(root: &Path) -> TempDir {
    let copy = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    copy_folder(root, copy.path());
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Files that are on their way, or were left on it.
fn leftovers(store: &Store) -> Vec<String> {
    let tmp = store.layout.tmp();
    folder::names(&tmp).unwrap().into_iter().filter(|name| tmp.join(name).is_file()).collect()
}

fn image(layer: &str) -> (Manifest, Vec<u8>) {
    let config = digest("{}");
    let layer = digest(layer);
    let json = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"a/b","digest":"{config}","size":2}},
            "layers":[{{"mediaType":"a/b","digest":"{layer}","size":1}}]}}"#
    );
    (Manifest::parse(Some(manifest::IMAGE), json.as_bytes()).unwrap(), json.into_bytes())
}

#[test]
fn the_layout_reads_as_documented() {
    let (root, store) = store();
    push(&store, "{}");
    let layer = push(&store, "layer");
    let (manifest, bytes) = image("layer");
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let tag = "v1".parse().unwrap();
    assert_eq!(
        store.put_manifest(&repository(), manifest, &digest, &bytes, &[tag], None).unwrap(),
        Put::Stored
    );
    let read = |path: String| fs::read_to_string(root.path().join(path)).unwrap();
    let hex = layer.hex();
    assert_eq!(read(format!("blobs/sha256/{}/{hex}", &hex[..2])), "layer");
    assert_eq!(read(format!("repositories/team/app/_blobs/sha256/{hex}")), "5\n");
    let id = read("registry.id".to_owned());
    let tagged = read("repositories/team/app/_tags/v1".to_owned());
    let (target, stamp) = tagged.split_once('\n').unwrap();
    assert_eq!(target, digest.as_str());
    assert!(stamp.ends_with(&format!("Z {id}")), "{stamp}");
    assert!(read(format!("repositories/team/app/_manifests/sha256/{}", digest.hex())).contains("mediaType"));
    for entry in [
        format!("holders/sha256/{}/{hex}/team+app", &hex[..2]),
        format!("repositories/team/app/_needed/sha256/{hex}/sha256-{}", digest.hex()),
        format!("repositories/team/app/_tagged/sha256/{}/v1", digest.hex()),
    ] {
        assert_eq!(read(entry), "");
    }
    assert_eq!(read("berth.json".to_owned()), r#"{"layout":3}"#);
    assert!(folder::names(&store.layout.uploads()).unwrap().is_empty());
    assert_eq!(leftovers(&store), [""; 0]);
}

#[test]
fn a_root_is_open_once() {
    let (root, store) = store();
    assert!(matches!(Store::open(root.path()), Err(OpenError::Locked { .. })));
    drop(store);
    assert!(Store::open(root.path()).is_ok());
}

#[test]
fn a_root_of_the_former_version_becomes_one_of_this() {
    let (root, store) = store();
    drop(store);
    let version = root.path().join("berth.json");
    fs::write(&version, r#"{"layout":2}"#).unwrap();
    drop(Store::open(root.path()).unwrap());
    assert_eq!(fs::read_to_string(&version).unwrap(), r#"{"layout":3}"#);
    for unknown in [1, 4] {
        fs::write(&version, format!(r#"{{"layout":{unknown}}}"#)).unwrap();
        assert!(matches!(Store::open(root.path()), Err(OpenError::Version { .. })));
    }
}

#[test]
fn a_hash_that_was_not_put_down_is_caught_up() {
    let (root, store) = store();
    let id = store.create_upload(repository(), Algorithm::Sha256).unwrap();
    let mut upload = open(&store, id).unwrap();
    upload.append(&[Bytes::from_static(b"one ")]).unwrap();
    upload.suspend().unwrap();
    // A crash: bytes were written, and the process was gone.
    let mut upload = open(&store, id).unwrap();
    upload.append(&[Bytes::from_static(b"two ")]).unwrap();
    drop(upload);
    drop(store);
    fs::write(root.path().join("tmp/leftover"), "").unwrap();

    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.upload_received(&repository(), id).unwrap(), Some(8));
    let mut upload = open(&store, id).unwrap();
    upload.append(&[Bytes::from_static(b"three")]).unwrap();
    assert_eq!(store.finish_upload(upload, &digest("one two three")).unwrap(), Finished::Stored);
    assert_eq!(leftovers(&store), [""; 0]);
}

#[test]
fn data_that_a_power_failure_cut_short_is_hashed_again() {
    let (_root, store) = store();
    let id = store.create_upload(repository(), Algorithm::Sha256).unwrap();
    let mut upload = open(&store, id).unwrap();
    upload.append(&[Bytes::from_static(b"one two")]).unwrap();
    upload.suspend().unwrap();
    let data = store.layout.upload(id).join("data");
    File::options().write(true).open(data).unwrap().set_len(3).unwrap();
    let upload = open(&store, id).unwrap();
    assert_eq!(upload.received(), 3);
    assert_eq!(store.finish_upload(upload, &digest("one")).unwrap(), Finished::Stored);
}

#[test]
fn a_torn_session_never_was() {
    let (_root, store) = store();
    let id = store.create_upload(repository(), Algorithm::Sha256).unwrap();
    fs::write(store.layout.upload(id).join("session.json"), "{\"repos").unwrap();
    assert!(open(&store, id).is_none());
}

#[test]
fn a_session_cancelled_under_a_request_stores_nothing() {
    let (_root, store) = store();
    let id = store.create_upload(repository(), Algorithm::Sha256).unwrap();
    let mut upload = open(&store, id).unwrap();
    upload.append(&[Bytes::from_static(b"content")]).unwrap();
    assert!(store.cancel_upload(&repository(), id).unwrap());
    assert_eq!(store.finish_upload(upload, &digest("content")).unwrap(), Finished::Unknown);
    assert_eq!(store.blob_size(&repository(), &digest("content")).unwrap(), None);
}

#[test]
fn folders_of_ended_uploads_are_used_again_and_cancels_do_no_harm() {
    let (_root, store) = store();
    for round in 0..200 {
        let content = format!("content {round}");
        let id = store.create_upload(repository(), Algorithm::Sha256).unwrap();
        let mut upload = open(&store, id).unwrap();
        upload.append(&[Bytes::from(content.clone())]).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| store.cancel_upload(&repository(), id).unwrap());
            }
            scope.spawn(|| store.finish_upload(upload, &digest(&content)).unwrap());
            // Others begin and end meanwhile, perhaps in the same folder.
            push(&store, "other");
        });
    }
    assert_eq!(folder::names(&store.layout.uploads()).unwrap(), [""; 0]);
    let spares = folder::names(&store.layout.tmp()).unwrap();
    assert!(!spares.is_empty() && spares.iter().all(|name| name.starts_with("spare-")), "{spares:?}");
    store.make_room_for_upload(1).unwrap();
}

/// Whoever wins, an accepted manifest has all that it needs.
#[test]
fn a_delete_and_a_push_that_race_leave_nothing_torn() {
    let (_root, store) = store();
    push(&store, "{}");
    for round in 0..100 {
        let content = format!("layer {round}");
        let layer = push(&store, &content);
        let (manifest, bytes) = image(&content);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let (put, deleted) = std::thread::scope(|scope| {
            let put = scope
                .spawn(|| store.put_manifest(&repository(), manifest, &digest, &bytes, &[], None).unwrap());
            let deleted = scope.spawn(|| store.delete_blob(&repository(), &layer).unwrap());
            (put.join().unwrap(), deleted.join().unwrap())
        });
        match (put, deleted) {
            (Put::Stored, Deleted::Needed(by)) => assert_eq!(by, digest),
            (Put::Missing(missing), Deleted::Done) => assert_eq!(missing, [layer]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pages_of_many_tags_follow_every_change() {
    let (_root, store, digest) = damaged::filled();
    let tags = store.layout.repository(&repository()).tags();
    for n in 0..3000 {
        fs::write(tags.join(format!("t{n:04}")), format!("{digest}\n")).unwrap();
    }
    let page = |last: &str, n| store.tags(&repository(), Some(last), n).unwrap().unwrap();
    assert_eq!(page("t1000", 2), (vec!["t1001".to_owned(), "t1002".to_owned()], true));
    assert_eq!(page("t2998", 2), (vec!["t2999".to_owned(), "v1".to_owned()], false));
    let deleted = store.delete_tag(&repository(), &"t1001".parse().unwrap(), None).unwrap();
    assert_eq!(deleted, Deleted::Done);
    let (manifest, bytes) = image("layer");
    let new = ["t1002-a".parse().unwrap(), "zz".parse().unwrap()];
    store.put_manifest(&repository(), manifest, &digest, &bytes, &new, None).unwrap();
    assert_eq!(page("t1000", 2), (vec!["t1002".to_owned(), "t1002-a".to_owned()], true));
    store.delete_manifest(&repository(), &digest, None).unwrap();
    assert_eq!(page("t2999", 10), (Vec::new(), false));
    assert_eq!(page("t1002", 1), (vec!["t1003".to_owned()], true));
    // Nothing is left where it was made.
    assert_eq!(leftovers(&store), [""; 0]);
}

#[test]
fn referrers_that_a_filter_does_not_want_end_a_page_too() {
    let (_root, store) = store();
    let subject = digest("subject");
    let folder = store.layout.repository(&repository());
    // Entries of manifests that are gone.
    let entries: Vec<_> = (0..2500).map(|n| folder.referrer(&subject, &digest(&n.to_string()))).collect();
    store.durable.mark(&entries).unwrap();
    let first = store.referrers(&repository(), &subject, Some("a/b"), None, (10, 1000)).unwrap();
    assert!(first.manifests.is_empty());
    let last = first.more_after.unwrap();
    let second = store.referrers(&repository(), &subject, Some("a/b"), Some(&last), (10, 1000)).unwrap();
    assert_eq!((second.manifests.len(), second.more_after), (0, None));
}
