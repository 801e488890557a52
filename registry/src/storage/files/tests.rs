//! Deletions by digest beside readers, pushes of the same digest, tags that move and collection: as requests come, with what
//! is answered from memory.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http_body_util::BodyExt as _;
use oci::{Tag, manifest};
use tempfile::TempDir;
use tokio::{sync::Barrier, task::JoinSet};

use super::*;
use crate::storage::fs::Severity;

const READERS: usize = 6;

fn files() -> (TempDir, Files) {
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let files = Files::open(root.path(), Limits { reserve: Some(0), ..Limits::default() }).unwrap();
    (root, files)
}

fn repository() -> RepoName {
    "team/app".parse().unwrap()
}

fn subject() -> Digest {
    Digest::of(Algorithm::Sha256, b"subject")
}

/// An index without anything in it, one for each number.
fn document(number: usize) -> (Digest, Bytes) {
    let subject = format!(r#"{{"mediaType":"{}","digest":"{}","size":7}}"#, manifest::INDEX, subject());
    let json = format!(
        r#"{{"schemaVersion":2,"manifests":[],"subject":{subject},"annotations":{{"number":"{number}"}}}}"#
    );
    (Digest::of(Algorithm::Sha256, json.as_bytes()), json.into())
}

async fn put(files: &Files, number: usize, tags: &[&str]) -> Digest {
    let (digest, bytes) = document(number);
    let manifest = Manifest::parse(Some(manifest::INDEX), &bytes).unwrap();
    let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    let put = files.put_manifest(repository(), manifest, digest.clone(), bytes, tags, None).await;
    assert_eq!(put.unwrap(), Put::Stored);
    digest
}

async fn delete(files: &Files, digest: &Digest, stays: fn(&Tag) -> bool) -> Deleted {
    files
        .delete_manifest(repository(), Reference::Digest(digest.clone()), None, Arc::new(stays))
        .await
        .unwrap()
}

/// Bytes and all.
async fn read(files: &Files, reference: &str) -> Option<Digest> {
    let (manifest, blob) = files.open_manifest(repository(), reference.parse().unwrap()).await.unwrap()?;
    let bytes = blob.into_body(0, manifest.size, None).collect().await.unwrap().to_bytes();
    assert_eq!(Digest::of(Algorithm::Sha256, &bytes), manifest.digest);
    Some(manifest.digest)
}

const TAGS: [&str; 4] = ["a", "b", "c", "d"];

/// All ways to see a manifest with these tags; whether it is there.
async fn sees(files: &Files, way: usize, digest: &Digest) -> bool {
    let all_or_none = |names: Vec<String>| {
        let there = TAGS.iter().filter(|tag| names.iter().any(|name| name == *tag)).count();
        assert!(there == 0 || there == TAGS.len(), "half of it is there: {names:?}");
        there > 0
    };
    let tag = TAGS[way / 6 % TAGS.len()];
    match way % 6 {
        0 => read(files, digest.as_str()).await.is_some(),
        1 => read(files, tag).await.is_some(),
        2 => files.find_manifest(repository(), tag.parse().unwrap()).await.unwrap().is_some(),
        3 => {
            let page = files.tags(repository(), None, 100).await.unwrap();
            page.is_some_and(|page| all_or_none(page.0.clone()))
        }
        4 => {
            let page = files.state(repository(), None, 100).await.unwrap().unwrap();
            all_or_none(
                page.entries.iter().filter(|entry| !entry.deleted).map(|entry| entry.name.clone()).collect(),
            )
        }
        _ => {
            let page = files.referrers(repository(), subject(), None, None, (100, 10_000)).await.unwrap();
            page.manifests.iter().any(|descriptor| descriptor.digest == *digest)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p27_who_has_seen_a_part_of_a_deletion_sees_all_of_it() {
    let (_root, files) = files();
    for round in 0..60 {
        let digest = put(&files, round, &TAGS).await;
        let (begun, over) = (Arc::new(Barrier::new(READERS + 1)), Arc::new(AtomicBool::new(false)));
        let mut readers = JoinSet::new();
        for reader in 0..READERS {
            let (files, digest) = (files.clone(), digest.clone());
            let (begun, over) = (Arc::clone(&begun), Arc::clone(&over));
            readers.spawn(async move {
                let mut left = 12;
                for n in 0.. {
                    let is_over = over.load(Ordering::SeqCst);
                    let is_there = sees(&files, reader + n, &digest).await;
                    assert!(!is_there || !is_over, "it was gone and is there: way {}", (reader + n) % 6);
                    if !is_there {
                        over.store(true, Ordering::SeqCst);
                        left -= 1;
                    }
                    if n == 0 {
                        begun.wait().await;
                    }
                    if left == 0 {
                        break;
                    }
                }
            });
        }
        begun.wait().await;
        assert_eq!(delete(&files, &digest, |_| false).await, Deleted::Done);
        over.store(true, Ordering::SeqCst);
        readers.join_all().await;
    }
    assert_eq!(files.damaged(), 0);
}

/// Collects without any grace, and looks for damage, until it is told to end.
fn collect_and_check(files: &Files, end: &AtomicBool) {
    while !end.load(Ordering::SeqCst) {
        let how = Collecting { dry_run: false, grace: Duration::ZERO };
        files.collect(how, &mut |_| {}, &mut || true).unwrap();
        let mut damage = None;
        let mut report = |problem: Problem| {
            damage = (problem.severity == Severity::Damage).then_some(problem);
        };
        files.verify(false, &mut report, &mut || true).unwrap();
        assert_eq!(damage, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p28_a_tag_that_moves_is_there_while_what_it_left_is_deleted_and_comes_back() {
    let (_root, files) = files();
    put(&files, 0, &["moves"]).await;
    let end = Arc::new(AtomicBool::new(false));
    let mut beside = JoinSet::new();
    for _ in 0..READERS {
        let (files, end) = (files.clone(), Arc::clone(&end));
        beside.spawn(async move {
            while !end.load(Ordering::SeqCst) {
                assert!(read(&files, "moves").await.is_some(), "the tag was missing");
                assert!(files.find_manifest(repository(), "moves".parse().unwrap()).await.unwrap().is_some());
            }
        });
    }
    for deleter in 0..2 {
        let (files, end) = (files.clone(), Arc::clone(&end));
        beside.spawn(async move {
            for n in deleter.. {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                delete(&files, &document(n % 3).0, |_| true).await;
            }
        });
    }
    {
        let (files, end) = (files.clone(), Arc::clone(&end));
        beside.spawn_blocking(move || collect_and_check(&files, &end));
    }
    for n in 0..600 {
        put(&files, n % 3, &["moves"]).await;
    }
    end.store(true, Ordering::SeqCst);
    beside.join_all().await;
    assert_eq!(files.damaged(), 0, "nothing was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p27_pushes_of_what_is_being_deleted_are_whole_or_gone() {
    let (_root, files) = files();
    let end = Arc::new(AtomicBool::new(false));
    let mut beside = JoinSet::new();
    for reader in 0..READERS {
        let (files, end) = (files.clone(), Arc::clone(&end));
        beside.spawn(async move {
            for n in reader.. {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                read(&files, TAGS[n % TAGS.len()]).await;
                read(&files, document(n % 3).0.as_str()).await;
                files.tags(repository(), None, 100).await.unwrap();
            }
        });
    }
    {
        let (files, end) = (files.clone(), Arc::clone(&end));
        beside.spawn_blocking(move || collect_and_check(&files, &end));
    }
    let mut changes = JoinSet::new();
    for (client, own) in TAGS.into_iter().enumerate() {
        let files = files.clone();
        changes.spawn(async move {
            for n in 0..200 {
                // Each client has a tag that nobody else sets, so that it knows where that points to.
                let digest = put(&files, (client + n) % 3, &[own, "all"]).await;
                delete(&files, &document(n % 3).0, |_| false).await;
                let seen = read(&files, own).await;
                assert!(seen.is_none_or(|seen| seen == digest));
            }
        });
    }
    changes.join_all().await;
    end.store(true, Ordering::SeqCst);
    beside.join_all().await;
    let tags = files.tags(repository(), None, 100).await.unwrap();
    for tag in tags.iter().flat_map(|page| &page.0) {
        assert!(read(&files, tag).await.is_some(), "{tag} leads nowhere");
    }
    assert_eq!(files.damaged(), 0, "nothing was lost");
}
