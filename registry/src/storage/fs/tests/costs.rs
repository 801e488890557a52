//! Not a test but figures: what things cost in a repository of 100,000 manifests. For people:
//! `cargo test -p registry --lib costs -- --ignored --nocapture`, with `TMPDIR` on the disk that is meant.

use std::time::{Duration, Instant};

use super::*;

const MANIFESTS: u32 = 100_000;

fn put(store: &Store, n: u32) -> Digest {
    let (manifest, mut bytes) = image("layer");
    bytes.extend(format!("{:1$}", "", n as usize % 1000).bytes());
    bytes.extend(format!("\n{}", "\n".repeat(n as usize / 1000)).bytes());
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let tag = format!("t{n:06}").parse().unwrap();
    store.put_manifest(&repository(), manifest, &digest, &bytes, &[tag], None).unwrap();
    digest
}

/// The median of some runs.
fn measure(mut work: impl FnMut(u32)) -> Duration {
    let mut times: Vec<_> = (0..101)
        .map(|n| {
            let start = Instant::now();
            work(n);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[expect(clippy::print_stdout, reason = "figures are what it is for")]
fn figures(store: &Store, from: u32) {
    let put_cost = measure(|n| {
        put(store, from + n);
    });
    let page = measure(|_| {
        store.tags(&repository(), Some("t050000"), 1000).unwrap();
    });
    let refused = measure(|_| {
        assert!(matches!(store.delete_blob(&repository(), &digest("layer")).unwrap(), Deleted::Needed(_)));
    });
    let mut n = from;
    let delete = measure(|_| {
        let (_, mut bytes) = image("layer");
        bytes.extend(format!("{:1$}", "", n as usize % 1000).bytes());
        bytes.extend(format!("\n{}", "\n".repeat(n as usize / 1000)).bytes());
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        assert_eq!(store.delete_manifest(&repository(), &digest, None).unwrap(), Deleted::Done);
        n += 1;
    });
    let mount = measure(|_| {
        store.find_blob(&digest("layer"), |_| true).unwrap();
    });
    let start = Instant::now();
    super::collecting::collect(store, false, Duration::from_secs(24 * 3600));
    let collection = start.elapsed();
    println!(
        "{from} manifests: PUT {put_cost:?}, page of 1000 tags {page:?}, DELETE of a needed blob {refused:?}, DELETE of a \
         manifest {delete:?}, mount without `from` {mount:?}, collection {collection:?}"
    );
}

/// The 99th percentile of a thousand pushes.
fn p99(store: &Store, from: u32) -> Duration {
    let mut times: Vec<_> = (from..from + 1000)
        .map(|n| {
            let start = Instant::now();
            put(store, n);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// The same while collection runs over everything, at the pace that it has in a server.
fn p99_beside_collection(store: &Store, from: u32) -> Duration {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stretch = Instant::now();
            let mut go_on = || {
                if stretch.elapsed() > Duration::from_millis(5) {
                    std::thread::sleep(stretch.elapsed());
                    stretch = Instant::now();
                }
                !done.load(std::sync::atomic::Ordering::Relaxed)
            };
            let how = Collecting { dry_run: false, grace: Duration::from_secs(24 * 3600) };
            store.collect(how, &mut |_| {}, &mut go_on).unwrap();
        });
        let p99 = p99(store, from);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        p99
    })
}

#[test]
#[ignore = "figures for people, minutes long"]
#[expect(clippy::print_stdout, reason = "figures are what it is for")]
fn costs_stay_flat() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    push(&store, "{}");
    push(&store, "layer");
    put(&store, MANIFESTS + 1000);
    figures(&store, 0);
    for n in 0..MANIFESTS {
        put(&store, n);
    }
    figures(&store, MANIFESTS);
    let (alone, beside) = (p99(&store, MANIFESTS + 2000), p99_beside_collection(&store, MANIFESTS + 3000));
    println!("p99 of PUT {alone:?} alone, {beside:?} beside a collection");
    drop(store);
    let start = Instant::now();
    let store = Store::open(root.path()).unwrap();
    println!("start {:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(super::checking::check(&store, false), []);
    println!("check {:?}", start.elapsed());
}
