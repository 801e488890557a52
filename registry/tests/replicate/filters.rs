//! What is copied of what there is, and under which names.

use oci::manifest::{IMAGE, INDEX};
use serde_json::{Value, json};

use crate::{
    image::sha256,
    world::{World, replicate, run, tags},
};

async fn images(world: &World, all: &[(&str, &str)]) {
    for (seed, (repository, tag)) in (1..).zip(all) {
        world.source.client().push_noise(repository, Some(tag), seed, None).await;
    }
}

#[tokio::test]
async fn repositories_tags_and_versions() {
    let world = World::new().await;
    let all = [
        ("team/app", "1.2.0"),
        ("team/app", "v1.9"),
        ("team/app", "2.0.0"),
        ("team/app", "latest"),
        ("team/app", "latest-rc"),
        ("team/deep/app", "latest"),
        ("other", "latest"),
    ];
    images(&world, &all).await;
    let arguments =
        ["--repository", "team/*", "--tag", "latest*", "--exclude-tag", "*-rc", "--semver", ">=1.2, <2"];
    let ran = world.run(&arguments).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    let target = world.target.client();
    assert_eq!(tags(&target, "team/app").await, ["1.2.0", "latest", "v1.9"]);
    assert!(tags(&target, "team/deep/app").await.is_empty() && tags(&target, "other").await.is_empty());
}

#[tokio::test]
async fn names_at_the_target() {
    let world = World::new().await;
    images(&world, &[("a/b/app", "v1"), ("lone", "v1")]).await;
    assert_eq!(world.run(&["--prefix", "mirror/x", "--flatten", "2"]).await.code, 0);
    let target = world.target.client();
    assert_eq!(tags(&target, "mirror/x/app").await, ["v1"]);
    assert_eq!(tags(&target, "mirror/x/lone").await, ["v1"]);
    // The path of a URL stands before repositories too.
    let mut command = replicate();
    command.args([format!("{}/a", world.from.url()), format!("{}/below", world.to.url())]);
    assert_eq!(run(command).await.code, 0);
    assert_eq!(tags(&target, "below/b/app").await, ["v1"]);
    assert!(tags(&target, "below/lone").await.is_empty());
}

#[tokio::test]
async fn conflicts() {
    let world = World::new().await;
    images(&world, &[("a", "v1")]).await;
    let client = world.target.client();
    client.push_noise("a", Some("v1"), 77, None).await;
    let theirs = client.digest_of("a", "v1").await;
    let kept = world.run(&["--conflicts", "keep"]).await;
    assert_eq!((kept.code, kept.progress.skipped), (0, 1));
    assert_eq!(client.digest_of("a", "v1").await, theirs);
    let failed = world.run(&["--conflicts", "fail"]).await;
    assert_eq!(failed.code, 1);
    assert!(failed.failure().1.contains("elsewhere"));
    assert_eq!(client.digest_of("a", "v1").await, theirs);
    world.copy().await;
    world.is_equal(&["a"]).await;
}

/// An index for two platforms; the digest of the second one's manifest.
async fn two_platforms(world: &World) -> String {
    let client = world.source.client();
    let mut children = Vec::new();
    for (seed, architecture) in [(1, "amd64"), (2, "arm64")] {
        let mut child = client.push_noise("a", None, seed, None).await;
        child["platform"] = json!({"os": "linux", "architecture": architecture});
        children.push(child);
    }
    client.push_index("a", Some("v1"), INDEX, &children).await;
    children[1]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn platforms_where_the_target_takes_them() {
    let world = World::with(|command| {
        command.args(["--allow-sparse", "copied-indexes"]);
    })
    .await;
    world.to.is_honest();
    let other = two_platforms(&world).await;
    let ran = world.run(&["--platform", "linux/amd64"]).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    let target = world.target.client();
    let path = "/v2/a/manifests/v1";
    assert_eq!(
        target.get(path).await.body,
        world.source.client().get(path).await.body,
        "the index stays as it is"
    );
    target.head(&format!("/v2/a/manifests/{other}")).await.expect(http::StatusCode::NOT_FOUND);
    // The same from somebody who has no copy of it.
    let index: Value = target.get(path).await.json();
    target.put_manifest("a", "v2", &index).await.expect(http::StatusCode::CREATED);
    let refused = target.put_manifest("b", "v1", &index).await;
    refused.expect_error(http::StatusCode::NOT_FOUND, oci::ErrorCode::ManifestBlobUnknown);
    // Another platform later.
    let ran = world.run(&["--platform", "linux/arm64"]).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    target.head(&format!("/v2/a/manifests/{other}")).await.expect(http::StatusCode::OK);
    world.to.take();
    assert_eq!(world.run(&["--platform", "linux/arm64"]).await.code, 0);
    assert!(world.to.take().iter().all(|asked| asked.method != "PUT"), "nothing is pushed twice");
}

#[tokio::test]
async fn platforms_where_it_does_not() {
    let world = World::new().await;
    two_platforms(&world).await;
    let ran = world.run(&["--platform", "linux/amd64"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.failure().1.contains("--allow-sparse copied-indexes"), "{ran:#?}");
    let ran = world.run(&["--platform", "plan9/mips"]).await;
    assert!(ran.failure().1.contains("no manifest for any of the chosen platforms"), "{ran:#?}");
}

#[tokio::test]
async fn referrers_and_signatures_may_stay() {
    let world = World::new().await;
    let client = world.source.client();
    let subject = client.push_noise("a", Some("v1"), 1, None).await;
    client.push_noise("a", None, 2, Some(&subject)).await;
    let digest: oci::Digest = subject["digest"].as_str().unwrap().parse().unwrap();
    client.push_noise("a", Some(&format!("{}.sig", digest.fallback_tag())), 3, None).await;
    assert_eq!(world.run(&["--without-referrers"]).await.code, 0);
    let target = world.target.client();
    assert_eq!(tags(&target, "a").await, ["v1"]);
    let list: Value = target.get(&format!("/v2/a/referrers/{digest}")).await.json();
    assert_eq!(list["manifests"], json!([]));
    assert_eq!(world.run(&["--tag", "v*"]).await.code, 0);
    world.is_equal(&["a"]).await;
}

#[tokio::test]
async fn wrong_plans_end_before_anything_is_asked() {
    let world = World::new().await;
    let refused = world.run(&["--platform", "amd64"]).await;
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(refused.progress.problem.unwrap().message.contains("platform"));
    assert!(world.from.asked().is_empty());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.json");
    let plan = json!({
        "source": {"url": world.from.url()}, "target": {"url": world.to.url()},
        "filters": {"repositories": ["a"], "tags": ["v1"]},
    });
    std::fs::write(&file, plan.to_string()).unwrap();
    images(&world, &[("a", "v1"), ("a", "v2")]).await;
    let mut command = replicate();
    command.arg("--plan").arg(&file);
    assert_eq!(run(command).await.code, 0);
    assert_eq!(tags(&world.target.client(), "a").await, ["v1"]);
    std::fs::write(&file, r#"{"source": {}}"#).unwrap();
    let mut command = replicate();
    command.arg("--plan").arg(&file);
    assert_eq!(run(command).await.code, 2);
}

#[tokio::test]
async fn a_source_that_lists_no_repositories() {
    use crate::proxy::Fault;
    let world = World::new().await;
    images(&world, &[("a", "v1"), ("b", "v1")]).await;
    let refused = Fault::status(http::StatusCode::NOT_FOUND);
    world.from.fail(usize::MAX, refused, |asked| asked.kind() == "GET catalog");
    let ran = world.run(&[]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.progress.problem.unwrap().message.contains("name those to copy"));
    assert_eq!(world.run(&["--repository", "a"]).await.code, 0);
    assert_eq!(tags(&world.target.client(), "a").await, ["v1"]);
    assert!(tags(&world.target.client(), "b").await.is_empty());
    // Its type is what the document says, where the registry says nothing of use.
    let answer = world.target.client().get("/v2/a/manifests/v1").await;
    assert_eq!(answer.header("content-type"), IMAGE);
    assert_eq!(world.target.client().digest_of("a", "v1").await, Some(sha256(&answer.body)));
}
