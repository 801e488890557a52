//! The list of repositories, and how many there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::storage::walk::tests::by_rules;

/// An image of its own in a repository.
fn put(store: &Store, name: &str) -> (RepoName, Digest) {
    let repository = name.parse().unwrap();
    for content in ["{}", "layer"] {
        assert!(store.mount_blob(&super::repository(), &repository, &digest(content)).unwrap());
    }
    let (manifest, bytes) = image("layer");
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    store.put_manifest(&repository, manifest, &digest, &bytes, &[], None).unwrap();
    (repository, digest)
}

/// All pages of who may see what `next` says.
fn pages(store: &Store, n: usize, next: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let (page, more) =
            store.repositories(Holding::Manifests, all.last().map(String::as_str), n, &next).unwrap();
        assert!(page.len() == n || !more);
        all.extend(page.iter().map(ToString::to_string));
        if !more {
            return all;
        }
    }
}

#[test]
fn repositories_are_counted_when_something_changes() {
    let (_root, store) = store();
    assert_eq!(store.count_repositories().unwrap(), 0);
    push(&store, "{}");
    push(&store, "layer");
    assert_eq!(store.count_repositories().unwrap(), 0);
    let (manifest, bytes) = image("layer");
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    store.put_manifest(&repository(), manifest, &digest, &bytes, &[], None).unwrap();
    assert_eq!(store.count_repositories().unwrap(), 1);
    assert!(store.find_manifest(&repository(), &Reference::Digest(digest.clone())).unwrap().is_some());
    store.delete_manifest(&repository(), &digest, None).unwrap();
    assert_eq!(store.count_repositories().unwrap(), 0);
}

#[test]
fn pages_of_many_repositories_follow_every_change() {
    let (_root, store) = store();
    let make = |name: &str| {
        let manifests = store.layout.repository(&name.parse().unwrap()).manifests(Algorithm::Sha256);
        fs::create_dir_all(&manifests).unwrap();
        fs::write(manifests.join("manifest"), "").unwrap();
        name.to_owned()
    };
    let names =
        (0..1100).flat_map(|n| [format!("a{n}"), format!("a{n}/b"), format!("a{n}-c"), format!("a{n}/d/e")]);
    let mut all: BTreeSet<_> = names.map(|name| make(&name)).collect();
    let few = [
        ("a10/*", true),
        ("a10/d/*", false),
        ("a100-c", true),
        ("a500/*", true),
        ("a501.a/b", true),
        ("a7", true),
        ("b/*", true),
    ];
    let few: BTreeMap<_, _> = few.map(|(path, is_open)| (path.to_owned(), is_open)).into();
    let mut all_but = few.clone();
    for is_open in all_but.values_mut() {
        *is_open = !*is_open;
    }
    all_but.insert("*".to_owned(), true);
    let folder = store.layout.repositories();
    for new in ["a500/c", "a500-a", "a501.a/b"] {
        // As if nothing had come for a while.
        let past = SystemTime::now() - Duration::from_secs(1);
        File::open(&folder).unwrap().set_modified(past).unwrap();
        for n in [300, 1999] {
            assert!(pages(&store, n, everything).iter().eq(&all), "before {new}");
            assert!(store.steady.knows(&folder));
            for rules in [&few, &all_but] {
                let next = by_rules(rules);
                let wanted = all.iter().filter(|name| next(name).as_ref() == Some(*name));
                assert!(pages(&store, n, &next).iter().eq(wanted), "some before {new}");
            }
        }
        all.insert(make(new));
        assert!(pages(&store, 700, everything).iter().eq(&all), "with {new}");
    }
}

#[test]
fn repositories_that_come_and_go_hide_none_that_stay() {
    let (_root, store) = store();
    push(&store, "{}");
    push(&store, "layer");
    let stay: Vec<String> =
        (0..20).flat_map(|n| [format!("keep-{n}/a"), format!("keep-{n}/a/b"), format!("z{n}")]).collect();
    // The first one keeps what all are made of.
    put(&store, repository().as_str());
    for name in &stay {
        put(&store, name);
    }
    let rules =
        [("keep-1/*", true), ("keep-10/*", true), ("keep-3/a/*", true), ("z7", true), ("come/*", true)];
    let next = by_rules(&rules.map(|(path, is_open)| (path.to_owned(), is_open)).into());
    std::thread::scope(|scope| {
        let coming_and_going = scope.spawn(|| {
            for round in 0..100 {
                for name in ["keep-1/b", "keep-10/a-b", "keep-3/a/a", "come/and/go", "keep-2"] {
                    let (repository, digest) = put(&store, name);
                    store.delete_manifest(&repository, &digest, None).unwrap();
                    if round % 10 == 0 {
                        super::collecting::collect(&store, false, Duration::ZERO);
                    }
                }
            }
        });
        let mut rounds = 0;
        while !coming_and_going.is_finished() || rounds == 0 {
            let found = pages(&store, 1 + rounds % 3, &next);
            assert!(found.is_sorted() && found.iter().all(|name| next(name).as_ref() == Some(name)));
            let kept: Vec<_> = found.iter().filter(|name| stay.contains(name)).collect();
            assert_eq!(kept, ["keep-1/a", "keep-1/a/b", "keep-10/a", "keep-10/a/b", "keep-3/a/b", "z7"]);
            rounds += 1;
        }
    });
}

#[test]
fn they_are_counted_beside_those_that_come_and_go() {
    let (root, store) = store();
    push(&store, "{}");
    push(&store, "layer");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let store = &store;
                scope.spawn(move || {
                    let mut dice = super::racing::Dice::new(worker);
                    for _ in 0..200 {
                        // They meet in some.
                        let (repository, digest) = put(store, &format!("r{}", dice.roll(5)));
                        if dice.roll(3) > 0 {
                            store.delete_manifest(&repository, &digest, None).unwrap();
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(store.count_repositories().unwrap() <= 5);
                store.filled.forget();
            }
            store.count_repositories().unwrap();
        });
        let ended: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        for ended in ended {
            ended.unwrap();
        }
    });
    let there = store.repositories(Holding::Manifests, None, 10, everything).unwrap().0.len() as u64;
    assert_eq!(store.count_repositories().unwrap(), there);
    let killed = killed(root.path());
    assert_eq!(Store::open(killed.path()).unwrap().count_repositories().unwrap(), there);
    put(&store, "one/more");
    assert_eq!(store.count_repositories().unwrap(), there + 1);
}

#[test]
fn one_whose_last_manifest_is_put_aside_is_none_any_more() {
    let (_root, store, manifest) = super::damaged::filled();
    assert_eq!(store.count_repositories().unwrap(), 1);
    fs::remove_file(store.layout.content(&manifest)).unwrap();
    assert!(!super::checking::check(&store, false).is_empty());
    assert_eq!(store.count_repositories().unwrap(), 1);
    assert!(!super::checking::check(&store, true).is_empty());
    assert_eq!(store.count_repositories().unwrap(), 0);
}
