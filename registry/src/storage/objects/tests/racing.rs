//! Pushes, pulls, mounts, deletes and collections without any grace by two instances at the same time, with a checker of
//! what must hold.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::sync::RwLock;

use super::{super::bucket::nonce, *};

const WORKERS: u64 = 4;
const ROUNDS: u64 = 40;
/// Until collection has taken away so much.
const COLLECTED: u64 = 10;
const MOST: u64 = 10 * ROUNDS;
/// Few, so that workers meet.
const LAYERS: u64 = 4;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Requests that are under way. Time passes only between them: none takes as long as others count with it.
#[derive(Default)]
struct Requests(RwLock<()>);

impl Requests {
    async fn one<T>(&self, request: impl Future<Output = T>) -> T {
        let _under_way = self.0.read().await;
        request.await
    }
}

struct Worker {
    objects: Objects,
    requests: Arc<Requests>,
    number: u64,
    dice: Dice,
    collected: Arc<AtomicU64>,
    /// What was acknowledged, and not deleted again.
    mine: HashMap<u64, (RepoName, Digest, Bytes, String)>,
}

impl Worker {
    async fn work(mut self) {
        let mut round = 0;
        while round < ROUNDS || self.collected.load(Ordering::Relaxed) < COLLECTED && round < MOST {
            round += 1;
            let name = repository(&format!("race/r{}", self.dice.roll(2)));
            let layer = format!("layer {}", self.dice.roll(LAYERS));
            self.push(round, &name, &layer).await;
            for (name, digest, bytes, layer) in self.mine.values() {
                is_whole(&self.objects, name, digest, bytes, layer).await;
            }
            let deleted = self.objects.delete_blob(name.clone(), digest(&layer));
            self.requests.one(deleted).await.unwrap();
            // Few stay, or everything would be needed for ever.
            while self.dice.roll(2) == 0 || self.mine.len() > 3 {
                let Some(first) = self.mine.keys().copied().min() else { break };
                let Some((name, digest, ..)) = self.mine.remove(&first) else { break };
                let reference = Reference::Digest(digest);
                let deleted = self.objects.delete_manifest(name.clone(), reference.clone());
                assert_eq!(self.requests.one(deleted).await.unwrap(), Deleted::Done);
                assert_eq!(find(&self.objects, &name, reference).await, None);
            }
        }
    }

    async fn push(&mut self, round: u64, name: &RepoName, layer: &str) {
        let objects = self.objects.clone();
        self.requests.one(push_text(&objects, name, "{}")).await.unwrap();
        let from = objects.find_blob(digest(layer), |_| true);
        let from = if self.dice.roll(3) == 0 { self.requests.one(from).await.unwrap() } else { None };
        let is_mounted = match from {
            Some(from) => {
                let mounted = objects.mount_blob(from, name.clone(), digest(layer));
                self.requests.one(mounted).await.unwrap()
            }
            None => false,
        };
        if !is_mounted {
            self.requests.one(push_text(&objects, name, layer)).await.unwrap();
        }
        // Each worker's manifests are its own; their blobs are everybody's.
        let padding = usize::try_from(self.number + WORKERS * round).unwrap();
        let text = String::from_utf8(image(layer).1.into()).unwrap();
        let (manifest, bytes, digest) = parsed(format!("{text}{:1$}", "", padding));
        let tags = [tag(&format!("w{}-{}", self.number, round % 3)), tag("shared")].map(NewTag::from);
        let put = objects.put_manifest(name.clone(), manifest, digest.clone(), bytes.clone(), tags.to_vec());
        match self.requests.one(put).await.unwrap() {
            Put::Stored => {
                self.mine.insert(round, (name.clone(), digest, bytes, layer.to_owned()));
            }
            // Without any grace a blob may go before a manifest comes that needs it.
            Put::Missing(missing) => assert!(!missing.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}

/// Everything that a manifest needs is there as long as nobody deletes it, and nobody but its worker does.
async fn is_whole(objects: &Objects, name: &RepoName, digest: &Digest, bytes: &Bytes, layer: &str) {
    let found = find(objects, name, Reference::Digest(digest.clone())).await;
    assert_eq!(found.expect("an acknowledged manifest is there").1, *bytes);
    for needed in ["{}", layer] {
        let blob = pull(objects, name, &super::digest(needed)).await;
        assert_eq!(blob.as_deref(), Some(needed.as_bytes()), "{needed} is gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_all_at_once() {
    let pair = Pair::new();
    let requests = Arc::new(Requests::default());
    let (done, collected) = (Arc::new(AtomicBool::new(false)), Arc::<AtomicU64>::default());
    let instances = [&pair.one, &pair.two];
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let worker = Worker {
                objects: instances[usize::try_from(number % 2).unwrap()].clone(),
                requests: Arc::clone(&requests),
                collected: Arc::clone(&collected),
                number,
                dice: Dice(0x9E37_79B9_7F4A_7C15 ^ (number + 1)),
                mine: HashMap::new(),
            };
            tokio::spawn(worker.work())
        })
        .collect();
    let collectors: Vec<_> = instances
        .into_iter()
        .map(|objects| {
            let (objects, done, collected) = (objects.clone(), Arc::clone(&done), Arc::clone(&collected));
            tokio::task::spawn_blocking(move || {
                let how = Collecting { dry_run: false, grace: Duration::ZERO };
                while !done.load(Ordering::Relaxed) {
                    let mut report = |_| {
                        collected.fetch_add(1, Ordering::Relaxed);
                    };
                    match objects.collect(how, &mut report, &mut || true) {
                        // Where workers are too fast, the next one goes on.
                        Ok(()) | Err(Error::Contended { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    let clock = tokio::spawn({
        let (requests, clock, done) = (Arc::clone(&requests), Arc::clone(&pair.clock), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Relaxed) {
                let none_under_way = requests.0.write().await;
                clock.fetch_add(LONGEST.as_secs(), Ordering::SeqCst);
                drop(none_under_way);
                tokio::task::yield_now().await;
            }
        }
    });
    let mut ended = Vec::new();
    for worker in workers {
        ended.push(worker.await);
    }
    done.store(true, Ordering::Relaxed);
    clock.await.unwrap();
    for collector in collectors {
        collector.await.unwrap();
    }
    for ended in ended {
        ended.unwrap();
    }
    assert!(collected.load(Ordering::Relaxed) >= COLLECTED, "collection had something to do");
    assert_eq!((pair.one.damaged(), pair.two.damaged()), (0, 0), "nothing was ever lost");
    for _ in 0..4 {
        pair.wait();
        collect(&pair.one, Duration::ZERO).await.unwrap();
    }
    // What is left is whole: every manifest there, and no data that nothing stands for.
    let mut needed = std::collections::HashSet::new();
    for name in pair.two.repositories(None, 10, everything).await.unwrap().0 {
        for key in pair.bucket.keys(&format!("repositories/{name}/_manifests")).await {
            let Some(digest) = super::super::keys::digest_of(&key.as_str().into()) else { panic!("{key}") };
            let Some((_, bytes)) = find(&pair.two, &name, Reference::Digest(digest)).await else { continue };
            let manifest = Manifest::parse(None, &bytes).unwrap();
            for blob in manifest.blobs {
                assert!(pull(&pair.two, &name, &blob).await.is_some(), "{blob} is gone");
                needed.insert(blob);
            }
        }
    }
    assert_eq!(pair.bucket.keys("data").await.len(), needed.len());
    assert_eq!(pair.bucket.keys("uploads").await, [""; 0]);
}

/// Tags that come and go while their graves are taken away at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_and_their_graves() {
    let pair = Pair::new();
    let name = repository("a");
    push_text(&pair.one, &name, "{}").await.unwrap();
    // By the store's clock, which is the real one, everything is old.
    pair.clock.store(u64::from(u32::MAX), Ordering::SeqCst);
    let done = Arc::new(AtomicBool::new(false));
    let collectors = [&pair.one, &pair.two].map(|objects| {
        let (objects, done) = (objects.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                collect(&objects, Duration::from_secs(u64::MAX)).await.unwrap();
            }
        })
    });
    let workers = [&pair.one, &pair.two, &pair.one, &pair.two].map(|objects| {
        let (objects, name) = (objects.clone(), name.clone());
        tokio::spawn(async move {
            let tag = tag(&nonce());
            for _ in 0..40 {
                assert_eq!(
                    put(&objects, &name, "{}", std::slice::from_ref(&tag)).await.unwrap(),
                    Put::Stored
                );
                tokio::task::yield_now().await;
                assert!(find(&objects, &name, Reference::Tag(tag.clone())).await.is_some());
                let deleted = objects.delete_manifest(name.clone(), Reference::Tag(tag.clone())).await;
                assert_eq!(deleted.unwrap(), Deleted::Done);
                assert!(find(&objects, &name, Reference::Tag(tag.clone())).await.is_none());
            }
        })
    });
    for worker in workers {
        worker.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for collector in collectors {
        collector.await.unwrap();
    }
    assert!(pair.bucket.by_name()["delete"] > 100, "graves were taken away");
}
