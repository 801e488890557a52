//! Following real Berth registries: what is pushed while a run follows, and what may come between.

use std::{process::Stdio, time::Duration};

use ::channel::replication::Reason;
use futures::StreamExt as _;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::json;

use crate::{
    image::sha256,
    proxy::{Asked, Fault},
    server::Server,
    world::{Ran, World, tags, understand},
};

/// Lets a run follow, does something once it does, and waits for its end.
async fn while_following(world: &World, arguments: &[&str], work: impl AsyncFnOnce()) -> Ran {
    let mut command = world.command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    world.from.is_followed().await;
    work().await;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    understand(&output)
}

#[tokio::test]
async fn time_is_for_comparing_and_copying_and_not_for_waiting() {
    let world = World::of_berths().await;
    let client = world.source.client();
    client.push_noise("a", Some("v1"), 1, None).await;
    let arguments = ["--follow-seconds", "3", "--timeout-seconds", "2"];
    let ran = while_following(&world, &arguments, async || {
        client.push_noise("a", Some("v2"), 2, None).await;
    })
    .await;
    assert_eq!((ran.code, ran.progress.done), (0, 2), "{ran:#?}");
    world.is_equal(&["a"]).await;

    // Something always moves, but it would take hours.
    world.from.fail(usize::MAX, Fault::Drip, |asked| asked.kind() == "GET blob");
    world.from.take();
    let ran = while_following(&world, &arguments, async || {
        client.push_noise("a", Some("v3"), 3, None).await;
    })
    .await;
    assert_eq!(ran.code, 6, "{ran:#?}");
    assert_eq!(ran.progress.problem.unwrap().reason, Reason::TimedOut);
    let ran = world.run(&["--follow-seconds", "60", "--timeout-seconds", "1"]).await;
    assert_eq!(ran.code, 6, "{ran:#?}");
}

/// `sha256-….sig`, as cosign names signatures.
#[tokio::test]
async fn tags_of_signatures_follow_what_they_sign_where_tags_are_chosen() {
    let world = World::of_berths().await;
    let client = world.source.client();
    let wanted = client.push_noise("a", Some("v1"), 1, None).await;
    let unwanted = client.push_noise("a", Some("edge"), 2, None).await;
    let tag =
        |image: &serde_json::Value| format!("{}.sig", image["digest"].as_str().unwrap().replace(':', "-"));
    let ran = while_following(&world, &["--follow-seconds", "2", "--tag", "v*"], async || {
        client.push_noise("a", Some(&tag(&wanted)), 3, None).await;
        client.push_noise("a", Some(&tag(&unwanted)), 4, None).await;
        let later = client.push_noise("a", Some("v2"), 5, None).await;
        client.push_noise("a", Some(&tag(&later)), 6, None).await;
    })
    .await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    let there = tags(&world.target.client(), "a").await;
    assert_eq!(there.len(), 4, "{there:?}");
    assert!(there.contains(&tag(&wanted)) && !there.contains(&tag(&unwanted)));
}

/// As where they are compared: the first one's counts, in the order of their names.
#[tokio::test]
async fn of_two_repositories_that_arrive_under_one_name_the_first_ones_tag_is_copied() {
    let world = World::of_berths().await;
    let (source, target) = (world.source.client(), world.target.client());
    source.push_noise("a/app", Some("both"), 1, None).await;
    let arguments = ["--flatten", "1", "--follow-seconds", "2"];
    let ran = while_following(&world, &arguments, async || {
        source.push_noise("b/app", Some("both"), 2, None).await;
        source.push_noise("b/app", Some("later"), 3, None).await;
        while target.digest_of("app", "later").await.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        source.push_noise("a/app", Some("later"), 4, None).await;
        for repository in ["a/app", "b/app"] {
            source.push_noise(repository, Some("same"), 5, None).await;
        }
    })
    .await;
    assert_eq!(ran.code, 1, "{ran:#?}");
    let (image, reason) = ran.failure();
    assert!(image == "b/app:both" && reason.contains("as a/app:both does"), "{image}: {reason}");
    assert_eq!((ran.progress.total, ran.progress.done), (4, 4), "{ran:#?}");
    for tag in ["both", "later", "same"] {
        assert_eq!(target.digest_of("app", tag).await, source.digest_of("a/app", tag).await, "{tag}");
    }
}

/// The signature comes before its image has a tag that is copied, and is there before that tag.
#[tokio::test]
async fn signatures_of_before_come_with_the_tag() {
    let world = World::of_berths().await;
    let client = world.source.client();
    let image = client.push_noise("a", Some("edge"), 1, None).await;
    let digest = image["digest"].as_str().unwrap();
    for (seed, ending) in [(2, "sig"), (3, "att")] {
        client.push_noise("a", Some(&format!("{}.{ending}", digest.replace(':', "-"))), seed, None).await;
    }
    // Of somebody else.
    let other = client.push_noise("a", Some("other"), 4, None).await;
    let unwanted = format!("{}.sig", other["digest"].as_str().unwrap().replace(':', "-"));
    client.push_noise("a", Some(&unwanted), 5, None).await;
    let document = client.get("/v2/a/manifests/edge").await.json::<serde_json::Value>();
    let ran = while_following(&world, &["--follow-seconds", "2", "--tag", "v*"], async || {
        client.put_manifest("a", "v1", &document).await.expect(StatusCode::CREATED);
    })
    .await;
    assert_eq!((ran.code, ran.progress.done), (0, 3), "{ran:#?}");
    let there = tags(&world.target.client(), "a").await;
    assert!(there.len() == 3 && there.contains(&"v1".to_owned()), "{there:?}");
    let pushed = world.to.asked().into_iter().filter(|asked| asked.kind() == "PUT manifest");
    assert!(pushed.last().unwrap().path.ends_with("/v1"), "signatures first");
}

#[tokio::test]
async fn where_too_many_wait_the_feed_is_looked_at() {
    let world = World::of_berths().await;
    let client = world.source.client();
    let busy = Fault::too_many("60");
    world.from.fail(usize::MAX, busy, |asked| asked.is_following() && !asked.path.contains("wait=0"));
    let ran = while_following(&world, &["--follow-seconds", "5"], async || {
        client.push_noise("a", Some("v1"), 1, None).await;
    })
    .await;
    assert_eq!((ran.code, ran.progress.done), (0, 1), "{ran:#?}");
    assert!(ran.progress.lag_milliseconds.unwrap() < 5000, "{ran:#?}");
    let asked = world.from.asked().iter().filter(|asked| asked.is_following()).count();
    assert!(asked < 20, "{asked} requests are no gentle pace");
}

/// Also where the first thing that the target is asked fails.
#[tokio::test]
async fn what_fails_is_behind_since_it_was_pushed() {
    let world = World::of_berths().await;
    let client = world.source.client();
    client.push_noise("a", Some("v1"), 1, None).await;
    let refused = |name: &'static str| {
        let picks = move |asked: &Asked| asked.kind() == "HEAD manifest" && asked.path.ends_with(name);
        world.to.fail(usize::MAX, Fault::status(StatusCode::FORBIDDEN), picks);
    };
    refused("v2");
    let ran = while_following(&world, &["--follow-seconds", "2"], async || {
        client.push_noise("a", Some("v2"), 2, None).await;
    })
    .await;
    assert_eq!((ran.code, ran.progress.done, ran.failure().0), (1, 1, "a:v2"), "{ran:#?}");
    let state: serde_json::Value = client.get("/v2/a/_berth/replication/state").await.json();
    let pushed =
        |n: usize| state["entries"][n]["stamp"]["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let behind = |ran: &Ran| ran.progress.behind_since.as_ref().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(behind(&ran), pushed(1));

    // The same in a comparison with a target that is none of Berth's.
    world.to.is_foreign();
    refused("v1");
    let ran = world.run(&[]).await;
    assert_eq!((ran.code, ran.progress.failed), (4, 2), "{ran:#?}");
    assert_eq!(behind(&ran), pushed(0));
}

#[tokio::test]
async fn a_source_may_start_again() {
    let mut world = World::of_berths().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    let mut command = world.command(&["--follow-seconds", "10"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    world.from.is_followed().await;
    world.source.terminate();
    assert!(world.source.wait().success());
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.source = Server::start(world.source_root());
    world.from.turn_to(world.source.address("registry"));
    world.source.client().push_noise("a", Some("v2"), 2, None).await;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let ran = understand(&output);
    assert_eq!((ran.code, ran.progress.done), (0, 2), "{ran:#?}");
    world.is_equal(&["a"]).await;
    let comparisons = world.from.asked().iter().filter(|asked| asked.kind() == "GET catalog").count();
    assert_eq!(comparisons, 1, "its cursor is good for the new one too");
}

#[tokio::test]
async fn none_of_many_pushes_is_lost() {
    let world = World::of_berths().await;
    let client = world.source.client();
    // Blobs of their own would be the proxy's work more than ours.
    let mut images = Vec::new();
    for seed in 0..10 {
        client.push_noise("a", None, seed, None).await;
        let config = format!("{{\"seed\":{seed}}}");
        let layers = [crate::image::noise(seed, 300_000), crate::image::noise(seed + 1_000_000, 20_000)];
        images.push(crate::image::image(config.as_bytes(), &[&layers[0], &layers[1]]));
    }
    let ran = while_following(&world, &["--follow-seconds", "3"], async || {
        let pushes = (0..300).map(async |n: usize| {
            let mut image = images[n % 10].clone();
            image["annotations"] = json!({"number": n.to_string()});
            client.put_manifest("a", &format!("v{n}"), &image).await.expect(StatusCode::CREATED);
            if n.is_multiple_of(7) {
                image["annotations"] = json!({"number": format!("{n} again")});
                client.put_manifest("a", &format!("v{n}"), &image).await.expect(StatusCode::CREATED);
            }
        });
        futures::stream::iter(pushes).buffer_unordered(16).collect::<Vec<_>>().await;
    })
    .await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(ran.progress.behind_since, None);
    assert_eq!(tags(&world.target.client(), "a").await.len(), 300);
    world.is_equal(&["a"]).await;
    let moved = json!({"number": "294 again"});
    let image = world.target.client().get("/v2/a/manifests/v294").await.expect(StatusCode::OK);
    assert_eq!(image.json::<serde_json::Value>()["annotations"], moved, "{}", sha256(&image.body));
}
