//! kill -9 in the middle of pushes, deletes, collection and checkpoints of the journal, and of starts that do again what the
//! journal holds: what was acknowledged is there and whole afterwards, and nothing half is served.

mod acknowledged;
mod checks;
mod deletions;
mod journal;
mod pusher;
mod tags;

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use self::{
    acknowledged::Acknowledged,
    checks::{check, check_feed, check_uploads, check_what_is_visible},
    pusher::{PUSHERS, Pusher},
    tags::{Tags, Written},
};
use crate::server::{Server, assert_sound, berth_registry};

/// Kills, or more until there was enough to say something; more with `BERTH_TEST_KILLS`.
const KILLS: usize = 8;
/// Images that have to be acknowledged.
const IMAGES: usize = 50;
/// Rounds after which there has to be enough.
const ENOUGH: usize = 60;

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

/// What a round is like: most checkpoints come where the journal is short, most is to be done again where it is long.
struct Round {
    journal: &'static str,
    /// That clients take before the end.
    turns: usize,
    /// Whether the end comes in a checkpoint.
    in_checkpoint: bool,
    /// Starts that are killed afterwards.
    starts: usize,
}

impl Round {
    fn of(round: usize) -> Self {
        let few = 1 + round % 5;
        match round % 4 {
            0 => Self { journal: "16Ki", turns: few + 5, in_checkpoint: true, starts: 0 },
            1 => Self { journal: "256Ki", turns: few, in_checkpoint: false, starts: 1 },
            2 => Self { journal: "16Mi", turns: 25 + few, in_checkpoint: false, starts: 2 + round % 3 },
            _ => Self { journal: "16Mi", turns: few, in_checkpoint: false, starts: 0 },
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

impl Met {
    fn enough(&self) -> bool {
        self.collections > 0
            && self.checkpoints > 0
            && self.longest > 100
            && self.kills_in_checkpoints > 0
            && self.kills_in_starts > 0
    }
}

/// Lets clients push and collection run, and kills the server at some point, another one each time.
async fn push_and_kill(server: Server, root: &Path, round: usize, met: &mut Met) -> Acknowledged {
    let turns = Arc::new(AtomicUsize::new(0));
    let begun = journal::number(root);
    let collector = {
        let root = root.to_owned();
        // Without any grace a fast collection leaves few pushes whole, so half of the rounds have one.
        tokio::task::spawn_blocking(move || collect_until_the_end(&root, (round + 1) % 2))
    };
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|pusher| {
            let pusher = Pusher::new(server.client(), round, pusher);
            tokio::spawn(pusher.push_until_the_end(Arc::clone(&turns)))
        })
        .collect();
    let Round { turns: enough, in_checkpoint, .. } = Round::of(round);
    while turns.load(Ordering::Relaxed) < enough {
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
    let (mut all, mut last) = (Acknowledged::default(), Acknowledged::default());
    let (mut tags, mut met) = (Tags::default(), Met::default());
    let mut cursor = None;
    let mut round = 0;
    while round < kills() || !met.enough() || all.images < IMAGES || !all.is_of_every_kind() {
        assert!(round < kills() + ENOUGH, "too little was done to say anything: {}; {met:?}", all.counts());
        let server = start(root.path(), round, &mut met);
        let client = server.client();
        check(&client, root.path(), &last).await;
        check_uploads(&client, &last.cut).await;
        tags.check(&client, &last.written).await;
        cursor = Some(match cursor {
            Some(cursor) => check_feed(&client, cursor, &last).await,
            None => client.cursor().await,
        });
        if round % 10 == 1 {
            check_what_is_visible(&client).await;
        }
        all.add(std::mem::take(&mut last));
        last = push_and_kill(server, root.path(), round, &mut met).await;
        for start in 0..Round::of(round).starts {
            let after = (round * 7919 + start * 104_729) as u64 % 40_000;
            met.kills_in_starts += usize::from(kill_a_start(root.path(), Duration::from_micros(after)));
        }
        if round % 100 == 50 {
            assert_sound(root.path());
        }
        round += 1;
    }
    assert_sound(root.path());
    let server = Server::start(root.path());
    let client = server.client();
    assert_eq!(std::fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
    check_uploads(&client, &last.cut).await;
    tags.check(&client, &last.written).await;
    tags.check_all(&client).await;
    all.add(last);
    check(&client, root.path(), &all).await;
    check_what_is_visible(&client).await;
    assert_eq!(std::fs::read_dir(root.path().join("quarantine")).unwrap().count(), 0);
    println!("{round} kills, {}; {met:?}", all.counts());
}
