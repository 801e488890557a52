//! What collection takes and what it leaves.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use super::*;
use crate::storage::Collected;

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn collect(store: &Store, dry_run: bool, grace: Duration) -> Vec<Collected> {
    let mut collected = Vec::new();
    let how = Collecting { dry_run, grace };
    store.collect(how, &mut |one| collected.push(one), &mut || true).unwrap();
    collected
}

/// Makes everything in a folder look as if it had lain there for more than a day.
fn age(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age(&path);
        }
        let _ = File::open(&path).unwrap().set_modified(SystemTime::now() - DAY - Duration::from_secs(60));
    }
}

fn kinds(collected: &[Collected]) -> Vec<String> {
    let mut kinds: Vec<_> = collected.iter().map(|one| format!("{} {}", one.kind, one.bytes)).collect();
    kinds.sort();
    kinds
}

fn put(store: &Store, layer: &str, tag: Option<&str>) -> Digest {
    push(store, "{}");
    push(store, layer);
    let (manifest, bytes) = image(layer);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let tags: Vec<_> = tag.into_iter().map(|tag| tag.parse().unwrap()).collect();
    assert_eq!(
        store.put_manifest(&repository(), manifest, &digest, &bytes, &tags, None).unwrap(),
        Put::Stored
    );
    digest
}

fn files(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        files.push(path.display().to_string());
        if path.is_dir() {
            files.extend(self::files(&path));
        }
    }
    files.sort();
    files
}

#[test]
fn what_is_needed_stays_with_and_without_a_tag() {
    let (root, store) = store();
    put(&store, "tagged", Some("v1"));
    let untagged = put(&store, "untagged", None);
    age(root.path());
    let before = files(root.path());
    assert_eq!(collect(&store, false, DAY), []);
    assert_eq!(files(root.path()), before);
    assert!(store.find_manifest(&repository(), &Reference::Digest(untagged)).unwrap().is_some());
}

#[test]
fn what_nothing_references_goes_after_the_grace_time() {
    let (root, store) = store();
    put(&store, "kept", Some("v1"));
    push(&store, "never used");
    let deleted = put(&store, "deleted", None);
    store.delete_manifest(&repository(), &deleted, None).unwrap();
    assert_eq!(collect(&store, false, DAY), [], "all is young");
    age(root.path());
    let before = files(root.path());
    let dry = collect(&store, true, DAY);
    assert_eq!(files(root.path()), before, "a dry run changes nothing");
    let manifest = image("deleted").1.len();
    let expected = ["blob 0", "blob 0", "content 10", &format!("content {manifest}"), "content 7"];
    assert_eq!(kinds(&dry), expected);
    assert_eq!(collect(&store, false, DAY), dry, "what was said goes");
    assert_eq!(collect(&store, false, DAY), []);
    for gone in ["never used", "deleted"] {
        assert_eq!(store.blob_size(&repository(), &digest(gone)).unwrap(), None);
        assert!(!store.layout.content(&digest(gone)).exists());
        assert!(!store.layout.holders(&digest(gone)).exists(), "with its empty folder");
    }
    assert_eq!(store.blob_size(&repository(), &digest("kept")).unwrap(), Some(4));
    assert_eq!(store.damaged(), 0);
}

#[test]
fn a_blob_that_a_client_looked_at_stays() {
    let (root, store) = store();
    let layer = push(&store, "layer");
    age(root.path());
    assert_eq!(store.check_blob(&repository(), &layer).unwrap(), Some(5));
    assert_eq!(collect(&store, false, DAY), []);
    assert_eq!(store.blob_size(&repository(), &layer).unwrap(), Some(5));
}

#[test]
fn content_that_another_repository_holds_stays() {
    let (root, store) = store();
    put(&store, "layer", Some("v1"));
    let other: RepoName = "other".parse().unwrap();
    assert!(store.mount_blob(&repository(), &other, &digest("layer")).unwrap());
    assert_eq!(store.find_blob(&digest("layer"), |name| *name == other).unwrap(), Some(other.clone()));
    age(root.path());
    assert_eq!(kinds(&collect(&store, false, DAY)), ["blob 0"], "nothing in `other` needs it");
    assert_eq!(store.blob_size(&other, &digest("layer")).unwrap(), None);
    assert_eq!(store.find_blob(&digest("layer"), |name| *name == other).unwrap(), None);
    assert_eq!(store.blob_size(&repository(), &digest("layer")).unwrap(), Some(5));
    assert!(!store.layout.repository(&other).folder().exists(), "an empty repository is no folder");
}

#[test]
fn abandoned_sessions_and_leftovers_go_and_others_stay() {
    let (root, store) = store();
    let [abandoned, running] =
        std::array::from_fn(|_| store.create_upload(repository(), Algorithm::Sha256).unwrap());
    let mut upload = open(&store, running).unwrap();
    upload.append(&[Bytes::from_static(b"content")]).unwrap();
    fs::write(root.path().join("tmp/leftover"), "12345").unwrap();
    age(root.path());
    let fresh = store.create_upload(repository(), Algorithm::Sha256).unwrap();
    fs::write(root.path().join("tmp/running"), "").unwrap();
    assert_eq!(kinds(&collect(&store, false, DAY)), ["leftover 5", "upload 0"]);
    assert_eq!(store.upload_received(&repository(), abandoned).unwrap(), None);
    assert_eq!(store.upload_received(&repository(), running).unwrap(), Some(7));
    assert_eq!(store.upload_received(&repository(), fresh).unwrap(), Some(0));
    assert_eq!(folder::names(&store.layout.tmp()).unwrap(), ["running"]);
    assert_eq!(collect(&store, false, Duration::ZERO), [], "a session between two requests is not abandoned");
    drop(upload);
}

#[test]
fn what_points_back_is_followed_only_while_it_is_true() {
    let (_root, store) = store();
    let digest = put(&store, "layer", Some("v1"));
    let folder = store.layout.repository(&repository());
    // As a crash in the middle of deletes leaves it.
    let gone = Digest::of(Algorithm::Sha256, b"gone");
    store
        .durable
        .mark(&[folder.needed_by(&gone, &digest), folder.tagged_by(&gone, &"v1".parse().unwrap())])
        .unwrap();
    assert_eq!(store.needed_by(&repository(), &gone).unwrap(), None);
    assert_eq!(store.tags_of(&repository(), &gone).unwrap().count(), 0);
    assert_eq!(store.needed_by(&repository(), &super::digest("layer")).unwrap(), Some(digest.clone()));
    // A tag that moved does not go with the manifest that it pointed to.
    let newer = put(&store, "newer", Some("v1"));
    store.delete_manifest(&repository(), &digest, None).unwrap();
    let tag = Reference::Tag("v1".parse().unwrap());
    assert_eq!(store.find_manifest(&repository(), &tag).unwrap().unwrap().digest, newer);
    store.delete_manifest(&repository(), &newer, None).unwrap();
    assert_eq!(store.find_manifest(&repository(), &tag).unwrap(), None);
    assert!(!folder.tagged(&newer).exists() && !folder.needed(&super::digest("newer")).exists());
}

#[test]
fn uploads_that_were_left_alone_for_long_make_room_for_others() {
    let (root, store) = store();
    let create = || store.create_upload(repository(), Algorithm::Sha256).unwrap();
    let (empty, used) = (create(), create());
    let mut upload = open(&store, used).unwrap();
    upload.append(&[Bytes::from_static(b"content")]).unwrap();
    upload.suspend().unwrap();
    assert!(matches!(store.make_room_for_upload(2), Err(Error::TooManyUploads(2))), "both are young");
    drop(store);
    age(root.path());
    let store = Store::open(root.path()).unwrap();
    store.make_room_for_upload(2).unwrap();
    assert_eq!(store.upload_received(&repository(), empty).unwrap(), None);
    assert_eq!(store.upload_received(&repository(), used).unwrap(), Some(7));
    drop(store);
    let store = Store::open(root.path()).unwrap();
    store.make_room_for_upload(1).unwrap();
    assert_eq!(store.upload_received(&repository(), used).unwrap(), None, "nothing else was left");
}

#[test]
fn a_session_that_ended_meanwhile_is_not_said_to_go_on() {
    let (_root, store) = store();
    let id = store.create_upload(repository(), Algorithm::Sha256).unwrap();
    let mut upload = open(&store, id).unwrap();
    upload.append(&[Bytes::from_static(b"content")]).unwrap();
    assert!(store.cancel_upload(&repository(), id).unwrap());
    assert!(matches!(upload.suspend(), Err(Error::SessionLost)));
}

#[test]
fn one_damaged_record_or_stray_file_stops_nothing() {
    let (root, store) = store();
    let damaged = put(&store, "layer", Some("v1"));
    push(&store, "never used");
    fs::write(store.layout.repository(&repository()).manifest(&damaged), "torn").unwrap();
    fs::write(root.path().join("repositories/stray"), "").unwrap();
    age(root.path());
    assert_eq!(kinds(&collect(&store, false, DAY)), ["blob 0", "content 10"]);
    assert_eq!(store.repositories(Holding::Manifests, None, 10, everything).unwrap().0, [repository()]);
    let deleted = store.delete_blob(&repository(), &digest("layer")).unwrap();
    assert_eq!(deleted, Deleted::Needed(damaged.clone()), "nobody knows that it is not");
    assert_eq!(store.delete_manifest(&repository(), &damaged, None).unwrap(), Deleted::Done);
    assert_eq!(store.delete_blob(&repository(), &digest("layer")).unwrap(), Deleted::Done);
}
