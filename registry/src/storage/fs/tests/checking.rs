//! Each kind of damage is found, said and repaired, and repairing twice finds nothing.

use std::io::Write as _;

use rstest::rstest;

use super::*;
use crate::storage::{Problem, Severity};

pub(super) fn check(store: &Store, repair: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    store.verify(repair, &mut |problem| problems.push(problem), &mut || true).unwrap();
    problems
}

/// A store with an image that has a tag and a subject.
fn filled() -> (TempDir, Store, Digest) {
    let (root, store) = store();
    push(&store, "{}");
    push(&store, "layer");
    let (mut manifest, bytes) = image("layer");
    let json = String::from_utf8(bytes).unwrap();
    let subject = digest("subject");
    let subject_field = format!(r#"{{"subject":{{"mediaType":"a/b","digest":"{subject}","size":7}},"#);
    let json = json.replacen('{', &subject_field, 1);
    manifest.subject = Some(subject);
    let digest = Digest::of(Algorithm::Sha256, json.as_bytes());
    let tags = ["v1".parse().unwrap()];
    let put = store.put_manifest(&repository(), manifest, &digest, json.as_bytes(), &tags, None).unwrap();
    assert_eq!(put, Put::Stored);
    assert_eq!(check(&store, false), []);
    (root, store, digest)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Does harm to one file: another content, or none.
fn harm(what: &str, store: &Store, manifest: &Digest) {
    let folder = store.layout.repository(&repository());
    let layer = digest("layer");
    let (path, content) = match what {
        "a mark without a size" => (folder.blob(&layer), Some(String::new())),
        "a mark with a wrong size" => (folder.blob(&layer), Some("6\n".to_owned())),
        "no mark" => (folder.blob(&layer), None),
        "a torn record" => (folder.manifest(manifest), Some("{\"me".to_owned())),
        "a record without needs" => {
            let json = fs::read(folder.manifest(manifest)).unwrap();
            let mut record: serde_json::Value = serde_json::from_slice(&json).unwrap();
            record["needs"] = serde_json::json!([]);
            (folder.manifest(manifest), Some(record.to_string()))
        }
        "no entry of a need" => (folder.needed_by(&layer, manifest), None),
        "no entry of a referrer" => (folder.referrer(&digest("subject"), manifest), None),
        "no entry of a tag" => (folder.tagged_by(manifest, &"v1".parse().unwrap()), None),
        "no holder of a blob" => (store.layout.holder(&layer, &repository()), None),
        "no holder of a manifest" => (store.layout.holder(manifest, &repository()), None),
        _ => unreachable!("{what}"),
    };
    match content {
        Some(content) => fs::write(path, content).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
}

/// What repair brings back whole.
#[rstest]
fn repair_rebuilds(
    #[values(
        "a mark without a size",
        "a mark with a wrong size",
        "no mark",
        "a torn record",
        "a record without needs",
        "no entry of a need",
        "no entry of a referrer",
        "no entry of a tag",
        "no holder of a blob",
        "no holder of a manifest"
    )]
    what: &str,
) {
    let (_root, store, manifest) = filled();
    harm(what, &store, &manifest);
    let found = check(&store, false);
    assert!(found.iter().any(|problem| problem.severity == Severity::Damage), "{found:?}");
    assert!(found.iter().all(|problem| problem.done.is_none()), "{found:?}");
    let repaired = check(&store, true);
    assert!(repaired.iter().all(|problem| problem.done.is_some()), "{repaired:?}");
    assert_eq!(check(&store, false), []);
    assert_eq!(store.blob_size(&repository(), &digest("layer")).unwrap(), Some(5));
    let page = store.referrers(&repository(), &digest("subject"), None, None, (10, 10_000)).unwrap();
    assert_eq!(page.manifests.len(), 1);
    let deleted = store.delete_blob(&repository(), &digest("layer")).unwrap();
    assert_eq!(deleted, Deleted::Needed(manifest.clone()));
    let tag = Reference::Tag("v1".parse().unwrap());
    let (tagged, file) = store.open_manifest(&repository(), &tag).unwrap().unwrap();
    assert_eq!(tagged.digest, manifest);
    assert!(store.read_manifest(&tagged, file).unwrap().is_some());
}

#[rstest]
fn damaged_content_goes_to_quarantine_and_a_push_brings_it_back(
    #[values("flipped", "cut short", "too long")] what: &str,
) {
    let (_root, store, manifest) = filled();
    let content = store.layout.content(&digest("layer"));
    let mut file = File::options().append(true).open(&content).unwrap();
    match what {
        "flipped" => flip(&content),
        "cut short" => file.set_len(3).unwrap(),
        _ => file.write_all(b"x").unwrap(),
    }
    let found = check(&store, false);
    assert_eq!(found[0].done.as_deref(), Some("moved to quarantine"), "{found:?}");
    assert_eq!(folder::names(&store.layout.quarantine()).unwrap().len(), 1);
    assert_eq!(store.blob_size(&repository(), &digest("layer")).unwrap(), None);
    // That it is needed is not forgotten.
    let repaired = check(&store, true);
    assert!(repaired.iter().any(|problem| problem.done.is_none() && problem.what.contains("push it again")));
    assert_eq!(store.delete_blob(&repository(), &digest("layer")).unwrap(), Deleted::Needed(manifest));
    push(&store, "layer");
    assert_eq!(check(&store, false), []);
}

#[test]
fn what_nothing_can_bring_back_goes_to_quarantine() {
    let (_root, store, manifest) = filled();
    flip(&store.layout.content(&manifest));
    let repaired = check(&store, true);
    let done: Vec<_> =
        repaired.iter().map(|problem| (problem.path.as_str(), problem.done.as_deref())).collect();
    assert!(done.contains(&("repositories/team/app/_tags/v1", Some("moved to quarantine"))), "{done:?}");
    assert!(repaired.iter().all(|problem| problem.done.is_some()), "{repaired:?}");
    assert_eq!(check(&store, false), []);
    assert_eq!(store.tags(&repository(), None, 10).unwrap(), Some((Vec::new(), false)));
    assert_eq!(store.delete_blob(&repository(), &digest("layer")).unwrap(), Deleted::Done);
}

#[test]
fn what_a_crash_leaves_is_no_damage() {
    let (root, store, manifest) = filled();
    let folder = store.layout.repository(&repository());
    let other = digest("other");
    let entries = [
        folder.needed_by(&other, &manifest),
        folder.tagged_by(&other, &"v1".parse().unwrap()),
        folder.referrer(&other, &manifest),
        store.layout.holder(&other, &repository()),
    ];
    store.durable.mark(&entries).unwrap();
    fs::write(root.path().join("repositories/team/app/_tags/-not a tag"), "").unwrap();
    fs::write(root.path().join("blobs/sha256/stray"), "").unwrap();
    let found = check(&store, true);
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.iter().all(|problem| problem.severity == Severity::Leftover), "{found:?}");
    assert!(entries.iter().all(|entry| !entry.exists()));
    assert_eq!(check(&store, false).len(), 1, "what is nobody's is left alone");
}
