//! Deletions that go along, and what they leave: what others named at the target, and what arrived from elsewhere.

use std::process::Stdio;

use http::StatusCode;
use rstest::rstest;
use serde_json::Value;

use crate::{
    client::Client,
    image::{descriptor, image, noise, sha256},
    world::{World, tags},
};

/// The manifest that [`Client::push_noise`] pushes.
fn manifest(seed: u64) -> Value {
    let config = format!("{{\"seed\":{seed}}}");
    image(config.as_bytes(), &[&noise(seed, 300_000), &noise(seed + 1_000_000, 20_000)])
}

async fn delete_by_digest(client: &Client, seed: u64) {
    let digest = sha256(manifest(seed).to_string().as_bytes());
    client.delete(&format!("/v2/a/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
}

async fn tag(client: &Client, tag: &str, seed: u64) {
    client.put_manifest("a", tag, &manifest(seed)).await.expect(StatusCode::CREATED);
}

/// What the filters leave out at the source, and what only the target has, names the same image.
#[tokio::test]
async fn a_deleted_manifest_stays_where_the_target_has_other_tags_for_it() {
    let world = World::of_berths().await;
    let (source, target) = (world.source.client(), world.target.client());
    for seed in [1, 2] {
        source.push_noise("a", Some(&format!("v{seed}")), seed, None).await;
        tag(&source, &format!("left-out-{seed}"), seed).await;
    }
    assert_eq!(world.run(&["--tag", "v*"]).await.code, 0);
    tag(&target, "own", 1).await;
    tag(&target, "left-out-2", 2).await;
    delete_by_digest(&source, 1).await;
    let arguments = ["--tag", "v*", "--propagate-deletions", "--follow-seconds", "2"];
    let ran = world.run(&arguments).await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 1), "{ran:#?}");
    assert_eq!(tags(&target, "a").await, ["left-out-2", "own", "v2"]);

    // The same where the feed tells of it.
    world.from.take();
    let child = world.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
    world.from.is_followed().await;
    delete_by_digest(&source, 2).await;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success());
    assert_eq!(tags(&target, "a").await, ["left-out-2", "own"]);

    // Once nothing names it any more it goes, also where the source has nothing left in the repository.
    target.delete("/v2/a/manifests/own").await.expect(StatusCode::ACCEPTED);
    let ran = world.run(&arguments).await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 1), "{ran:#?}");
    let digest = sha256(manifest(1).to_string().as_bytes());
    target.get(&format!("/v2/a/manifests/{digest}")).await.expect(StatusCode::NOT_FOUND);
}

/// From a source that does not say what was deleted.
#[tokio::test]
async fn repositories_that_arrive_under_one_name_lack_nothing_of_each_other() {
    let world = World::new().await;
    world.to.is_honest();
    let (source, target) = (world.source.client(), world.target.client());
    for (repository, tag, seed) in
        [("a/app", "v1", 1), ("a/app", "v2", 2), ("b/app", "v3", 3), ("b/app", "v4", 4)]
    {
        source.push_noise(repository, Some(tag), seed, None).await;
    }
    let arguments = ["--flatten", "1", "--propagate-deletions"];
    for copied in [4, 0] {
        let ran = world.run(&arguments).await;
        assert_eq!((ran.code, ran.progress.done, ran.progress.deleted), (0, copied, 0), "{ran:#?}");
    }
    assert_eq!(tags(&target, "app").await, ["v1", "v2", "v3", "v4"]);
    let ran = world.run(&["--flatten", "1", "--propagate-deletions", "--repository", "a/*"]).await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 0), "others may have been copied by others: {ran:#?}");

    source.delete("/v2/b/app/manifests/v4").await.expect(StatusCode::ACCEPTED);
    let ran = world.run(&arguments).await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 1), "{ran:#?}");

    source.push_noise("b/app", Some("v1"), 5, None).await;
    let ran = world.run(&arguments).await;
    assert_eq!((ran.code, ran.progress.deleted), (1, 0), "{ran:#?}");
    let (image, reason) = ran.failure();
    assert!(image == "b/app:v1" && reason.contains("as a/app:v1 does"), "{reason}");
    assert_eq!(target.digest_of("app", "v1").await, source.digest_of("a/app", "v1").await);
    assert_eq!(tags(&target, "app").await, ["v1", "v2", "v3"]);
}

/// What one repository lost another one has, that arrives under the same name: while the feed is followed, and where
/// repositories are compared.
#[rstest]
#[case::compared(&[])]
#[case::followed(&["--follow-seconds", "2"])]
#[tokio::test]
async fn a_deletion_takes_nothing_that_another_repository_brings(#[case] follow: &[&str]) {
    let world = World::of_berths().await;
    let (source, target) = (world.source.client(), world.target.client());
    // The same image under the same tag, others that differ, one that only one of them has, and without a tag.
    let mut signature = Value::Null;
    for (repository, tag, seed) in [("a/app", "same", 1), ("b/app", "same", 1), ("b/app", "differs", 3)] {
        source.push_noise(repository, Some(tag), seed, None).await;
    }
    source.push_noise("a/app", Some("alone"), 4, None).await;
    let subject = descriptor(oci::manifest::IMAGE, manifest(1).to_string().as_bytes());
    for repository in ["a/app", "b/app"] {
        signature = source.push_noise(repository, None, 5, Some(&subject)).await;
    }
    let arguments = ["--flatten", "1", "--propagate-deletions"];
    assert_eq!(world.run(&arguments).await.code, 0);
    source.push_noise("a/app", Some("differs"), 2, None).await;
    let ran = world.run(&arguments).await;
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert_eq!(ran.failure().0, "b/app:differs");
    let held = async |tag: &str| target.digest_of("app", tag).await;
    assert_eq!(held("differs").await, source.digest_of("a/app", "differs").await);

    world.from.take();
    let mut arguments = arguments.to_vec();
    arguments.extend(follow);
    let delete = async || {
        for tag in ["same", "differs", "alone"] {
            source.delete(&format!("/v2/a/app/manifests/{tag}")).await.expect(StatusCode::ACCEPTED);
        }
        for digest in [&signature["digest"], &subject["digest"]] {
            let digest = digest.as_str().unwrap();
            source.delete(&format!("/v2/a/app/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
        }
    };
    if follow.is_empty() {
        delete().await;
        assert_eq!(world.run(&arguments).await.code, 0);
    } else {
        let child = world.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
        world.from.is_followed().await;
        delete().await;
        tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(tags(&target, "app").await, ["differs", "same"]);
        for tag in ["same", "differs"] {
            assert_eq!(held(tag).await, source.digest_of("b/app", tag).await, "{tag}");
        }
        let list: Value =
            target.get(&format!("/v2/app/referrers/{}", subject["digest"].as_str().unwrap())).await.json();
        assert_eq!(list["manifests"][0]["digest"], signature["digest"]);
        // Also what is not copied here may have been brought by others.
        let ran = world.run(&[&arguments[..3], &["--repository", "a/*"]].concat()).await;
        assert_eq!((ran.code, ran.progress.deleted), (0, 0), "{ran:#?}");
        assert_eq!(world.run(&arguments).await.code, 0);
    }
    // The last one goes.
    source.delete("/v2/b/app/manifests/same").await.expect(StatusCode::ACCEPTED);
    let ran = world.run(&arguments).await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 1), "{ran:#?}");
    assert_eq!(tags(&target, "app").await, ["differs"]);
}

/// The source lists a repository no more of which everything was deleted.
#[tokio::test]
async fn the_last_deletion_in_a_repository_takes_nothing_of_others_either() {
    let world = World::of_berths().await;
    let (source, target) = (world.source.client(), world.target.client());
    for repository in ["a/app", "b/app"] {
        source.push_noise(repository, Some("v1"), 1, None).await;
    }
    let arguments = ["--flatten", "1", "--propagate-deletions", "--follow-seconds", "2"];
    let child = world.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
    world.from.is_followed().await;
    let digest = sha256(manifest(1).to_string().as_bytes());
    source.delete(&format!("/v2/a/app/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success());
    assert_eq!(tags(&target, "app").await, ["v1"]);
    assert!(world.from.asked().iter().any(|asked| asked.path == "/v2/b/app/manifests/v1"));
}

/// The source lists it no more, and the target's names don't tell where something came from.
#[tokio::test]
async fn a_repository_of_which_everything_was_deleted_is_compared_too() {
    let world = World::of_berths().await;
    let (source, target) = (world.source.client(), world.target.client());
    for (repository, seed) in [("a/app", 1), ("b/app", 2), ("c/never", 3)] {
        source.push_noise(repository, Some(&format!("v{seed}")), seed, None).await;
    }
    let arguments = ["--flatten", "1", "--propagate-deletions"];
    assert_eq!(world.run(&[&arguments[..], &["--repository", "*/app"]].concat()).await.code, 0);
    for (repository, seed) in [("a/app", 1), ("c/never", 3)] {
        let digest = sha256(manifest(seed).to_string().as_bytes());
        source.delete(&format!("/v2/{repository}/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
    }
    world.from.take();
    let ran = world.run(&arguments).await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 2), "a tag and its image: {ran:#?}");
    assert_eq!(tags(&target, "app").await, ["v2"]);
    let asked = world.from.take();
    assert!(!asked.iter().any(|asked| asked.path.contains("never")), "nothing of it was copied: {asked:#?}");
}
