//! Pushes, pulls, mounts, deletes and collection without any grace at the same time, with a checker of what must hold.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{checking::check, collecting::collect, *};
use crate::storage::Severity;

const WORKERS: u64 = 4;
const ROUNDS: u64 = 150;
/// Few, so that workers meet.
const LAYERS: u64 = 5;

/// Numbers that look random and are the same each time.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(0x9E37_79B9_7F4A_7C15 ^ (seed + 1))
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn name(n: u64) -> RepoName {
    format!("race/r{n}").parse().unwrap()
}

fn push_to(store: &Store, repository: &RepoName, content: &str) {
    let id = store.create_upload(repository.clone(), Algorithm::Sha256).unwrap();
    let busy = store.busy.try_take(id).unwrap();
    let mut upload = store.open_upload(repository, id, busy).unwrap().unwrap();
    upload.append(&[Bytes::copy_from_slice(content.as_bytes())]).unwrap();
    assert_eq!(store.finish_upload(upload, &digest(content)).unwrap(), Finished::Stored);
}

/// Everything that a manifest needs is there as long as nobody deletes it, and nobody but its worker does.
fn pull(store: &Store, repository: &RepoName, digest: &Digest, layer: &str) {
    let found = store.open_manifest(repository, &Reference::Digest(digest.clone())).unwrap();
    let (found, file) = found.expect("an acknowledged manifest is there");
    assert!(store.read_manifest(&found, file).unwrap().is_some());
    for needed in ["{}", layer] {
        let blob = store.open_blob(repository, &super::digest(needed)).unwrap();
        assert_eq!(blob.map(|(_, size)| size), Some(needed.len() as u64), "{needed} is gone");
    }
}

/// One client: what it had acknowledged and did not delete is there at any time.
fn work(store: &Store, worker: u64) {
    let mut dice = Dice::new(worker);
    let mut mine: HashMap<u64, (RepoName, Digest, String)> = HashMap::new();
    for round in 0..ROUNDS {
        let repository = name(dice.roll(2));
        let layer = format!("layer {}", dice.roll(LAYERS));
        push_to(store, &repository, "{}");
        if dice.roll(3) == 0 {
            let from = store.find_blob(&digest(&layer), |_| true).unwrap();
            if from.is_none_or(|from| !store.mount_blob(&from, &repository, &digest(&layer)).unwrap()) {
                push_to(store, &repository, &layer);
            }
        } else {
            push_to(store, &repository, &layer);
        }
        let (manifest, mut bytes) = image(&layer);
        // Each worker's manifests are its own; their blobs are everybody's.
        bytes.extend(format!("{:1$}", "", usize::try_from(worker * ROUNDS + round).unwrap()).bytes());
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let tags = [format!("w{worker}-{}", round % 3).parse().unwrap(), "shared".parse().unwrap()];
        match store.put_manifest(&repository, manifest, &digest, &bytes, &tags, None).unwrap() {
            Put::Stored => {
                mine.insert(round, (repository.clone(), digest, layer.clone()));
            }
            // Without any grace a blob may go before a manifest comes that needs it.
            Put::Missing(missing) => assert!(!missing.is_empty()),
            other => panic!("{other:?}"),
        }
        for (repository, digest, layer) in mine.values() {
            pull(store, repository, digest, layer);
        }
        store.delete_blob(&repository, &super::digest(&layer)).unwrap();
        if dice.roll(2) == 0
            && let Some((repository, digest, _)) = mine.remove(&dice.roll(round + 1))
        {
            assert_eq!(store.delete_manifest(&repository, &digest, None).unwrap(), Deleted::Done);
            assert_eq!(store.find_manifest(&repository, &Reference::Digest(digest)).unwrap(), None);
        }
        if mine.len() > 10 {
            mine.clear();
        }
    }
}

#[test]
fn pushes_pulls_deletes_and_collection_all_at_once() {
    let (_root, store) = store();
    counting::govern(&store, &["race/*", "race/r1"]);
    assert_eq!(store.count_repositories().unwrap(), 0);
    let done = AtomicBool::new(false);
    let mut collected = 0;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn({
                    let store = &store;
                    move || work(store, worker)
                })
            })
            .collect();
        let checker = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let damage =
                    check(&store, false).into_iter().find(|found| found.severity == Severity::Damage);
                assert!(damage.is_none(), "{damage:?}");
            }
        });
        let collector = scope.spawn(|| {
            let mut collected = 0;
            while !done.load(Ordering::Relaxed) {
                collected += collect(&store, false, Duration::ZERO).len();
            }
            collected
        });
        let ended: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        checker.join().unwrap();
        collected = collector.join().unwrap();
        for ended in ended {
            ended.unwrap();
        }
    });
    counting::assert_right(&store);
    assert!(collected > 10, "collection had something to do");
    assert_eq!(store.damaged(), 0, "nothing was ever lost");
    // Nothing that was not deleted is without what it needs, and what is not needed goes.
    let damage: Vec<_> =
        check(&store, true).into_iter().filter(|found| found.severity == Severity::Damage).collect();
    assert_eq!(damage, []);
    collect(&store, false, Duration::ZERO);
    counting::assert_right(&store);
    assert_eq!(collect(&store, false, Duration::ZERO), []);
    assert_eq!(check(&store, false), []);
}
