//! Not a test but figures: what things cost where there is little, and where there is much. For people, and for
//! `make bench`: `cargo test --release -p registry --lib costs -- --ignored --nocapture`, with `TMPDIR` on the disk that is
//! meant.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::*;

const MANIFESTS: u32 = 100_000;
/// Repositories, referrers and holders.
const MANY: u32 = 10_000;
/// What fills roots: pushes share the journal's syncs.
const FILLERS: usize = 16;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// An image of its own for each number.
fn numbered(n: u32) -> (Manifest, Digest, Vec<u8>) {
    let (manifest, mut bytes) = image("layer");
    bytes.extend(format!("{:1$}", "", n as usize % 1000).bytes());
    bytes.extend(format!("\n{}", "\n".repeat(n as usize / 1000)).bytes());
    (manifest, Digest::of(Algorithm::Sha256, &bytes), bytes)
}

fn put(store: &Store, n: u32) {
    let (manifest, digest, bytes) = numbered(n);
    let tag = format!("t{n:06}").parse().unwrap();
    store.put_manifest(&repository(), manifest, &digest, &bytes, &[tag], None).unwrap();
}

/// Does something for each number, some at a time.
fn for_each(numbers: std::ops::Range<u32>, work: impl Fn(u32) + Sync) {
    let next = AtomicU32::new(numbers.start);
    std::thread::scope(|scope| {
        for _ in 0..FILLERS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= numbers.end {
                        break;
                    }
                    work(n);
                }
            });
        }
    });
}

fn times(runs: u32, mut work: impl FnMut(u32)) -> Vec<Duration> {
    let mut times: Vec<_> = (0..runs)
        .map(|n| {
            let start = Instant::now();
            work(n);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

/// The median of some runs.
fn measure(work: impl FnMut(u32)) -> Duration {
    times(101, work)[50]
}

/// The 99th percentile of a thousand pushes.
fn p99(store: &Store, from: u32) -> Duration {
    times(1000, |n| put(store, from + n))[990]
}

/// A line of the table for each thing, in milliseconds.
struct Table(Vec<(&'static str, Vec<Duration>)>);

impl Table {
    fn add(&mut self, what: &'static str, cost: Duration) {
        match self.0.iter_mut().find(|(known, _)| *known == what) {
            Some((_, costs)) => costs.push(cost),
            None => self.0.push((what, vec![cost])),
        }
    }

    #[expect(clippy::print_stdout, reason = "figures are what it is for")]
    fn print(&self, columns: &str) {
        println!("\n{columns:>54} ms");
        for (what, costs) in &self.0 {
            let costs = costs.iter().map(|cost| format!("{:>12.3}", cost.as_secs_f64() * 1000.0));
            println!("{what:<32}{}", costs.collect::<String>());
        }
    }
}

fn of_manifests(store: &Store, from: u32, table: &mut Table) {
    table.add("PUT of a manifest", measure(|n| put(store, from + n)));
    table.add(
        "page of 1000 tags",
        measure(|_| drop(store.tags(&repository(), Some("t050000"), 1000).unwrap())),
    );
    table.add(
        "DELETE of a blob that is needed",
        measure(|_| {
            let deleted = store.delete_blob(&repository(), &digest("layer")).unwrap();
            assert!(matches!(deleted, Deleted::Needed(_)));
        }),
    );
    table.add(
        "DELETE of a manifest",
        measure(|n| {
            let deleted = store.delete_manifest(&repository(), &numbered(from + n).1, None).unwrap();
            assert_eq!(deleted, Deleted::Done);
        }),
    );
    let start = Instant::now();
    super::collecting::collect(store, false, DAY);
    table.add("collection", start.elapsed());
}

/// The p99 of pushes while collection runs over everything, at the pace that it has in a server.
fn p99_beside_collection(store: &Store, from: u32) -> Duration {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stretch = Instant::now();
            let mut go_on = || {
                if stretch.elapsed() > Duration::from_millis(5) {
                    std::thread::sleep(stretch.elapsed());
                    stretch = Instant::now();
                }
                !done.load(Ordering::Relaxed)
            };
            let how = Collecting { dry_run: false, grace: DAY };
            store.collect(how, &mut |_| {}, &mut go_on).unwrap();
        });
        let p99 = p99(store, from);
        done.store(true, Ordering::Relaxed);
        p99
    })
}

#[test]
#[ignore = "figures for people, minutes long"]
fn costs_of_many_manifests() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    push(&store, "{}");
    push(&store, "layer");
    put(&store, MANIFESTS + 1000);
    let mut table = Table(Vec::new());
    of_manifests(&store, 0, &mut table);
    for_each(0..MANIFESTS, |n| put(&store, n));
    of_manifests(&store, MANIFESTS, &mut table);
    let (alone, beside) = (p99(&store, MANIFESTS + 2000), p99_beside_collection(&store, MANIFESTS + 3000));
    drop(store);
    let start = Instant::now();
    let store = Store::open(root.path()).unwrap();
    let started = start.elapsed();
    let start = Instant::now();
    assert_eq!(super::checking::check(&store, false), []);
    let checked = start.elapsed();
    table.print("few     100,000 manifests");
    let more = [
        ("p99 of PUT", alone),
        ("p99 of PUT beside a collection", beside),
        ("start", started),
        ("check", checked),
    ];
    Table(more.map(|(what, cost)| (what, vec![cost])).into()).print("100,000 manifests");
}

/// A repository of its own for each number.
fn named(n: u32) -> RepoName {
    format!("app-{n:05}").parse().unwrap()
}

/// An artifact of its own for each number that refers to something.
fn refer(store: &Store, n: u32) {
    let subject = digest("subject");
    let json = format!(
        r#"{{"schemaVersion":2,"manifests":[],"artifactType":"a/b","annotations":{{"number":"{n}"}},
            "subject":{{"mediaType":"a/b","digest":"{subject}","size":7}}}}"#
    );
    let manifest = Manifest::parse(Some(manifest::INDEX), json.as_bytes()).unwrap();
    let digest = Digest::of(Algorithm::Sha256, json.as_bytes());
    store.put_manifest(&repository(), manifest, &digest, json.as_bytes(), &[], None).unwrap();
}

fn fill(store: &Store, numbers: std::ops::Range<u32>) {
    for_each(numbers, |n| {
        for content in ["{}", "layer"] {
            assert!(store.mount_blob(&repository(), &named(n), &digest(content)).unwrap());
        }
        let (manifest, digest, bytes) = numbered(n % 10);
        store.put_manifest(&named(n), manifest, &digest, &bytes, &["v1".parse().unwrap()], None).unwrap();
        refer(store, n);
    });
}

/// The list of who may see five of all.
fn of_few(store: &Store, all: u32, table: &mut Table) {
    let few: std::collections::BTreeSet<_> = (0..5).map(|n| named(n * (all / 5)).to_string()).collect();
    let next = |from: &str| {
        few.range::<str, _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded)).next().cloned()
    };
    table.add("catalog of who may see five", {
        measure(|_| assert_eq!(store.repositories(Holding::Manifests, None, 100, next).unwrap().0.len(), 5))
    });
    // What is below each of them could be seen.
    let next = |from: &str| {
        let is_shut = from.starts_with("app-") && !from.contains(['/', '\0']) && !few.contains(from);
        Some(if is_shut { format!("{from}\0") } else { from.to_owned() })
    };
    table.add("where all but five are shut alone", {
        measure(|_| assert!(store.repositories(Holding::Manifests, None, 100, next).unwrap().0.len() >= 5))
    });
    table.add("catalog of who may see nothing", {
        measure(|_| drop(store.repositories(Holding::Manifests, None, 100, |_| None).unwrap()))
    });
}

fn of_lists(store: &Store, all: u32, table: &mut Table) {
    let middle = named(all / 2);
    let middle = middle.as_str();
    for (what, last, n) in [
        ("catalog, first page of 100", None, 100),
        ("catalog, page of 100", Some(middle), 100),
        ("catalog, page of 1000", Some(middle), 1000),
    ] {
        table.add(
            what,
            measure(|_| drop(store.repositories(Holding::Manifests, last, n, everything).unwrap())),
        );
    }
    of_few(store, all, table);
    table.add("count of repositories, the first", {
        measure(|_| {
            store.filled.forget();
            store.count_repositories().unwrap();
        })
    });
    table.add("count after a change", {
        measure(|_| {
            store.delete_manifest(&named(0), &numbered(0).1, None).unwrap();
            let (manifest, digest, bytes) = numbered(0);
            store.put_manifest(&named(0), manifest, &digest, &bytes, &[], None).unwrap();
            store.count_repositories().unwrap();
        })
    });
    for (what, kind, last, weight) in [
        ("referrers, first page", None, None, 1 << 20),
        ("referrers, a page", None, Some(digest("middle")), 1 << 20),
        ("referrers, of another type", Some("c/d"), None, 1 << 20),
        ("referrers, page of 10", None, Some(digest("middle")), 230),
    ] {
        table.add(what, {
            measure(|_| {
                drop(
                    store
                        .referrers(&repository(), &digest("subject"), kind, last.as_ref(), (1000, weight))
                        .unwrap(),
                );
            })
        });
    }
    table
        .add("mount without `from`", measure(|_| drop(store.find_blob(&digest("layer"), |_| true).unwrap())));
    table.add(
        "the same by who may read nothing",
        measure(|_| drop(store.find_blob(&digest("layer"), |_| false).unwrap())),
    );
}

#[test]
#[ignore = "figures for people"]
fn costs_of_many_repositories_and_referrers() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    push(&store, "{}");
    push(&store, "layer");
    let mut table = Table(Vec::new());
    fill(&store, 0..10);
    of_lists(&store, 10, &mut table);
    fill(&store, 10..MANY);
    of_lists(&store, MANY, &mut table);
    table.print("10      10,000 of each");
}

/// A server that was killed just before its journal was begun anew.
#[test]
#[ignore = "figures for people"]
fn cost_of_a_start_with_a_full_journal() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    push(&store, "{}");
    push(&store, "layer");
    store.durable.journal.checkpoint().unwrap();
    let mut changes = 0;
    store.durable.journal.fill(|| {
        for_each(changes..changes + 100, |n| put(&store, n));
        changes += 100;
    });
    let killed = tempfile::tempdir().unwrap();
    copy_folder(root.path(), killed.path());
    let mut table = Table(Vec::new());
    for _ in 0..2 {
        let start = Instant::now();
        let store = Store::open(killed.path()).unwrap();
        table.add("start", start.elapsed());
        drop(store);
    }
    table.print(&format!("{changes} changes      none to do again"));
}
