//! Two registries that are copied to each other with their deletions: whatever was done at both, they come to the same, and
//! to rest.

use std::{collections::BTreeMap, process::Stdio};

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    client::Client,
    image::{descriptor, image, sha256},
    random::Random,
    world::{World, understand},
};

const TAGS: u64 = 5;
const IMAGES: u64 = 6;

fn config(number: u64) -> Bytes {
    format!("{{\"image\":{number}}}").into()
}

fn manifest(number: u64) -> Value {
    image(&config(number), &[b"layer"])
}

async fn begin() -> (World, [Client; 2]) {
    let world = World::of_berths().await;
    let ends = [world.source.client(), world.target.client()];
    for end in &ends {
        end.push_blob("a", "layer").await;
        for number in 0..IMAGES {
            end.push_blob("a", config(number)).await;
        }
    }
    (world, ends)
}

/// Something that a person might do.
async fn act(random: &mut Random, end: &Client) {
    let tag = format!("t{}", random.below(TAGS));
    let document = manifest(random.below(IMAGES));
    let digest = sha256(document.to_string().as_bytes());
    match random.below(10) {
        0..5 => drop(end.put_manifest("a", &tag, &document).await.expect(StatusCode::CREATED)),
        5..7 => drop(end.delete(&format!("/v2/a/manifests/{tag}")).await),
        7 => drop(end.delete(&format!("/v2/a/manifests/{digest}")).await),
        8 => sign(random, end, &document).await,
        _ => unsign(end, &document).await,
    }
}

async fn sign(random: &mut Random, end: &Client, subject: &Value) {
    let mut signature = manifest(0);
    signature["annotations"] = json!({"number": random.below(u64::MAX).to_string()});
    signature["subject"] = descriptor(oci::manifest::IMAGE, subject.to_string().as_bytes());
    let digest = sha256(signature.to_string().as_bytes()).to_string();
    end.put_manifest("a", &digest, &signature).await.expect(StatusCode::CREATED);
}

/// Takes one of an image's signatures away.
async fn unsign(end: &Client, subject: &Value) {
    let digest = sha256(subject.to_string().as_bytes());
    let list: Value = end.get(&format!("/v2/a/referrers/{digest}")).await.expect(StatusCode::OK).json();
    if let Some(signature) = list["manifests"][0]["digest"].as_str() {
        end.delete(&format!("/v2/a/manifests/{signature}")).await.expect(StatusCode::ACCEPTED);
    }
}

/// Copies in one direction.
async fn copy(world: &World, back: bool) {
    let (from, to) = if back { (&world.to, &world.from) } else { (&world.from, &world.to) };
    let mut command = crate::world::replicate();
    command.args([&from.url(), &to.url(), "--propagate-deletions"]);
    let ran = crate::world::run(command).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
}

/// What an end says: of each tag what it points to, what refers to that and since when; and since when what is gone.
async fn state(end: &Client) -> [BTreeMap<String, Vec<Value>>; 2] {
    let page: Value = end.get("/v2/a/_berth/replication/state").await.expect(StatusCode::OK).json();
    let entries = page["entries"].as_array().unwrap().iter();
    let (gone, there): (Vec<_>, Vec<_>) = entries.partition(|entry| entry["deleted"] == true);
    let said = |entries: Vec<&Value>, keys: &[&str]| {
        let said = |entry: &Value| keys.iter().map(|key| entry[key].clone()).collect();
        entries.into_iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), said(entry))).collect()
    };
    [said(there, &["digest", "attached", "stamp"]), said(gone, &["stamp"])]
}

/// Both have the same since the same time; when the tags that are gone went, by the later of their words: what was
/// deleted at both, or had never come, each says for itself.
async fn agree(ends: &[Client; 2], seed: u64) -> BTreeMap<String, Timestamp> {
    let [[ours, our_gone], [theirs, their_gone]] = [state(&ends[0]).await, state(&ends[1]).await];
    assert_eq!(ours, theirs, "seed {seed}");
    let mut last = BTreeMap::new();
    for (name, said) in our_gone.into_iter().chain(their_gone).filter(|(name, _)| !name.contains(':')) {
        assert!(!ours.contains_key(&name), "seed {seed}: {name}");
        let time: Timestamp = said[0]["time"].as_str().unwrap().parse().unwrap();
        last.entry(name).and_modify(|last: &mut Timestamp| *last = (*last).max(time)).or_insert(time);
    }
    last
}

/// Sets tags that are gone since then as somebody did before, who comes late with it. Whichever end takes that for news,
/// the other one knows better.
async fn come_late(random: &mut Random, ends: &[Client; 2], gone: &BTreeMap<String, Timestamp>) {
    for (tag, time) in gone {
        let before = *time - SignedDuration::from_micros(1);
        let origin = format!("elsewhere:5000; time={before:.6}");
        let headers = [("content-type", oci::manifest::IMAGE), ("berth-origin", &origin)];
        for end in ends {
            let document = manifest(random.below(IMAGES)).to_string();
            let answer = end.put(&format!("/v2/a/manifests/{tag}"), &headers, document).await;
            assert!([StatusCode::CREATED, StatusCode::PRECONDITION_FAILED].contains(&answer.status), "{tag}");
        }
    }
}

/// Everything that changed something.
fn changes(world: &World) -> Vec<(Method, String)> {
    let asked = [world.from.take(), world.to.take()].concat();
    let changes =
        asked.into_iter().filter(|asked| matches!(asked.method.as_str(), "PUT" | "DELETE" | "POST"));
    changes.map(|asked| (asked.method, asked.path)).collect()
}

#[tokio::test]
async fn two_that_are_copied_to_each_other_become_the_same() {
    for seed in 1..=4 {
        let (world, ends) = begin().await;
        let mut random = Random(seed);
        for _ in 0..6 {
            for _ in 0..8 {
                let end = &ends[usize::from(random.below(2) == 1)];
                act(&mut random, end).await;
            }
            copy(&world, random.below(2) == 1).await;
        }
        for _ in 0..2 {
            copy(&world, false).await;
            copy(&world, true).await;
        }
        let gone = agree(&ends, seed).await;
        changes(&world);
        copy(&world, false).await;
        copy(&world, true).await;
        assert_eq!(changes(&world), [], "seed {seed}");

        come_late(&mut random, &ends, &gone).await;
        copy(&world, false).await;
        copy(&world, true).await;
        let still_gone = agree(&ends, seed).await;
        assert!(gone.keys().all(|tag| still_gone.contains_key(tag)), "seed {seed}: {gone:?} {still_gone:?}");
    }
}

/// Where the feed of a registry is.
async fn cursor(end: &Client) -> String {
    let page: Value = end.get("/v2/_berth/replication/feed").await.expect(StatusCode::OK).json();
    page["cursor"].as_str().unwrap().to_owned()
}

/// Follows in both directions, while something happens.
async fn follow(world: &World, idle: &str, work: impl AsyncFnOnce()) {
    world.from.take();
    world.to.take();
    let runs = [(&world.from, &world.to), (&world.to, &world.from)].map(|(from, to)| {
        let mut command = crate::world::replicate();
        command.args([&from.url(), &to.url(), "--propagate-deletions", "--follow-seconds", idle]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for end in [&world.from, &world.to] {
        end.is_followed().await;
    }
    work().await;
    for run in runs {
        let output = tokio::task::spawn_blocking(|| run.wait_with_output().unwrap()).await.unwrap();
        let ran = understand(&output);
        assert_eq!(ran.code, 0, "{ran:#?}");
    }
}

#[tokio::test]
async fn and_so_do_two_that_follow_each_other_without_a_loop() {
    let (world, ends) = begin().await;
    let mut random = Random(7);
    follow(&world, "4", async || {
        for _ in 0..60 {
            let end = &ends[usize::from(random.below(2) == 1)];
            act(&mut random, end).await;
            tokio::time::sleep(std::time::Duration::from_millis(random.below(60))).await;
        }
    })
    .await;
    agree(&ends, 7).await;
    let before = [cursor(&ends[0]).await, cursor(&ends[1]).await];
    follow(&world, "2", async || {}).await;
    for (end, cursor) in ends.iter().zip(before) {
        let page: Value = end.get(&format!("/v2/_berth/replication/feed?after={cursor}")).await.json();
        assert_eq!(page["entries"], json!([]), "nothing is told again and again");
    }
}
