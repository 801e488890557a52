//! A run needs no more memory than 64 MiB, whatever the sizes of what it copies.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    image::{descriptor, image, sha256},
    server::Server,
    world::{Ran, World, replicate, understand},
};

const LARGE: usize = 512 << 20;
const MOST: usize = 64 << 20;

/// Bytes that are its own, without those of its program.
fn memory(child: &Child) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.map_or(0, |line| line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10)
}

#[tokio::test]
async fn large_blobs_and_manifests_need_little_memory() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [source, target] = [0, 1].map(|n| Server::start(folders[n].path()));
    let client = source.client();
    let zeros = Bytes::from(vec![0; LARGE]);
    client.push_blob("a", zeros.clone()).await;
    client.push_blob("a", "{}").await;
    let large = image(b"{}", &[&zeros]);
    client.put_manifest("a", "blob", &large).await.expect(StatusCode::CREATED);
    // More of them at once than there would be room for.
    let config = descriptor("application/vnd.oci.image.config.v1+json", b"{}");
    let text = "x".repeat((4 << 20) - 1000);
    for number in 10..34 {
        let annotations = format!(r#"{{"number":"{number}","text":"{text}"}}"#);
        let large =
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"annotations":{annotations}}}"#);
        let kind = [("content-type", oci::manifest::IMAGE)];
        let pushed = client.put(&format!("/v2/a/manifests/v{number}"), &kind, large).await;
        pushed.expect(StatusCode::CREATED);
    }
    let mut command = replicate();
    command.args([&source, &target].map(|end| format!("http://{}", end.address("registry"))));
    command.args(["--concurrency", "64"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (ran, most) = measured(command).await;
    assert_eq!((ran.code, ran.progress.done), (0, 25), "{ran:#?}");
    assert!(ran.progress.bytes_moved >= LARGE as u64);
    assert!(most > 0 && most <= MOST, "{} MiB", most >> 20);
}

/// Runs it, and looks how much memory it has.
async fn measured(mut command: Command) -> (Ran, usize) {
    let mut child = command.spawn().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = most.max(memory(&child));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (understand(&child.wait_with_output().unwrap()), most)
}

/// Of remarks above all.
#[tokio::test]
async fn long_lists_of_referrers_need_little_memory() {
    let world = World::new().await;
    let client = world.source.client();
    let subject = client.push_noise("a", Some("v0"), 1, None).await;
    let document = client.get("/v2/a/manifests/v0").await.json::<Value>();
    let mut lists = vec![subject["digest"].as_str().unwrap().to_owned()];
    for number in 1..24 {
        let mut image = document.clone();
        image["annotations"] = json!({"number": number.to_string()});
        client.put_manifest("a", &format!("v{number}"), &image).await.expect(StatusCode::CREATED);
        lists.push(sha256(image.to_string().as_bytes()).to_string());
    }
    // Gone again before anybody came for them.
    let listed = |n: usize| {
        let mut listed = descriptor(oci::manifest::IMAGE, format!("gone {n}").as_bytes());
        listed["annotations"] = json!({"text": "x".repeat(700_000)});
        listed
    };
    let list = json!({"schemaVersion": 2, "manifests": (0..10).map(listed).collect::<Vec<_>>()}).to_string();
    for digest in &lists {
        world.from.answer(&format!("/v2/a/referrers/{digest}"), &[(StatusCode::OK, list.clone())]);
    }
    let mut command = world.command(&["--concurrency", "64"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (ran, most) = measured(command).await;
    assert_eq!((ran.code, ran.progress.done), (0, 24), "{ran:#?}");
    assert!(most > 0 && most <= MOST, "{} MiB", most >> 20);
}
