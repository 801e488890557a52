//! Power failures: a disk that forgets what was not synced. Everything that clients do is written down, and for each
//! moment roots are made from what a disk may have kept: the names in each folder as they were at its last sync or any
//! time since, in no order between folders; of each file its content at its last sync, and of what was written since
//! all, or nothing, or any parts.

pub(super) mod model;

use rstest::rstest;

use self::model::{Model, every_moment};
use super::{
    super::disk::faults::Done,
    failing::{Acknowledged, assert_whole, filled, is_followed, push_and_delete},
    *,
};

/// Roots made for each moment.
const GUESSES: u64 = 6;

/// What clients and checkpoints do, with what was acknowledged when so much was done.
fn pushes_and_checkpoints(store: &Store, checkpoint: usize) -> (Vec<Done>, Vec<(usize, Acknowledged)>) {
    let faults = std::sync::Arc::clone(&store.durable.disk.faults);
    faults.record();
    let mut moments = Vec::new();
    push_and_delete(store, &mut Acknowledged::default(), &mut |now| {
        moments.push((faults.done().len(), now.clone()));
        if moments.len() % checkpoint == 0 {
            store.durable.journal.checkpoint().unwrap();
        }
    })
    .unwrap();
    (faults.done(), moments)
}

fn at(moments: &[(usize, Acknowledged)], moment: usize) -> Acknowledged {
    let last = moments.iter().rfind(|(when, _)| *when <= moment);
    last.map(|(_, acknowledged)| acknowledged.clone()).unwrap_or_default()
}

/// What another run of the machine finds. After an orderly end also who follows the feed goes on.
fn assert_kept(root: &TempDir, boot: &str, acknowledged: &Acknowledged) {
    let store = Store::open_on(Disk::default(), root.path(), boot.to_owned()).unwrap();
    assert_whole(&store, acknowledged);
    assert!(is_followed(&store, acknowledged) || !acknowledged.ended, "the feed begins anew");
}

#[rstest]
#[case::without_checkpoints(usize::MAX)]
#[case::with_one(3)]
#[case::with_one_after_each(1)]
fn whenever_the_power_fails_what_was_acknowledged_stays_and_nothing_is_torn(#[case] checkpoint: usize) {
    let (root, store) = filled();
    let model = Model::of(root.path());
    let (done, moments) = pushes_and_checkpoints(&store, checkpoint);
    assert!(done.len() > 80, "clients did more than {}", done.len());
    every_moment(model, root.path(), &done, GUESSES, |moment, _, kept| {
        assert_kept(kept, "the next run", &at(&moments, moment));
    });
}

#[test]
fn the_power_may_fail_again_while_the_journal_is_done_again() {
    let (root, store) = filled();
    let model = Model::of(root.path());
    let (done, moments) = pushes_and_checkpoints(&store, 4);
    let mut failures = 0;
    every_moment(model, root.path(), &done, 1, |moment, seed, kept| {
        if seed % 7 != 0 && moment != done.len() {
            return;
        }
        let model = Model::of(kept.path());
        let disk = Disk::default();
        disk.faults.record();
        drop(Store::open_on(disk.clone(), kept.path(), "the next run".to_owned()).unwrap());
        let again = disk.faults.done();
        failures += again.len();
        every_moment(model, kept.path(), &again, 1, |_, _, kept_again| {
            assert_kept(kept_again, "the one after it", &at(&moments, moment));
        });
    });
    assert!(failures > 300, "so many failures are few: {failures}");
}

#[test]
fn clients_may_go_on_after_a_failure_and_the_power_may_fail_again() {
    let (root, store) = filled();
    let model = Model::of(root.path());
    let (done, moments) = pushes_and_checkpoints(&store, 4);
    let mut failures = 0;
    every_moment(model, root.path(), &done, 1, |moment, seed, kept| {
        if seed % 19 != 0 && moment != done.len() {
            return;
        }
        let model = Model::of(kept.path());
        let disk = Disk::default();
        disk.faults.record();
        let store = Store::open_on(disk.clone(), kept.path(), "the next run".to_owned()).unwrap();
        let mut acknowledged = at(&moments, moment);
        let mut later = vec![(0, acknowledged.clone())];
        push_and_delete(&store, &mut acknowledged, &mut |now| {
            later.push((disk.faults.done().len(), now.clone()));
        })
        .unwrap();
        drop(store);
        let again = disk.faults.done();
        failures += again.len();
        every_moment(model, kept.path(), &again, 1, |moment, _, kept_again| {
            assert_kept(kept_again, "the one after it", &at(&later, moment));
        });
    });
    assert!(failures > 300, "so many failures are few: {failures}");
}

/// An image of the same length for each number, with the tag that is pushed with it.
fn tag(store: &Store, tag: &str, number: u64) {
    let (manifest, bytes) = image(&format!("layer {number}"));
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let put = store.put_manifest(&repository(), manifest, &digest, &bytes, &[tag.parse().unwrap()], None);
    assert_eq!(put.unwrap(), Put::Stored);
}

fn tagged(store: &Store, tag: &str) -> u64 {
    let digest = store.resolve(&repository(), &tag.parse().unwrap()).unwrap().unwrap();
    let number = |n: &u64| Digest::of(Algorithm::Sha256, &image(&format!("layer {n}")).1) == digest;
    (0..6).find(number).unwrap()
}

/// Two pushes share a write, the power fails, another push of the same length is acknowledged, the power fails again.
#[test]
fn what_was_written_and_never_acknowledged_does_not_come_after_what_was() {
    let (root, store) = filled();
    for number in 0..6 {
        push(&store, &format!("layer {number}"));
    }
    tag(&store, "one", 0);
    tag(&store, "two", 3);
    store.durable.journal.checkpoint().unwrap();
    let (model, faults) = (Model::of(root.path()), std::sync::Arc::clone(&store.durable.disk.faults));
    faults.record();
    store.durable.journal.together(&[&|| tag(&store, "one", 1), &|| tag(&store, "two", 4)]);
    let done = faults.done();
    // Before it there may be zeros, for all that comes.
    let is_written = |done: &Done| {
        matches!(done, Done::WroteAt(path, _, bytes)
            if path.parent().unwrap().ends_with("journal") && bytes.iter().any(|byte| *byte != 0))
    };
    assert_eq!(done.iter().filter(|done| is_written(done)).count(), 1, "they share a write");
    let written = 1 + done.iter().position(is_written).unwrap();
    let model = model.after(root.path(), &done[..written]);
    let mut came = [0; 2];
    for seed in 0..100 {
        let kept = model.kept(seed);
        let (model, disk) = (Model::of(kept.path()), Disk::default());
        disk.faults.record();
        let store = Store::open_on(disk.clone(), kept.path(), "the next run".to_owned()).unwrap();
        came[0] += tagged(&store, "one");
        came[1] += tagged(&store, "two") - 3;
        tag(&store, "two", 5);
        let kept_again = model.after(kept.path(), &disk.faults.done()).kept(seed);
        let store =
            Store::open_on(Disk::default(), kept_again.path(), "the one after it".to_owned()).unwrap();
        assert_eq!(tagged(&store, "two"), 5, "what was acknowledged came later");
    }
    assert!(came.iter().all(|came| *came > 0), "a write that nobody waited for may be there: {came:?}");
}
