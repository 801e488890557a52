//! kill -9 in the middle of pushes, deletes, collection and checkpoints of the journal, and of starts that do again what the
//! journal holds: what was acknowledged is there and whole afterwards, and nothing half is served.

mod deletions;
mod journal;
mod tags;

use std::{
    collections::HashSet,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
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

use self::tags::{Tags, Written};
use crate::{
    client::{Client, Failure},
    image::{image, noise, sha256},
    server::{Server, berth_registry},
};

/// Kills; more with `BERTH_TEST_KILLS`.
const KILLS: usize = 8;
const PUSHERS: u64 = 4;

/// What the server said is stored, blobs with the manifest that needs them, or deleted.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<Digest>,
    tags: Vec<(String, Digest)>,
    /// All that was done to tags, also what was under way at the end.
    written: Vec<Written>,
    /// Tags that were deleted and are there again.
    back: Vec<String>,
    gone: Vec<String>,
}

impl Acknowledged {
    fn add(&mut self, more: Self) {
        self.blobs.extend(more.blobs);
        self.tags.extend(more.tags);
        self.written.extend(more.written);
        self.back.extend(more.back);
        self.gone.extend(more.gone);
    }
}

/// One client: the manifest that it pushed last, and the tag that it moves to and fro.
struct Pusher {
    client: Client,
    moving: String,
    former: Option<String>,
    acknowledged: Acknowledged,
}

impl Pusher {
    /// Pushes images until the server is gone.
    async fn push_until_the_end(mut self, seed: u64, count: Arc<AtomicUsize>) -> Acknowledged {
        for n in 0.. {
            if self.push_one(seed * 1_000_000 + n).await.is_err() {
                break;
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.acknowledged
    }

    async fn push_one(&mut self, seed: u64) -> Result<(), Failure> {
        let config = Bytes::from(format!("{{\"seed\":{seed}}}"));
        let layer = noise(seed, usize::try_from(seed % 7).unwrap() * 50_000 + 1000);
        let mut blobs = Vec::new();
        for content in [&config, &layer] {
            blobs.push(self.client.try_push_blob("crash/test", content.clone()).await?);
        }
        let document = image(&config, &[&layer]).to_string();
        // All clients set the same ones.
        if !self.set(&format!("t{}", seed % 50), &document).await? {
            // Collection without any grace may have taken what nothing needed yet.
            return Ok(());
        }
        self.acknowledged.blobs.extend(blobs);
        self.move_to_and_fro(&document).await?;
        self.delete_one(seed, &document).await?;
        self.former = Some(document);
        Ok(())
    }

    /// Sets a tag that nobody else sets to this manifest, and back to the former one.
    async fn move_to_and_fro(&mut self, document: &str) -> Result<(), Failure> {
        let moving = self.moving.clone();
        assert!(self.set(&moving, document).await?);
        if let Some(former) = self.former.take() {
            assert!(self.set(&moving, &former).await?, "what is tagged stays");
        }
        Ok(())
    }

    /// Sets a tag that nobody else sets, deletes it, and sets every other one again.
    async fn delete_one(&mut self, seed: u64, document: &str) -> Result<(), Failure> {
        let tag = format!("d{seed}");
        assert!(self.set(&tag, document).await?);
        let deleting = Written::begin(&tag, None);
        self.acknowledged.written.push(deleting);
        let path = format!("/v2/crash/test/manifests/{tag}");
        self.client.try_send(Method::DELETE, &path, &[], "").await?.expect(StatusCode::ACCEPTED);
        self.acknowledged.written.last_mut().unwrap().end();
        if seed.is_multiple_of(2) {
            self.acknowledged.gone.push(tag);
        } else {
            assert!(self.set(&tag, document).await?);
            self.acknowledged.back.push(tag);
        }
        Ok(())
    }

    /// False where the registry lacks what the manifest needs.
    async fn set(&mut self, tag: &str, document: &str) -> Result<bool, Failure> {
        let digest = sha256(document.as_bytes());
        self.acknowledged.written.push(Written::begin(tag, Some(digest.clone())));
        let path = format!("/v2/crash/test/manifests/{tag}");
        let headers = [("content-type", manifest::IMAGE)];
        let pushed = self.client.try_send(Method::PUT, &path, &headers, document.to_owned()).await?;
        if pushed.status == StatusCode::NOT_FOUND {
            self.acknowledged.written.pop();
            return Ok(false);
        }
        pushed.expect(StatusCode::CREATED);
        self.acknowledged.written.last_mut().unwrap().end();
        self.acknowledged.tags.push((tag.to_owned(), digest));
        Ok(true)
    }
}

async fn check(client: &Client, acknowledged: &Acknowledged) {
    for digest in &acknowledged.blobs {
        let answer = client.get(&format!("/v2/crash/test/blobs/{digest}")).await.expect(StatusCode::OK);
        assert_eq!(sha256(&answer.body), *digest);
    }
    let manifests: HashSet<_> = acknowledged.tags.iter().map(|(_, digest)| digest).collect();
    for digest in manifests {
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

/// What a round is like: most checkpoints come where the journal is short, most is to be done again where it is long.
struct Round {
    journal: &'static str,
    /// Pushes before the end.
    pushes: usize,
    /// Whether the end comes in a checkpoint.
    in_checkpoint: bool,
    /// Starts that are killed afterwards.
    starts: usize,
}

impl Round {
    fn of(round: usize) -> Self {
        let few = 1 + round % 5;
        match round % 4 {
            0 => Self { journal: "16Ki", pushes: few + 5, in_checkpoint: true, starts: 0 },
            1 => Self { journal: "256Ki", pushes: few, in_checkpoint: false, starts: 1 },
            2 => Self { journal: "16Mi", pushes: 25 + few, in_checkpoint: false, starts: 2 + round % 3 },
            _ => Self { journal: "16Mi", pushes: few, in_checkpoint: false, starts: 0 },
        }
    }
}

/// What a long run has met.
#[derive(Debug, Default)]
struct Met {
    collections: usize,
    /// That came to an end while clients pushed.
    checkpoints: u64,
    /// Kills that left records in both files, one of which was about to be begun anew, on purpose or by chance.
    kills_in_checkpoints: usize,
    /// Starts that were killed before all that the journal held was done again.
    kills_in_starts: usize,
    /// The most changes that were done again.
    longest: u64,
}

/// Lets clients push and collection run, and kills the server at some point, another one each time.
async fn push_and_kill(server: Server, root: &Path, round: usize, met: &mut Met) -> Acknowledged {
    let count = Arc::new(AtomicUsize::new(0));
    let begun = journal::number(root);
    let collector = {
        let root = root.to_owned();
        // Without any grace a fast collection leaves few pushes whole, so half of the rounds have one.
        tokio::task::spawn_blocking(move || collect_until_the_end(&root, (round + 1) % 2))
    };
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|pusher| {
            let moving = format!("moving-{pusher}");
            let acknowledged = Acknowledged::default();
            let pushing = Pusher { client: server.client(), moving, former: None, acknowledged };
            let seed = round as u64 * PUSHERS + pusher;
            tokio::spawn(pushing.push_until_the_end(seed, Arc::clone(&count)))
        })
        .collect();
    let Round { pushes, in_checkpoint, .. } = Round::of(round);
    while count.load(Ordering::Relaxed) < pushes {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    if in_checkpoint {
        hold_in_a_checkpoint(&server, root, round as u64 * 7919 % 5_000).await;
    } else {
        tokio::time::sleep(Duration::from_micros(round as u64 * 7919 % 20_000)).await;
    }
    server.kill();
    met.checkpoints += journal::number(root) - begun;
    met.kills_in_checkpoints += usize::from(journal::is_in_both_files(root));
    let mut acknowledged = Acknowledged::default();
    for pusher in pushers {
        acknowledged.add(pusher.await.unwrap());
    }
    met.collections += collector.await.unwrap();
    acknowledged
}

/// Lets the server do nothing any more at some moment of a checkpoint, at most so many microseconds after its begin.
async fn hold_in_a_checkpoint(server: &Server, root: &Path, longest: u64) {
    for attempt in 1.. {
        while !journal::is_in_both_files(root) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(longest / attempt)).await;
        server.hold();
        if journal::is_in_both_files(root) {
            return;
        }
        server.go_on();
    }
}

/// Kills a server while it starts: so long after it begins to look at what the journal holds. Says whether something was
/// left to be done again.
fn kill_a_start(root: &Path, after: Duration) -> bool {
    let sign = root.join("tmp/sign");
    std::fs::write(&sign, "").unwrap();
    let before = journal::number(root);
    let mut command = berth_registry();
    command.arg("--root").arg(root).args(["--listen", "127.0.0.1:0"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    // This is emptied just before.
    while sign.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the server ended by itself");
        std::thread::yield_now();
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    journal::number(root) == before
}

fn start(root: &Path, round: usize, met: &mut Met) -> Server {
    let server = Server::with(root, |command| {
        command.args(["--journal-bytes", Round::of(round).journal]);
    });
    met.longest = met.longest.max(journal::done_again(&server));
    server
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "how much was done is what a long run is for")]
async fn what_was_acknowledged_survives_kill_9_also_while_collection_runs() {
    let root = tempfile::tempdir().unwrap();
    let kills = kills();
    let (mut all, mut last) = (Acknowledged::default(), Acknowledged::default());
    let (mut tags, mut met) = (Tags::default(), Met::default());
    let mut cursor = None;
    for round in 0..kills {
        let server = start(root.path(), round, &mut met);
        check(&server.client(), &last).await;
        check_deletions(&server.client(), root.path(), &last).await;
        tags.check(&server.client(), &last.written).await;
        cursor = Some(match cursor {
            Some(cursor) => check_feed(&server.client(), cursor, &last).await,
            None => server.client().cursor().await,
        });
        if round % 10 == 1 {
            check_what_is_visible(&server.client()).await;
        }
        let acknowledged = push_and_kill(server, root.path(), round, &mut met).await;
        all.add(std::mem::replace(&mut last, acknowledged));
        for start in 0..Round::of(round).starts {
            let after = (round * 7919 + start * 104_729) as u64 % 40_000;
            met.kills_in_starts += usize::from(kill_a_start(root.path(), Duration::from_micros(after)));
        }
        if round % 100 == 50 {
            check_root(root.path());
        }
    }
    check_root(root.path());
    let server = Server::start(root.path());
    tags.check(&server.client(), &last.written).await;
    tags.check_all(&server.client()).await;
    all.add(last);
    check(&server.client(), &all).await;
    check_deletions(&server.client(), root.path(), &all).await;
    check_what_is_visible(&server.client()).await;
    assert_eq!(std::fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(root.path().join("quarantine")).unwrap().count(), 0);
    println!(
        "{kills} kills, {} blobs, {} manifests and {} deletions acknowledged; {met:?}",
        all.blobs.len(),
        all.tags.len(),
        all.gone.len() + all.back.len()
    );
    assert!(all.tags.len() >= kills / 2 && met.collections > 0, "too little was done to say anything");
    assert!(met.checkpoints > 0 && met.longest > 100, "{met:?}");
    assert!(met.kills_in_checkpoints > 0 && met.kills_in_starts > 0, "{met:?}");
}
