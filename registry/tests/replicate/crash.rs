//! kill -9 of the copy at any moment, SIGTERM, and a target without room.

use std::{collections::BTreeSet, path::Path, process::Stdio, time::Duration};

use http::StatusCode;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    client::Client,
    copying::{ALL, fill},
    image::{image, noise},
    proxy::{Asked, Proxy},
    random::Random,
    server::{Server, berth_registry},
    world::{World, skip},
};

/// Kills; more with `BERTH_TEST_KILLS`.
const KILLS: u64 = 8;

#[rstest]
#[case::of_foreign_registries(false)]
#[case::of_berths(true)]
#[tokio::test]
async fn what_was_finished_before_kill_9_is_not_sent_again(#[case] berths: bool) {
    let world = World::that_are_berths(berths).await;
    fill(&world.source.client()).await;
    let mut random = Random::new();
    for kill in 0..kills() {
        let seed = random.0;
        // Something large that is new each time, among what is small.
        let client = world.source.client();
        client.push_noise("many", Some(&format!("v{kill}")), 100 + kill, None).await;
        push_large(&client, kill, 1 + random.below(3)).await;
        let (finished, before) = (finished(&world.to), world.to.asked().len());
        let mut child = world.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let requests = before + usize::try_from(random.below(60)).unwrap();
        while world.to.asked().len() < requests && child.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(random.below(100))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(sent_again(&world.to, before, &finished), Vec::<String>::new(), "seed {seed}");
    }
    let (finished, before) = (finished(&world.to), world.to.asked().len());
    world.copy().await;
    world.is_equal(&ALL).await;
    world.is_equal(&["many", "large"]).await;
    assert!(!finished.is_empty());
    assert_eq!(sent_again(&world.to, before, &finished), Vec::<String>::new());
}

/// An image with a blob of so many MiB.
async fn push_large(client: &Client, number: u64, mebibytes: u64) {
    let (config, layer) =
        (format!("{{\"large\":{number}}}"), noise(number, usize::try_from(mebibytes << 20).unwrap()));
    client.push_blob("large", config.clone()).await;
    client.push_blob("large", layer.clone()).await;
    let document = image(config.as_bytes(), &[&layer]);
    client.put_manifest("large", &format!("v{number}"), &document).await.expect(StatusCode::CREATED);
}

fn kills() -> u64 {
    std::env::var("BERTH_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap())
}

/// Into which repository which blob went.
fn pushed(asked: &Asked) -> Option<String> {
    let digest = asked.path.split("digest=").nth(1)?;
    let repository = asked.path.split("/blobs/").next()?;
    (asked.kind() == "PUT upload").then(|| format!("{repository} {digest}"))
}

/// Blobs of which the target has said by now that it has them.
pub(crate) fn finished(target: &Proxy) -> BTreeSet<String> {
    let asked = target.asked().into_iter().filter(|asked| asked.status == Some(StatusCode::CREATED));
    asked.filter_map(|asked| pushed(&asked)).collect()
}

/// Of these, what was sent since.
pub(crate) fn sent_again(target: &Proxy, since: usize, finished: &BTreeSet<String>) -> Vec<String> {
    let sent = target.asked().split_off(since);
    sent.iter().filter_map(pushed).filter(|digest| finished.contains(digest)).collect()
}

#[tokio::test]
async fn sigterm_ends_it_with_what_it_has() {
    let world = World::new().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("termination");
    // So slow that it can't be done.
    let mut command = world.command(&["--bytes-per-second", "1"]);
    command.arg("--termination-log").arg(&log).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while !world.to.asked().iter().any(|asked| asked.kind() == "PUT upload") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let ran = crate::world::understand(&output);
    assert_eq!(ran.code, 7, "{ran:#?}");
    assert_eq!(ran.progress.phase, ::channel::replication::Phase::Ended);
    let told: ::channel::replication::Progress =
        serde_json::from_slice(&std::fs::read(&log).unwrap()).unwrap();
    assert_eq!(told, ran.progress);
    assert_eq!(world.target.client().digest_of("a", "v1").await, None);
}

#[tokio::test]
async fn a_run_ends_when_its_time_is_over() {
    let world = World::new().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    let ran = world.run(&["--bytes-per-second", "1", "--timeout-seconds", "1"]).await;
    assert_eq!(ran.code, 6, "{ran:#?}");
    assert_eq!(ran.progress.problem.unwrap().reason, ::channel::replication::Reason::TimedOut);
}

/// Runs what follows with a small file system, almost full, mounted over the folder `$1`.
const ON_A_SMALL_DISK: &str =
    r#"mount -t tmpfs -o size=24m none "$1" && head -c 20M /dev/zero >"$1/filler" && shift && exec "$@""#;

/// Makes room on the disk, which only the processes on it see.
fn make_room(folder: &Path) {
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("root"));
    let filler = folder.join("filler");
    let fillers = processes.map(|root| root.join(filler.strip_prefix("/").unwrap()));
    assert!(fillers.filter(|filler| std::fs::remove_file(filler).is_ok()).count() > 0);
}

#[tokio::test]
async fn a_target_without_room_is_said() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let small_disk = || {
        let mut command = std::process::Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", ON_A_SMALL_DISK, "sh"]).arg(folders[1].path());
        command
    };
    if !small_disk().arg("true").status().is_ok_and(|status| status.success()) {
        return skip("a small file system can't be mounted: be root, or allow namespaces of users");
    }
    let program = berth_registry();
    let mut command = small_disk();
    command.arg(program.get_program()).args(program.get_args());
    let target = Server::launch(command, &folders[1].path().join("root"));
    let world = World::of(Server::start(folders[0].path()), target, folders).await;
    for seed in 1..25 {
        world.source.client().push_noise("a", Some(&format!("v{seed}")), seed, None).await;
    }
    let ran = world.run(&[]).await;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert_eq!(ran.progress.problem.as_ref().unwrap().reason, ::channel::replication::Reason::TargetFull);
    assert!(ran.progress.done > 0 && ran.progress.failed > 0, "{ran:#?}");

    make_room(world.target_root());
    world.copy().await;
    world.is_equal(&["a"]).await;
}
