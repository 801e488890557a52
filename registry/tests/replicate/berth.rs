//! Between Berth registries: states in place of tags, stamps that are kept, deletions, and the feed. What the ends say
//! of that is canned here; the images are real.

use std::{
    process::Stdio,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::FutureExt as _;
use http::StatusCode;
use oci::{Digest, manifest::INDEX};
use serde_json::{Value, json};

use crate::{
    image::sha256,
    proxy::{Asked, Proxy},
    world::{Ran, World},
};

const THEIRS: &str = "11111111-1111-1111-1111-111111111111";
const OURS: &str = "22222222-2222-2222-2222-222222222222";

fn at(second: u32) -> String {
    format!("2026-01-01T00:00:{second:02}.000000Z")
}

fn held(name: &str, digest: &Digest, second: u32) -> Value {
    json!({"name": name, "digest": digest, "stamp": {"time": at(second), "origin": THEIRS}})
}

fn gone(name: &str, digest: &Digest, second: u32) -> Value {
    let mut held = held(name, digest, second);
    held["deleted"] = json!(true);
    held
}

fn state(proxy: &Proxy, entries: &[Value]) {
    let json = json!({"entries": entries}).to_string();
    proxy.answer("/v2/a/_berth/replication/state", &[(StatusCode::OK, json)]);
}

fn page(cursor: &str, entries: &[Value]) -> (StatusCode, String) {
    (StatusCode::OK, json!({"cursor": cursor, "entries": entries}).to_string())
}

fn feed(proxy: &Proxy, answers: &[(StatusCode, String)]) {
    proxy.answer("/v2/_berth/replication/feed", answers);
}

/// Two that say that they are Berth's; the digests of v1 and v2 at the source.
async fn berths() -> (World, Digest, Digest) {
    let world = World::new().await;
    world.from.say("berth-registry", THEIRS);
    world.to.say("berth-registry", OURS);
    let client = world.source.client();
    client.push_noise("a", Some("v1"), 1, None).await;
    client.push_noise("a", Some("v2"), 2, None).await;
    state(&world.to, &[]);
    let [first, second] = ["v1", "v2"].map(|tag| (client.clone(), tag));
    let (first, second) = (first.0.digest_of("a", first.1).await, second.0.digest_of("a", second.1).await);
    (world, first.unwrap(), second.unwrap())
}

fn origins(asked: &[Asked]) -> Vec<(String, String)> {
    let kept = asked.iter().filter_map(|asked| {
        let origin = asked.headers.get("berth-origin")?.to_str().unwrap().to_owned();
        Some((format!("{} {}", asked.method, asked.path.rsplit('/').next().unwrap()), origin))
    });
    kept.collect()
}

#[tokio::test]
async fn states_are_compared_and_stamps_are_kept() {
    let (world, first, second) = berths().await;
    state(&world.from, &[held("v1", &first, 1), held("v2", &second, 2)]);
    let ran = world.copy().await;
    assert_eq!(ran.progress.done, 2);
    let stamp = |second| format!("{THEIRS}; time={}", at(second));
    let mut kept = origins(&world.to.take());
    kept.sort();
    assert_eq!(kept, [("PUT v1".to_owned(), stamp(1)), ("PUT v2".to_owned(), stamp(2))]);
    assert!(ran.progress.lag_milliseconds.is_some() && ran.progress.behind_since.is_none());
    world.from.take();

    state(&world.to, &[held("v1", &first, 1), held("v2", &second, 2)]);
    let again = world.run(&["--without-referrers"]).await;
    assert_eq!((again.code, again.progress.skipped), (0, 2));
    let asked = [world.from.take(), world.to.take()].concat();
    assert!(asked.iter().all(|asked| asked.kind() != "HEAD manifest"), "nothing is asked of single tags");
    assert_eq!(asked.len(), 5, "two that ask who it is, a catalog, two states: {asked:#?}");
}

/// Their own words on what refers to unchanged images, to manifests within these, and to signatures.
#[tokio::test]
async fn what_is_attached_to_unchanged_images_is_compared_by_states() {
    let world = World::new().await;
    world.from.say("berth-registry", THEIRS);
    world.to.say("berth-registry", OURS);
    let client = world.source.client();
    let child = client.push_noise("a", None, 1, None).await;
    client.push_index("a", Some("v1"), INDEX, std::slice::from_ref(&child)).await;
    client.push_noise("a", Some("v2"), 2, None).await;
    let signature = client.push_noise("a", None, 3, Some(&child)).await;
    world.copy().await;
    world.is_equal(&["a"]).await;
    drop((world.from.take(), world.to.take()));

    let again = world.copy().await;
    assert_eq!((again.code, again.progress.skipped), (0, 2));
    let asked = [world.from.take(), world.to.take()].concat();
    assert_eq!(asked.len(), 5, "two that ask who it is, a catalog, two states: {asked:#?}");

    let later = client.push_noise("a", None, 4, Some(&signature)).await;
    assert_eq!(world.copy().await.code, 0);
    world.is_equal(&["a"]).await;
    let path = format!("/v2/a/manifests/{}", later["digest"].as_str().unwrap());
    world.target.client().get(&path).await.expect(StatusCode::OK);
}

/// Threads cost more than to compare an unchanged repository; copying has some.
#[tokio::test]
async fn who_only_compares_has_one_thread() {
    let world = World::of_berths().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    for expected in ["HEAD blob", "GET state"] {
        let (pid, most) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
        let (known, seen) = (Arc::clone(&pid), Arc::clone(&most));
        world.to.hook(move |asked| {
            let (known, seen, looks) = (Arc::clone(&known), Arc::clone(&seen), asked.kind() == expected);
            async move {
                while looks && known.get().is_none() {
                    tokio::task::yield_now().await;
                }
                if let Some(pid) = known.get().filter(|_| looks) {
                    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
                    seen.fetch_max(threads, Ordering::SeqCst);
                }
            }
            .boxed()
        });
        let child = world.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        pid.set(child.id()).unwrap();
        let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
        assert_eq!(crate::world::understand(&output).code, 0);
        let most = most.load(Ordering::SeqCst);
        let several = std::thread::available_parallelism().unwrap().get() > 1 && expected == "HEAD blob";
        assert_eq!(most > 1, several, "{most} threads");
    }
}

/// A source of a version that knows nothing of `attached` says nothing by not saying it.
#[tokio::test]
async fn who_does_not_tell_what_is_attached_is_asked() {
    let (world, first, _) = berths().await;
    let subject = json!({"mediaType": oci::manifest::IMAGE, "digest": first, "size": 1});
    state(&world.from, &[held("v1", &first, 1)]);
    world.copy().await;
    let signature = world.source.client().push_noise("a", None, 5, Some(&subject)).await;
    state(&world.to, &[held("v1", &first, 1)]);
    world.copy().await;
    let path = format!("/v2/a/manifests/{}", signature["digest"].as_str().unwrap());
    world.target.client().get(&path).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn what_is_later_at_the_target_stays() {
    let (world, first, second) = berths().await;
    state(&world.from, &[held("v1", &first, 1), held("v2", &second, 5)]);
    state(&world.to, &[held("v1", &second, 3), gone("v2", &second, 6)]);
    let ran = world.copy().await;
    assert_eq!((ran.progress.done, ran.progress.skipped), (0, 2));
    assert_eq!(world.target.client().digest_of("a", "v1").await, None);
}

#[tokio::test]
async fn deletions_go_along_where_they_are_later() {
    let (world, first, second) = berths().await;
    state(&world.from, &[held("v1", &first, 1), held("v2", &second, 2)]);
    world.copy().await;
    let deleted = [gone("v1", &first, 5), gone("v2", &second, 1)];
    state(&world.from, &deleted);
    state(&world.to, &[held("v1", &first, 1), held("v2", &second, 2)]);
    assert_eq!(world.copy().await.progress.deleted, 0, "only where that is asked for");
    world.to.take();
    let ran = world.run(&["--propagate-deletions"]).await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 1), "{ran:#?}");
    let target = world.target.client();
    assert_eq!(target.digest_of("a", "v1").await, None);
    assert_eq!(target.digest_of("a", "v2").await, Some(second), "it was set again after the deletion");
    assert_eq!(origins(&world.to.take()), [("DELETE v1".to_owned(), format!("{THEIRS}; time={}", at(5)))]);
}

/// Images of a foreign source at a Berth target, which says where they are from. Where it is asked too early, it says what
/// was so before they were set again.
async fn from_a_foreign_source(lost: usize, asked_too_early: bool) -> (World, Ran) {
    let world = World::new().await;
    world.to.say("berth-registry", OURS);
    state(&world.to, &[]);
    let client = world.source.client();
    for n in 1..=4 {
        client.push_noise("a", Some(&format!("v{n}")), n, None).await;
    }
    world.copy().await;
    let host = world.from.address.to_string();
    assert!(
        origins(&world.to.take()).iter().all(|(_, origin)| origin.starts_with(&format!("{host}; time=20")))
    );
    let own = world.target.client();
    let there: Value = own.get("/v2/a/_berth/replication/state").await.json();
    let mut entries = Vec::new();
    for n in 1..=4 {
        let tag = format!("v{n}");
        let digest = client.digest_of("a", &tag).await.unwrap();
        let found = there["entries"].as_array().unwrap().iter().find(|entry| entry["name"] == tag).unwrap();
        let mut stamp = found["stamp"].clone();
        assert_eq!(stamp["origin"], host);
        if asked_too_early {
            stamp["time"] = json!(at(1));
        }
        entries.push(json!({"name": tag, "digest": digest, "stamp": stamp}));
        if n <= lost as u64 {
            client.delete(&format!("/v2/a/manifests/{tag}")).await.expect(StatusCode::ACCEPTED);
        }
    }
    own.push_noise("a", Some("own"), 9, None).await;
    entries.push(held("own", &own.digest_of("a", "own").await.unwrap(), 1));
    state(&world.to, &entries);
    let ran = world.run(&["--propagate-deletions"]).await;
    (world, ran)
}

#[tokio::test]
async fn what_a_foreign_source_lacks_goes() {
    let (world, ran) = from_a_foreign_source(2, false).await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 2), "{ran:#?}");
    assert_eq!(crate::world::tags(&world.target.client(), "a").await, ["own", "v3", "v4"]);
}

#[tokio::test]
async fn but_not_what_was_set_there_since() {
    let (world, ran) = from_a_foreign_source(2, true).await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 0), "{ran:#?}");
    assert_eq!(crate::world::tags(&world.target.client(), "a").await, ["own", "v1", "v2", "v3", "v4"]);
}

#[tokio::test]
async fn but_not_over_half_of_it() {
    let (world, ran) = from_a_foreign_source(3, false).await;
    assert_eq!((ran.code, ran.progress.deleted), (5, 0), "{ran:#?}");
    assert_eq!(ran.progress.problem.unwrap().reason, ::channel::replication::Reason::DeletionsStopped);
    assert_eq!(crate::world::tags(&world.target.client(), "a").await.len(), 5);
}

#[tokio::test]
async fn between_foreign_ends_nobody_knows_what_was_deleted() {
    let world = World::new().await;
    let ran = world.run(&["--propagate-deletions"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.progress.problem.unwrap().message.contains("deletions"));
}

fn entry(kind: &str, tag: &str, digest: &Digest, origin: &str) -> Value {
    let stamp = json!({"time": at(7), "origin": origin});
    json!({"kind": kind, "repository": "a", "tag": tag, "digest": digest, "stamp": stamp})
}

#[tokio::test]
async fn the_feed_is_followed_until_nothing_comes() {
    let (world, first, second) = berths().await;
    state(&world.from, &[held("v1", &first, 1)]);
    feed(
        &world.from,
        &[
            page("c1", &[]),
            page("c2", &[entry("Push", "v2", &second, THEIRS), entry("Push", "back", &first, OURS)]),
            page("c3", &[entry("Delete", "v1", &first, THEIRS)]),
            page("c3", &[]),
        ],
    );
    let ran = world.run(&["--follow-seconds", "0", "--propagate-deletions"]).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!((ran.progress.done, ran.progress.deleted), (2, 1), "{ran:#?}");
    assert_eq!(ran.progress.cursor.as_deref(), Some("c3"));
    assert!(ran.progress.equal_at.is_some());
    let target = world.target.client();
    assert_eq!(crate::world::tags(&target, "a").await, ["v2"], "what came from the target is not sent back");
    let asked = world.from.take();
    let cursors: Vec<_> = asked.iter().filter(|asked| asked.path.contains("/feed?")).collect();
    assert!(!cursors[0].path.contains("after=") && cursors[1].path.contains("after=c1"));
    assert!(cursors[3].path.contains("after=c3"));
}

#[tokio::test]
async fn a_cursor_that_is_too_old_means_comparing() {
    let (world, first, second) = berths().await;
    state(&world.from, &[held("v1", &first, 1), held("v2", &second, 2)]);
    let too_old = (StatusCode::GONE, json!({"errors": []}).to_string());
    feed(&world.from, &[too_old, page("new", &[]), page("new", &[])]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.json");
    let plan = json!({
        "source": {"url": world.from.url()}, "target": {"url": world.to.url()},
        "follow": {"cursor": "old", "idleSeconds": 0},
    });
    std::fs::write(&file, plan.to_string()).unwrap();
    let mut command = crate::world::replicate();
    command.arg("--plan").arg(&file);
    let ran = crate::world::run(command).await;
    assert_eq!((ran.code, ran.progress.done), (0, 2), "{ran:#?}");
    assert_eq!(ran.progress.cursor.as_deref(), Some("new"));
}

#[tokio::test]
async fn signatures_follow_what_they_sign() {
    let (world, first, _) = berths().await;
    state(&world.from, &[held("v1", &first, 1)]);
    let client = world.source.client();
    let subject = json!({"mediaType": oci::manifest::IMAGE, "digest": first, "size": 1});
    // Pushed while the run compares.
    let signature = client.push_noise("a", None, 5, Some(&subject)).await;
    let stamp = json!({"time": at(8), "origin": THEIRS});
    let of = |subject: &Digest| json!({"kind": "Push", "repository": "a", "digest": signature["digest"], "subject": subject, "stamp": stamp});
    feed(&world.from, &[page("c1", &[]), page("c2", &[of(&first)]), page("c2", &[])]);
    let ran = world.run(&["--follow-seconds", "0", "--tag", "v1"]).await;
    assert_eq!(ran.code, 0, "{ran:#?}");

    // One that was deleted again before anybody came for it is no failure.
    let former = json!({"kind": "Push", "repository": "a", "digest": sha256(b"gone"), "subject": first, "stamp": stamp});
    feed(&world.from, &[page("c1", &[]), page("c2", &[former]), page("c2", &[])]);
    let ran = world.run(&["--follow-seconds", "0", "--tag", "v1"]).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    world.source.client().delete("/v2/a/manifests/v2").await.expect(StatusCode::ACCEPTED);
    world.is_equal(&["a"]).await;
}
