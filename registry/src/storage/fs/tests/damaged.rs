//! What is damaged or lost counts as missing, so that clients that look first push it again; and what is good stays.

use super::*;

/// A store with an image under a tag.
pub(super) fn filled() -> (TempDir, Store, Digest) {
    let (root, store) = store();
    push(&store, "{}");
    push(&store, "layer");
    let digest = put(&store);
    (root, store, digest)
}

fn put(store: &Store) -> Digest {
    let (manifest, bytes) = image("layer");
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let tags = ["v1".parse().unwrap()];
    assert_eq!(
        store.put_manifest(&repository(), manifest, &digest, &bytes, &tags, None).unwrap(),
        Put::Stored
    );
    digest
}

fn quarantined(store: &Store) -> usize {
    folder::names(&store.layout.quarantine()).unwrap().len()
}

#[test]
fn who_finds_damage_does_not_take_away_what_was_pushed_meanwhile() {
    let (_root, store, _) = filled();
    let layer = digest("layer");
    fs::write(store.layout.content(&layer), "LAYER").unwrap();
    let (damaged, _) = store.open_blob(&repository(), &layer).unwrap().unwrap();
    push(&store, "layer");
    assert_eq!(store.read_blob(&layer, &damaged).unwrap(), None);
    assert_eq!(store.blob_size(&repository(), &layer).unwrap(), Some(5));
    assert_eq!((quarantined(&store), store.damaged()), (0, 1));
}

#[test]
fn a_manifest_whose_content_is_lost_is_not_there_until_it_is_pushed_again() {
    let (_root, store, manifest) = filled();
    fs::remove_file(store.layout.content(&manifest)).unwrap();
    let references = [Reference::Digest(manifest.clone()), Reference::Tag("v1".parse().unwrap())];
    for reference in &references {
        assert_eq!(store.find_manifest(&repository(), reference).unwrap(), None);
    }
    let json = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{manifest}","size":1}}]}}"#,
        manifest::IMAGE
    );
    let index = Manifest::parse(Some(manifest::INDEX), json.as_bytes()).unwrap();
    let index_digest = Digest::of(Algorithm::Sha256, json.as_bytes());
    let put_index = || {
        store.put_manifest(&repository(), index.clone(), &index_digest, json.as_bytes(), &[], None).unwrap()
    };
    assert_eq!(put_index(), Put::Missing(vec![manifest.clone()]));
    put(&store);
    for reference in &references {
        assert!(store.find_manifest(&repository(), reference).unwrap().is_some());
    }
    assert_eq!(put_index(), Put::Stored);
}

#[test]
fn a_wrong_mark_takes_nothing_from_others() {
    let (_root, store, _) = filled();
    let (layer, other) = (digest("layer"), "other".parse().unwrap());
    assert!(store.mount_blob(&repository(), &other, &layer).unwrap());
    for wrong in ["6\n", "five"] {
        fs::write(store.layout.repository(&repository()).blob(&layer), wrong).unwrap();
        assert_eq!(store.blob_size(&repository(), &layer).unwrap(), None);
        assert!(store.open_blob(&repository(), &layer).unwrap().is_none());
        assert_eq!(store.blob_size(&other, &layer).unwrap(), Some(5));
        push(&store, "layer");
        assert_eq!(store.blob_size(&repository(), &layer).unwrap(), Some(5));
    }
    assert_eq!(quarantined(&store), 0);
}

#[test]
fn torn_records_and_tags_count_as_missing() {
    let (_root, store, manifest) = filled();
    let folder = store.layout.repository(&repository());
    let tag = "v1".parse().unwrap();
    for torn in [folder.manifest(&manifest), folder.tag(&tag)] {
        fs::write(torn, "{\"me").unwrap();
        assert_eq!(store.find_manifest(&repository(), &Reference::Tag(tag.clone())).unwrap(), None);
        put(&store);
        assert!(store.find_manifest(&repository(), &Reference::Tag(tag.clone())).unwrap().is_some());
    }
}

/// CVE-2021-41190.
#[test]
fn the_same_bytes_have_one_media_type() {
    let (_root, store, digest) = filled();
    let (mut manifest, bytes) = image("layer");
    manifest.media_type = manifest::INDEX.to_owned();
    manifest.blobs.clear();
    let put = store.put_manifest(&repository(), manifest, &digest, &bytes, &[], None).unwrap();
    assert_eq!(put, Put::OtherType(manifest::IMAGE.to_owned()));
    let deleted = store.delete_blob(&repository(), &super::digest("layer")).unwrap();
    assert_eq!(deleted, Deleted::Needed(digest));
}
