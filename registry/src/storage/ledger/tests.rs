use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use oci::Algorithm;

use super::*;

/// Repositories and what they hold.
#[derive(Default)]
struct Names {
    held: Mutex<HashSet<(RepoName, u64)>>,
    counts: AtomicU64,
}

/// Contents are numbers, and as large as they say.
fn digest(content: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &content.to_le_bytes())
}

impl Names {
    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<(RepoName, u64)>> {
        self.held.lock().unwrap()
    }

    /// What a path holds, each content once.
    fn bytes(&self, scope: &Scope) -> u64 {
        let held = self.held();
        let within = held.iter().filter(|(repository, _)| scope.has(repository));
        within.map(|(_, content)| content).collect::<HashSet<_>>().into_iter().sum()
    }
}

impl Shelf for Names {
    fn holds(&self, scope: &Scope, _: &RepoName, content: &Digest) -> Result<bool, Error> {
        let held = self.held();
        Ok(held.iter().any(|(repository, held)| scope.has(repository) && digest(*held) == *content))
    }

    fn count(&self, scope: &Scope) -> Result<Tally, Error> {
        self.counts.fetch_add(1, Ordering::SeqCst);
        Ok(Tally { bytes: self.bytes(scope), ..Tally::default() })
    }
}

fn name(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn governing(paths: &[(&'static str, Option<u64>)]) -> Arc<Governing> {
    Arc::new(Governing::new(paths.iter().copied()))
}

fn push(ledger: &Ledger, names: &Names, to: &RepoName, content: u64) -> Result<(), Error> {
    let mut entry = ledger.push(names, to)?;
    entry.take_in(&digest(content), content)?;
    names.held().insert((to.clone(), content));
    entry.keep();
    Ok(())
}

fn remove(ledger: &Ledger, names: &Names, from: &RepoName, content: u64) {
    let mut entry = ledger.removal(names, from).unwrap();
    entry.take_out(&digest(content), content).unwrap();
    names.held().remove(&(from.clone(), content));
}

fn usage(ledger: &Ledger, names: &Names) -> HashMap<String, u64> {
    let usage = ledger.usage(names, Instant::now() + Duration::from_secs(60));
    usage.into_iter().map(|(path, tally)| (path, tally.bytes)).collect()
}

#[test]
fn each_content_of_a_path_counts_once_and_the_quota_is_its_limit() {
    let (ledger, names) = (Ledger::default(), Names::default());
    assert!(ledger.govern(governing(&[("a/*", Some(100)), ("a/own", None)])));
    let (one, two) = (name("a/one"), name("a/two"));
    push(&ledger, &names, &one, 60).unwrap();
    push(&ledger, &names, &two, 60).unwrap();
    push(&ledger, &names, &one, 40).unwrap();
    let error = push(&ledger, &names, &two, 1).unwrap_err().to_string();
    assert_eq!(error, "the quota of `a/*` is 100 bytes: 100 are taken and this push would take 1 more");
    push(&ledger, &names, &two, 40).unwrap();
    push(&ledger, &names, &name("a/own"), 1000).unwrap();
    push(&ledger, &names, &name("other"), 1000).unwrap();
    assert_eq!(usage(&ledger, &names), HashMap::from([("a/*".into(), 100), ("a/own".into(), 1000)]));
    remove(&ledger, &names, &one, 60);
    push(&ledger, &names, &two, 1).unwrap_err();
    remove(&ledger, &names, &two, 60);
    push(&ledger, &names, &two, 1).unwrap();
    assert_eq!(usage(&ledger, &names)["a/*"], 41);
    assert_eq!(names.counts.load(Ordering::SeqCst), 2, "counted once, then kept up");
}

#[test]
fn what_fails_costs_nothing_and_what_comes_while_it_goes_stays_counted() {
    let (ledger, names) = (Ledger::default(), Names::default());
    ledger.govern(governing(&[("*", Some(100))]));
    let (one, two) = (name("one"), name("two"));
    {
        let mut entry = ledger.push(&names, &one).unwrap();
        entry.take_in(&digest(60), 60).unwrap();
        assert_eq!(usage(&ledger, &names)["*"], 60);
    }
    assert_eq!(usage(&ledger, &names)["*"], 0);
    push(&ledger, &names, &one, 60).unwrap();
    let mut coming = ledger.push(&names, &two).unwrap();
    coming.take_in(&digest(60), 60).unwrap();
    remove(&ledger, &names, &one, 60);
    assert_eq!(usage(&ledger, &names)["*"], 60);
    names.held().insert((two.clone(), 60));
    coming.keep();
    drop(coming);
    assert_eq!(usage(&ledger, &names)["*"], 60);
    // Two that go at the same time go once.
    push(&ledger, &names, &one, 60).unwrap();
    push(&ledger, &names, &one, 40).unwrap();
    let mut going = [ledger.removal(&names, &one).unwrap(), ledger.removal(&names, &two).unwrap()];
    for entry in &mut going {
        entry.take_out(&digest(60), 60).unwrap();
    }
    names.held().retain(|(_, content)| *content != 60);
    drop(going);
    assert_eq!(usage(&ledger, &names)["*"], 40);
}

#[test]
fn a_new_policy_waits_for_changes_and_keeps_what_is_the_same() {
    let (ledger, names) = (Ledger::default(), Names::default());
    ledger.govern(governing(&[("a/*", None), ("b", Some(5))]));
    push(&ledger, &names, &name("a/one"), 7).unwrap();
    push(&ledger, &names, &name("b"), 5).unwrap();
    usage(&ledger, &names);
    let entry = ledger.push(&names, &name("b")).unwrap();
    assert!(!ledger.govern(governing(&[("b", Some(6)), ("a/*", None), ("a/one", None)])));
    std::thread::scope(|scope| {
        let turning = scope.spawn(|| ledger.turn());
        drop(entry);
        turning.join().unwrap();
    });
    let counts = names.counts.load(Ordering::SeqCst);
    push(&ledger, &names, &name("b"), 1).unwrap();
    assert_eq!(names.counts.load(Ordering::SeqCst), counts, "it is still known");
    let expected = [("b", 6), ("a/*", 0), ("a/one", 7)].map(|(path, bytes)| (path.to_owned(), bytes));
    assert_eq!(usage(&ledger, &names), HashMap::from(expected));
    ledger.forget();
    assert_eq!(usage(&ledger, &names)["b"], 6);
}

/// Pushes, some of which fail, removals, counts and new policies, all at once.
#[test]
fn the_quota_holds_whatever_happens_at_once() {
    const QUOTA: u64 = 60;
    let (ledger, names) = (Ledger::default(), Names::default());
    let policies = [
        governing(&[("a/*", Some(QUOTA))]),
        governing(&[("a/*", Some(QUOTA)), ("a/1/*", None), ("b", None)]),
    ];
    ledger.govern(Arc::clone(&policies[0]));
    let whole = Scope { governing: Arc::clone(&policies[0]), index: 0 };
    let is_over = AtomicBool::new(false);
    // As the locks of contents do: what comes does not go at the same time.
    let contents: Vec<_> = (0..20).map(|_| RwLock::new(())).collect();
    std::thread::scope(|scope| {
        for worker in 0..8_u64 {
            let (ledger, names, whole, contents) = (&ledger, &names, &whole, &contents);
            scope.spawn(move || {
                let mut random = worker * 7919 + 1;
                for _ in 0..400 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let dice = |sides: u64, shift: u32| (random >> shift) % sides;
                    let (content, repository) = (1 + dice(19, 20), name(&format!("a/{}", dice(3, 30))));
                    let lock = &contents[usize::try_from(content).unwrap()];
                    if dice(3, 40) == 0 {
                        let _lock = lock.write().unwrap();
                        remove(ledger, names, &repository, content);
                    } else {
                        let _lock = lock.read().unwrap();
                        let Ok(mut entry) = ledger.push(names, &repository) else { continue };
                        if entry.take_in(&digest(content), content).is_ok() && dice(4, 45) > 0 {
                            names.held().insert((repository, content));
                            entry.keep();
                        }
                    }
                    assert!(names.bytes(whole) <= QUOTA);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..100 {
                ledger.forget();
                usage(&ledger, &names);
                is_over.fetch_or(names.bytes(&whole) > QUOTA, Ordering::SeqCst);
            }
        });
    });
    assert!(!is_over.load(Ordering::SeqCst));
    assert_eq!(usage(&ledger, &names)["a/*"], names.bytes(&whole));
    ledger.govern(Arc::clone(&policies[1]));
    let counted = usage(&ledger, &names);
    ledger.forget();
    assert_eq!(usage(&ledger, &names), counted);
}
