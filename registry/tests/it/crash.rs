//! kill -9 in the middle of pushes, deletes and collection: what was acknowledged is there and whole afterwards, and nothing
//! half is served.

use std::{
    collections::HashSet,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use channel::feed::Kind;
use http::{Method, StatusCode};
use oci::{Digest, manifest};
use serde_json::Value;

use crate::{
    client::{Client, Failure},
    image::{image, noise, sha256},
    server::Server,
};

/// Kills; more with `BERTH_TEST_KILLS`.
const KILLS: usize = 8;
const PUSHERS: u64 = 4;

/// What the server said is stored, blobs with the manifest that needs them, or deleted.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<Digest>,
    tags: Vec<(String, Digest)>,
    /// Tags that were deleted and are there again.
    back: Vec<String>,
    gone: Vec<String>,
}

impl Acknowledged {
    fn add(&mut self, more: Self) {
        self.blobs.extend(more.blobs);
        self.tags.extend(more.tags);
        self.back.extend(more.back);
        self.gone.extend(more.gone);
    }
}

/// Pushes images until the server is gone.
async fn push_until_the_end(client: Client, seed: u64, count: Arc<AtomicUsize>) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    for n in 0.. {
        if push_one(&client, seed * 1_000_000 + n, &mut acknowledged).await.is_err() {
            break;
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

async fn push_one(client: &Client, seed: u64, acknowledged: &mut Acknowledged) -> Result<(), Failure> {
    let config = Bytes::from(format!("{{\"seed\":{seed}}}"));
    let layer = noise(seed, usize::try_from(seed % 7).unwrap() * 50_000 + 1000);
    let mut blobs = Vec::new();
    for content in [&config, &layer] {
        blobs.push(client.try_push_blob("crash/test", content.clone()).await?);
    }
    let document = image(&config, &[&layer]).to_string();
    let tag = format!("t{}", seed % 50);
    let path = format!("/v2/crash/test/manifests/{tag}");
    let headers = [("content-type", manifest::IMAGE)];
    let pushed = client.try_send(Method::PUT, &path, &headers, document.clone()).await?;
    if pushed.status == StatusCode::NOT_FOUND {
        // Collection without any grace may have taken what nothing needed yet.
        return Ok(());
    }
    pushed.expect(StatusCode::CREATED);
    acknowledged.blobs.extend(blobs);
    acknowledged.tags.push((tag, sha256(document.as_bytes())));
    delete_one(client, seed, document, acknowledged).await
}

/// Sets a tag that nobody else sets, deletes it, and sets every other one again.
async fn delete_one(
    client: &Client,
    seed: u64,
    document: String,
    acknowledged: &mut Acknowledged,
) -> Result<(), Failure> {
    let tag = format!("d{seed}");
    let path = format!("/v2/crash/test/manifests/{tag}");
    let headers = [("content-type", manifest::IMAGE)];
    client.try_send(Method::PUT, &path, &headers, document.clone()).await?.expect(StatusCode::CREATED);
    client.try_send(Method::DELETE, &path, &[], "").await?.expect(StatusCode::ACCEPTED);
    if seed.is_multiple_of(2) {
        acknowledged.gone.push(tag);
    } else {
        client.try_send(Method::PUT, &path, &headers, document).await?.expect(StatusCode::CREATED);
        acknowledged.back.push(tag);
    }
    Ok(())
}

async fn check(client: &Client, acknowledged: &Acknowledged) {
    for digest in &acknowledged.blobs {
        let answer = client.get(&format!("/v2/crash/test/blobs/{digest}")).await.expect(StatusCode::OK);
        assert_eq!(sha256(&answer.body), *digest);
    }
    for (_, digest) in &acknowledged.tags {
        let answer = client.get(&format!("/v2/crash/test/manifests/{digest}")).await.expect(StatusCode::OK);
        assert_eq!(sha256(&answer.body), *digest);
    }
}

/// What was deleted left a record, and what is there again has none.
async fn check_deletions(client: &Client, root: &Path, acknowledged: &Acknowledged) {
    let all = [(&acknowledged.gone, true), (&acknowledged.back, false)];
    for (tag, is_gone) in
        all.into_iter().flat_map(|(tags, is_gone)| tags.iter().map(move |tag| (tag, is_gone)))
    {
        let expected = if is_gone { StatusCode::NOT_FOUND } else { StatusCode::OK };
        client.get(&format!("/v2/crash/test/manifests/{tag}")).await.expect(expected);
        assert_eq!(root.join("repositories/crash/test/_deleted").join(tag).exists(), is_gone, "{tag}");
    }
}

/// Who follows the feed from a cursor hears of every change that was acknowledged since; where to go on.
async fn check_feed(client: &Client, mut cursor: String, acknowledged: &Acknowledged) -> String {
    let (mut told, mut deleted) = (HashSet::new(), HashSet::new());
    loop {
        let page = client.feed(&cursor, "").await;
        cursor = page.cursor;
        if page.entries.is_empty() {
            break;
        }
        for entry in page.entries {
            let Some(tag) = entry.tag else { continue };
            if entry.kind == Kind::Delete {
                deleted.insert(tag);
            } else {
                told.insert((tag, entry.digest));
            }
        }
    }
    for tag in acknowledged.gone.iter().chain(&acknowledged.back) {
        assert!(deleted.contains(tag), "the feed does not say that {tag} was deleted");
    }
    for (tag, digest) in &acknowledged.tags {
        assert!(told.contains(&(tag.clone(), digest.to_string())), "the feed lacks {tag}");
    }
    cursor
}

/// Every tag that is listed can be pulled whole.
async fn check_what_is_visible(client: &Client) {
    let listed: Value = client.get("/v2/crash/test/tags/list").await.expect(StatusCode::OK).json();
    for tag in listed["tags"].as_array().unwrap() {
        let path = format!("/v2/crash/test/manifests/{}", tag.as_str().unwrap());
        let document: Value = client.get(&path).await.expect(StatusCode::OK).json();
        for descriptor in document["layers"].as_array().unwrap().iter().chain([&document["config"]]) {
            let digest = descriptor["digest"].as_str().unwrap();
            client.get(&format!("/v2/crash/test/blobs/{digest}")).await.expect(StatusCode::OK);
        }
    }
}

fn kills() -> usize {
    std::env::var("BERTH_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap())
}

/// Collects as long as there is a server; says how often it came to an end.
fn collect_until_the_end(root: &Path, grace_seconds: usize) -> usize {
    let mut collections = 0;
    while let Ok(mut stream) = UnixStream::connect(root.join("control.sock")) {
        let order = format!("{{\"collect\":{{\"dryRun\":false,\"graceSeconds\":{grace_seconds}}}}}\n");
        let mut events = String::new();
        if stream.write_all(order.as_bytes()).and_then(|()| stream.read_to_string(&mut events)).is_err() {
            break;
        }
        collections += usize::from(events.contains("\"done\""));
    }
    collections
}

/// Everything is as it should be, but for what nobody sees.
fn check_root(root: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-registry"));
    let checked = command.args(["check", "--root"]).arg(root).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// Lets clients push and collection run, and kills the server at some point, another one each time.
async fn push_and_kill(server: Server, root: &Path, round: usize) -> (Acknowledged, usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let collector = {
        let root = root.to_owned();
        // Without any grace a fast collection leaves few pushes whole, so half of the rounds have one.
        tokio::task::spawn_blocking(move || collect_until_the_end(&root, (round + 1) % 2))
    };
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|pusher| {
            let seed = round as u64 * PUSHERS + pusher;
            tokio::spawn(push_until_the_end(server.client(), seed, Arc::clone(&count)))
        })
        .collect();
    while count.load(Ordering::Relaxed) < 1 + round % 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_micros(round as u64 * 7919 % 20_000)).await;
    server.kill();
    let mut acknowledged = Acknowledged::default();
    for pusher in pushers {
        acknowledged.add(pusher.await.unwrap());
    }
    (acknowledged, collector.await.unwrap())
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "how much was done is what a long run is for")]
async fn what_was_acknowledged_survives_kill_9_also_while_collection_runs() {
    let root = tempfile::tempdir().unwrap();
    let kills = kills();
    let (mut all, mut last) = (Acknowledged::default(), Acknowledged::default());
    let mut collections = 0;
    let mut cursor = None;
    for round in 0..kills {
        let server = Server::start(root.path());
        check(&server.client(), &last).await;
        check_deletions(&server.client(), root.path(), &last).await;
        cursor = Some(match cursor {
            Some(cursor) => check_feed(&server.client(), cursor, &last).await,
            None => server.client().cursor().await,
        });
        if round % 10 == 1 {
            check_what_is_visible(&server.client()).await;
        }
        let (acknowledged, collected) = push_and_kill(server, root.path(), round).await;
        all.add(std::mem::replace(&mut last, acknowledged));
        collections += collected;
        if round % 100 == 50 {
            check_root(root.path());
        }
    }
    all.add(last);
    check_root(root.path());
    let server = Server::start(root.path());
    check(&server.client(), &all).await;
    check_deletions(&server.client(), root.path(), &all).await;
    check_what_is_visible(&server.client()).await;
    assert_eq!(std::fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(root.path().join("quarantine")).unwrap().count(), 0);
    println!(
        "{kills} kills, {} blobs, {} manifests and {} deletions acknowledged, {collections} collections",
        all.blobs.len(),
        all.tags.len(),
        all.gone.len() + all.back.len()
    );
    assert!(all.tags.len() >= kills / 2 && collections > 0, "too little was done to say anything");
}
