//! What would go in a circle: two registries that are copied to each other under other names, and one that is copied into
//! itself.

use std::{path::Path, process::Stdio, time::Duration};

use http::StatusCode;
use serde_json::Value;

use crate::{
    client::Client,
    proxy::Proxy,
    server::Server,
    world::{World, replicate, run, tags, understand},
};

async fn repositories(end: &Client) -> Vec<String> {
    let list: Value = end.get("/v2/_catalog").await.expect(StatusCode::OK).json();
    list["repositories"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn nothing_comes_back_under_another_name() {
    let world = World::of_berths().await;
    let (east, west) = (world.source.client(), world.target.client());
    east.push_noise("a", Some("v1"), 1, None).await;
    west.push_noise("b", Some("v1"), 2, None).await;
    let both = async || {
        for (from, to, prefix) in [(&world.from, &world.to, "of-east"), (&world.to, &world.from, "of-west")] {
            let mut command = replicate();
            command.args([&from.url(), &to.url(), "--propagate-deletions", "--prefix", prefix]);
            let ran = run(command).await;
            assert_eq!(ran.code, 0, "{ran:#?}");
        }
    };
    for _ in 0..3 {
        both().await;
        assert_eq!(repositories(&east).await, ["a", "of-west/b"]);
        assert_eq!(repositories(&west).await, ["b", "of-east/a"]);
    }
    // What is pushed among the copies was pushed there.
    west.push_noise("of-east/a", Some("v2"), 3, None).await;
    for _ in 0..2 {
        both().await;
        assert_eq!(tags(&east, "of-west/of-east/a").await, ["v2"]);
        assert_eq!(repositories(&west).await, ["b", "of-east/a"]);
    }
}

#[tokio::test]
async fn a_copy_brings_back_what_was_lost() {
    let world = World::of_berths().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    assert_eq!(world.run(&["--prefix", "backup"]).await.code, 0);
    // The same registry, as its id says, with nothing left.
    let folder = tempfile::tempdir().unwrap();
    drop(Server::start(folder.path()));
    std::fs::copy(world.source_root().join("registry.id"), folder.path().join("registry.id")).unwrap();
    let again = Server::start(folder.path());
    let before = Proxy::before(again.address("registry")).await;
    before.is_honest();
    let mut command = replicate();
    command.args([&format!("{}/backup", world.to.url()), &before.url()]);
    let ran = run(command).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(repositories(&again.client()).await, ["a"]);
}

#[tokio::test]
async fn a_registry_is_copied_into_itself_once() {
    let world = World::of_berths().await;
    let client = world.source.client();
    client.push_noise("team/a", Some("v1"), 1, None).await;
    // Under another name, by which nobody can tell.
    let other = Proxy::before(world.source.address("registry")).await;
    other.is_honest();
    let into = |to: String, arguments: &[&str]| {
        let mut command = replicate();
        command.args([&world.from.url(), &to]).args(arguments);
        command
    };
    let refused = run(into(other.url(), &[])).await;
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(refused.progress.problem.unwrap().message.contains("the same"));
    for _ in 0..2 {
        for ran in [
            run(into(other.url(), &["--prefix", "mirror"])).await,
            run(into(format!("{}/copies", other.url()), &["--repository", "team/*"])).await,
            run(into(other.url(), &["--prefix", "flat", "--flatten", "1", "--repository", "team/*"])).await,
        ] {
            assert_eq!(ran.code, 0, "{ran:#?}");
        }
        let expected = ["copies/team/a", "flat/a", "mirror/team/a", "team/a"];
        let all = repositories(&client).await;
        assert!(expected.iter().all(|name| all.iter().any(|other| other == name)), "{all:?}");
        assert!(
            !all.iter().any(|name| name.contains("mirror/mirror") || name.contains("copies/copies")),
            "{all:?}"
        );
    }
}

#[tokio::test]
async fn what_is_pushed_is_followed_within_one_registry_too() {
    let world = World::of_berths().await;
    let client = world.source.client();
    let other = Proxy::before(world.source.address("registry")).await;
    other.is_honest();
    let mut command = replicate();
    command.args([&world.from.url(), &other.url(), "--prefix", "mirror", "--follow-seconds", "2"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    world.from.is_followed().await;
    client.push_noise("a", Some("v1"), 1, None).await;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let ran = understand(&output);
    assert_eq!((ran.code, ran.progress.done), (0, 1), "{ran:#?}");
    assert_eq!(repositories(&client).await, ["a", "mirror/a"]);
    assert_eq!(tags(&client, "mirror/a").await, ["v1"]);
}

#[tokio::test]
async fn what_comes_from_the_target_keeps_no_run_from_its_end() {
    let world = World::of_berths().await;
    let mut command = replicate();
    command.args([&world.to.url(), &world.from.url(), "--follow-seconds", "2"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut back = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    world.to.is_followed().await;
    let client = world.source.client();
    let pushing = async {
        for seed in 1.. {
            client.push_noise("a", Some(&format!("v{seed}")), seed, None).await;
            world.copy().await;
        }
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(Duration::from_secs(60), &mut back) => ended,
        () = pushing => unreachable!(),
    };
    let ran = understand(&ended.expect("the run ends while pushes go on").unwrap());
    assert_eq!((ran.code, ran.progress.done, ran.progress.total), (0, 0, 0), "{ran:#?}");
    assert_eq!(ran.progress.target_id.as_deref(), Some(id(world.source_root()).as_str()));
    assert!(!tags(&world.target.client(), "a").await.is_empty());
}

fn id(root: &Path) -> String {
    std::fs::read_to_string(root.join("registry.id")).unwrap().trim().to_owned()
}
