//! A disk that fails at one step, and at every step from one on, of everything that a push and a delete do: what was
//! acknowledged stays, what was not is whole or not there, and afterwards all works again.

use rstest::rstest;
use rustix::io::Errno;

use super::{checking::check, *};
use crate::storage::{NewTag, Problem, Severity};

/// What a run got acknowledged.
#[expect(clippy::struct_excessive_bools, reason = "each says that one thing was")]
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged {
    blobs: Vec<Digest>,
    manifest: bool,
    mounted: bool,
    deleted: bool,
    /// A tag that was deleted is there again.
    back: bool,
    pub(super) ended: bool,
    /// From before it began.
    cursor: String,
    /// What the feed tells after that: names, with a minus before those that were deleted.
    told: Vec<String>,
}

/// Everything that clients do, until the first failure. `hear` is told whenever something was acknowledged.
pub(super) fn push_and_delete(
    store: &Store,
    acknowledged: &mut Acknowledged,
    hear: &mut dyn FnMut(&Acknowledged),
) -> Result<(), Error> {
    let other: RepoName = "other".parse().unwrap();
    acknowledged.cursor = store.feed.present().cursor();
    acknowledged.told.clear();
    acknowledged.ended = false;
    for content in ["{}", "new layer"] {
        let id = store.create_upload(repository(), Algorithm::Sha256)?;
        for piece in [&content[..1], &content[1..]] {
            let busy = store.busy.try_take(id).unwrap();
            let mut upload = store.open_upload(&repository(), id, busy)?.expect("a session that was begun");
            upload.append(&[Bytes::copy_from_slice(piece.as_bytes())])?;
            upload.suspend()?;
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
    let put = |tags: &[NewTag]| store.put_manifest(&repository(), manifest.clone(), &new, &bytes, tags, None);
    // What a former run did already is not told again.
    let mut told = Vec::new();
    for tag in ["moves", "new"] {
        if store.resolve(&repository(), &tag.parse().unwrap())?.as_ref() != Some(&new) {
            told.push(tag.to_owned());
        }
    }
    assert_eq!(put(&tags)?, Put::Stored);
    acknowledged.manifest = true;
    acknowledged.told.append(&mut told);
    hear(acknowledged);
    // What goes, or may go, is not counted with from here on.
    (acknowledged.back, acknowledged.mounted) = (false, false);
    hear(acknowledged);
    if store.delete_tag(&repository(), &"kept".parse().unwrap(), None)? == Deleted::Done {
        acknowledged.told.push("-kept".to_owned());
    }
    if store.delete_manifest(&repository(), &old(), None)? == Deleted::Done {
        acknowledged.told.push(format!("-{}", old()));
    }
    acknowledged.deleted = true;
    hear(acknowledged);
    let how = Collecting { dry_run: false, grace: std::time::Duration::ZERO };
    store.collect(how, &mut |_| {}, &mut || true)?;
    hear(acknowledged);
    assert_eq!(put(&["kept".parse().unwrap()])?, Put::Stored);
    acknowledged.back = true;
    acknowledged.told.push("kept".to_owned());
    hear(acknowledged);
    store.close()?;
    acknowledged.ended = true;
    hear(acknowledged);
    Ok(())
}

/// The manifest that is there before anything fails.
fn old() -> Digest {
    Digest::of(Algorithm::Sha256, &image("old layer").1)
}

/// What holds whatever failed where.
pub(super) fn assert_whole(store: &Store, acknowledged: &Acknowledged) {
    assert_kept(store, acknowledged);
    let damage = check(store, false).into_iter().filter(|problem| problem.severity == Severity::Damage);
    assert_eq!(damage.collect::<Vec<_>>(), []);
    assert_eq!(store.damaged(), 0);
}

/// The same where leftovers of what was not acknowledged may lie about.
fn assert_kept(store: &Store, acknowledged: &Acknowledged) {
    for blob in &acknowledged.blobs {
        assert!(store.blob_size(&repository(), blob).unwrap().is_some(), "an acknowledged blob is gone");
    }
    let other: RepoName = "other".parse().unwrap();
    if acknowledged.mounted {
        assert!(store.blob_size(&other, &digest("new layer")).unwrap().is_some());
    }
    for (tag, there) in [("moves", true), ("new", acknowledged.manifest)] {
        let found = store.open_manifest(&repository(), &Reference::Tag(tag.parse().unwrap())).unwrap();
        assert!(found.is_some() || !there, "{tag} is gone");
        let Some((found, file)) = found else { continue };
        let bytes = store.read_manifest(&found, file).unwrap().expect("what a tag points to can be read");
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let layer = if text.contains(digest("new layer").as_str()) { "new layer" } else { "old layer" };
        assert_eq!(store.blob_size(&repository(), &digest(layer)).unwrap(), Some(layer.len() as u64));
        assert!(!acknowledged.manifest || layer == "new layer", "an acknowledged tag went back");
    }
    let old = store.find_manifest(&repository(), &Reference::Digest(old())).unwrap();
    assert!(old.is_none() || !acknowledged.deleted, "what was deleted is back");
    let recorded = |name: &str| store.deletion(&repository(), name).unwrap().map(|deletion| deletion.digest);
    let kept = store.resolve(&repository(), &"kept".parse().unwrap()).unwrap();
    if acknowledged.deleted {
        assert_eq!(recorded(self::old().as_str()), Some(self::old()), "nothing tells of the manifest");
        assert!(kept.is_some() || recorded("kept").is_some(), "nothing tells of the tag");
        assert_ne!(kept, Some(self::old()), "what was deleted is back");
    }
    if acknowledged.back {
        assert!(kept.is_some(), "a tag that came back is gone");
        assert_eq!(recorded("kept"), None, "what was undone is back");
    }
    is_followed(store, acknowledged);
    let leads = ["lead to this manifest", "leads back", "among its holders"];
    let lost = |problem: &Problem| leads.iter().any(|lead| problem.what.contains(lead));
    assert_eq!(check(store, false).into_iter().find(lost), None, "what points back is as durable");
}

/// Whether who follows the feed can go on; then it tells of everything that was acknowledged.
pub(super) fn is_followed(store: &Store, acknowledged: &Acknowledged) -> bool {
    let Some(position) = store.feed.position(&acknowledged.cursor) else { return false };
    let piece = store.feed.read(position, 1000, |_| true).unwrap().expect("a feed that is whole");
    let told: Vec<_> = piece
        .entries
        .into_iter()
        .map(|entry| {
            let sign = if entry.kind == channel::feed::Kind::Delete { "-" } else { "" };
            sign.to_owned() + &entry.tag.unwrap_or(entry.digest)
        })
        .collect();
    for name in &acknowledged.told {
        assert!(told.contains(name), "the feed tells {told:?} and not {name}");
    }
    true
}

/// A store with an old image under two tags.
pub(super) fn filled() -> (TempDir, Store) {
    let (root, store) = store();
    push(&store, "{}");
    push(&store, "old layer");
    let (manifest, bytes) = image("old layer");
    let tags = ["moves".parse().unwrap(), "kept".parse().unwrap()];
    store.put_manifest(&repository(), manifest, &old(), &bytes, &tags, None).unwrap();
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
    let (mut failed, mut followed) = (0, 0);
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
        let killed_now = killed(root.path());
        let found = Store::open(killed_now.path()).unwrap();
        assert_whole(&found, &acknowledged);
        let is_known = store.feed.position(&acknowledged.cursor).is_some();
        assert!(is_followed(&found, &acknowledged) || !is_known, "a start makes nobody begin anew");
        followed += usize::from(is_known);
        // The disk is well again: what failed succeeds, also after a restart.
        if step % 2 == 0 {
            drop(store);
            assert_whole(&Store::open(root.path()).unwrap(), &acknowledged);
        } else if !acknowledged.manifest {
            push_and_delete(&store, &mut acknowledged, &mut |_| {}).unwrap();
            assert_whole(&store, &acknowledged);
            assert_whole(&Store::open(killed(root.path()).path()).unwrap(), &acknowledged);
        }
        if steps < step {
            assert!(done.is_ok());
            break;
        }
    }
    assert!(followed > failed / 2, "the feed has to begin anew too often: {followed} of {failed}");
    assert!(failed > 40, "a push has more steps than the {failed} that failed it");
}

#[test]
fn collection_ends_at_a_failure_and_goes_on_next_time() {
    for step in 1.. {
        let (_root, store) = filled();
        push(&store, "never used");
        store.delete_manifest(&repository(), &old(), None).unwrap();
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

#[test]
fn a_tag_that_can_not_be_read_is_not_deleted_without_a_record() {
    let (_root, store) = filled();
    let (kept, folder) = ("kept".parse().unwrap(), store.layout.repository(&repository()));
    // What nobody can open, and anybody can remove.
    fs::remove_file(folder.tag(&kept)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.tag(&kept)).unwrap();
    let failed = store.delete_tag(&repository(), &kept, None).unwrap_err();
    assert!(matches!(failed, Error::Io { action: "read", .. }), "{failed}");
    assert!(folder.tag(&kept).exists());
    // One that is damaged can be deleted all the same.
    fs::remove_file(folder.tag(&kept)).unwrap();
    fs::write(folder.tag(&kept), "nothing").unwrap();
    assert_eq!(store.delete_tag(&repository(), &kept, None).unwrap(), Deleted::Done);
}
