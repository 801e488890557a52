//! A disk that fails at one step, and at every step from one on, of everything that a push and a delete do: what was
//! acknowledged stays, what was not is whole or not there, and afterwards all works again.

use rstest::rstest;
use rustix::io::Errno;

use super::{checking::check, *};
use crate::storage::{Problem, Severity};

/// What a run got acknowledged.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged {
    blobs: Vec<Digest>,
    manifest: bool,
    mounted: bool,
    deleted: bool,
}

/// Everything that clients do, until the first failure. `hear` is told whenever something was acknowledged.
pub(super) fn push_and_delete(
    store: &Store,
    acknowledged: &mut Acknowledged,
    hear: &mut dyn FnMut(&Acknowledged),
) -> Result<(), Error> {
    let other: RepoName = "other".parse().unwrap();
    for content in ["{}", "new layer"] {
        let id = store.create_upload(repository(), Algorithm::Sha256)?;
        for piece in [&content[..1], &content[1..]] {
            let busy = store.busy.try_take(id).unwrap();
            let mut upload = store.open_upload(&repository(), id, busy)?.expect("a session that was begun");
            upload.append(&[Bytes::copy_from_slice(piece.as_bytes())])?;
            upload.suspend();
        }
        let busy = store.busy.try_take(id).unwrap();
        let upload = store.open_upload(&repository(), id, busy)?.expect("a session that was begun");
        assert_eq!(store.finish_upload(upload, &digest(content))?, Finished::Stored);
        acknowledged.blobs.push(digest(content));
        hear(acknowledged);
    }
    acknowledged.mounted = store.mount_blob(&repository(), &other, &digest("new layer"))?;
    hear(acknowledged);
    let (manifest, bytes) = image("new layer");
    let new = Digest::of(Algorithm::Sha256, &bytes);
    let tags = ["moves".parse().unwrap(), "new".parse().unwrap()];
    assert_eq!(store.put_manifest(&repository(), manifest, &new, &bytes, &tags)?, Put::Stored);
    acknowledged.manifest = true;
    hear(acknowledged);
    assert_eq!(store.delete_tag(&repository(), &"kept".parse().unwrap())?, Deleted::Done);
    assert_eq!(store.delete_manifest(&repository(), &old())?, Deleted::Done);
    acknowledged.deleted = true;
    hear(acknowledged);
    Ok(())
}

/// The manifest that is there before anything fails.
fn old() -> Digest {
    Digest::of(Algorithm::Sha256, &image("old layer").1)
}

/// What holds whatever failed where.
fn assert_whole(store: &Store, acknowledged: &Acknowledged) {
    assert_kept(store, acknowledged);
    let damage = check(store, false).into_iter().filter(|problem| problem.severity == Severity::Damage);
    assert_eq!(damage.collect::<Vec<_>>(), []);
    assert_eq!(store.damaged(), 0);
}

/// The same where leftovers of what was not acknowledged may lie about.
pub(super) fn assert_kept(store: &Store, acknowledged: &Acknowledged) {
    for blob in &acknowledged.blobs {
        assert!(store.blob_size(&repository(), blob).unwrap().is_some(), "an acknowledged blob is gone");
    }
    let other: RepoName = "other".parse().unwrap();
    if acknowledged.mounted {
        assert!(store.blob_size(&other, &digest("new layer")).unwrap().is_some());
    }
    for (tag, there) in [("moves", true), ("new", acknowledged.manifest)] {
        let found = store.find_manifest(&repository(), &Reference::Tag(tag.parse().unwrap())).unwrap();
        assert!(found.is_some() || !there, "{tag} is gone");
        let Some(found) = found else { continue };
        let bytes = store.read_manifest(&found).unwrap().expect("what a tag points to can be read");
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let layer = if text.contains(digest("new layer").as_str()) { "new layer" } else { "old layer" };
        assert_eq!(store.blob_size(&repository(), &digest(layer)).unwrap(), Some(layer.len() as u64));
        assert!(!acknowledged.manifest || layer == "new layer", "an acknowledged tag went back");
    }
    let old = store.find_manifest(&repository(), &Reference::Digest(old())).unwrap();
    assert!(old.is_none() || !acknowledged.deleted, "what was deleted is back");
    let leads = ["lead to this manifest", "leads back", "among its holders"];
    let lost = |problem: &Problem| leads.iter().any(|lead| problem.what.contains(lead));
    assert_eq!(check(store, false).into_iter().find(lost), None, "what points back is as durable");
}

/// A store with an old image under two tags.
pub(super) fn filled() -> (TempDir, Store) {
    let (root, store) = store();
    push(&store, "{}");
    push(&store, "old layer");
    let (manifest, bytes) = image("old layer");
    let tags = ["moves".parse().unwrap(), "kept".parse().unwrap()];
    store.put_manifest(&repository(), manifest, &old(), &bytes, &tags).unwrap();
    (root, store)
}

#[rstest]
#[case::full(Errno::NOSPC)]
#[case::broken(Errno::IO)]
#[case::read_only(Errno::ROFS)]
fn whatever_step_fails_nothing_is_torn_and_what_was_acknowledged_stays(
    #[case] errno: Errno,
    #[values(1, usize::MAX)] count: usize,
) {
    let mut failed = 0;
    for step in 1.. {
        let (root, store) = filled();
        let faults = std::sync::Arc::clone(&store.durable.disk.faults);
        faults.plan(step, count, errno);
        let mut acknowledged = Acknowledged::default();
        let done = push_and_delete(&store, &mut acknowledged, &mut |_| {});
        assert_whole(&store, &acknowledged);
        let steps = faults.heal();
        if let Err(error) = &done {
            failed += 1;
            assert_eq!(errno == Errno::NOSPC, matches!(error, Error::Full { .. }), "{error}");
            assert!(error.to_string().contains("failed to "), "{error} says what was done");
        }
        // The disk is well again: what failed succeeds, also after a restart.
        if step % 2 == 0 {
            drop(store);
            assert_whole(&Store::open(root.path()).unwrap(), &acknowledged);
        } else if !acknowledged.manifest {
            push_and_delete(&store, &mut acknowledged, &mut |_| {}).unwrap();
            assert_whole(&store, &acknowledged);
        }
        if steps < step {
            assert!(done.is_ok());
            break;
        }
    }
    assert!(failed > 40, "a push has more steps than the {failed} that failed it");
}

#[test]
fn collection_ends_at_a_failure_and_goes_on_next_time() {
    for step in 1.. {
        let (_root, store) = filled();
        push(&store, "never used");
        store.delete_manifest(&repository(), &old()).unwrap();
        let faults = std::sync::Arc::clone(&store.durable.disk.faults);
        faults.plan(step, 1, Errno::IO);
        let how = Collecting { dry_run: false, grace: std::time::Duration::ZERO };
        let done = store.collect(how, &mut |_| {}, &mut || true);
        let steps = faults.heal();
        assert_eq!(check(&store, false).iter().filter(|found| found.severity == Severity::Damage).count(), 0);
        super::collecting::collect(&store, false, std::time::Duration::ZERO);
        assert!(!store.layout.content(&digest("never used")).exists());
        if steps < step {
            done.unwrap();
            assert!(step > 10, "collection has more steps");
            break;
        }
    }
}
