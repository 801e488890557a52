//! `make bench-lag`: how long after a push an image is at the target of a Replication, while a run follows what is pushed,
//! and from none.
//!
//! Needs a cluster in which the operator is deployed. Everything is in namespaces of its own, gone afterwards.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use crds::{Replication, replication::Phase};
use e2e::{Result, Space, bail, ensure, pair, remote::Remote, replication, tiny, wait, with_namespace};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

/// How long between two looks at the target.
const LOOK: Duration = Duration::from_millis(20);

/// What is measured.
#[derive(Debug, Parser)]
struct Arguments {
    /// Pushes while a run follows, one after the other.
    #[arg(long, default_value_t = 100)]
    following: usize,
    /// Pushes while none runs.
    #[arg(long, default_value_t = 20)]
    from_none: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { following, from_none } = Arguments::parse();
    with_namespace("lag_following", async |space| while_following(space, following).await).await;
    with_namespace("lag_from_none", async |space| from_none_on(space, from_none).await).await;
    ExitCode::SUCCESS
}

async fn while_following(space: &Space, pushes: usize) -> Result<()> {
    let ends = following(space).await?;
    let mut took = Vec::new();
    for number in 0..pushes {
        took.push(push(&ends, &format!("following-{number}")).await?);
    }
    tell("while a run follows", took);
    Ok(())
}

async fn from_none_on(space: &Space, pushes: usize) -> Result<()> {
    let ends = following(space).await?;
    let mut took = Vec::new();
    for number in 0.. {
        if took.len() == pushes {
            break;
        }
        none_runs(space).await?;
        let lag = push(&ends, &format!("none-{number}")).await?;
        let run = replication::target(space, "pair", "the run to tell of it", |target| {
            target.phase == Phase::Following && target.images.done > 0
        })
        .await?;
        // One that found an earlier push as well had begun before this one.
        if run.images.total == 1 {
            took.push(lag);
        }
    }
    tell("from none", took);
    Ok(())
}

/// The two ends, once a run follows.
async fn following(space: &Space) -> Result<(Remote, Remote)> {
    let ends = pair::two(space, "Writer").await?;
    replication::apply(space, "pair", &pair::between(&json!({"type": "OnPush"}), "Ignore")).await?;
    replication::target(space, "pair", "a run to follow", |target| target.phase == Phase::Following).await?;
    Ok(ends)
}

/// Ends the run that follows, without waiting until it has nothing to do.
async fn none_runs(space: &Space) -> Result<()> {
    suspend(space, true).await?;
    replication::target(space, "pair", "it to be suspended", |target| target.phase == Phase::Suspended)
        .await?;
    wait::poll("the Job to be gone", async || {
        let jobs = space.api::<Job>().list(&ListParams::default()).await?;
        let ended = |job: &Job| job.status.as_ref().is_some_and(|status| status.completion_time.is_some());
        ensure!(jobs.items.iter().all(ended), "a Job has not ended");
        Ok(())
    })
    .await?;
    suspend(space, false).await?;
    replication::target(space, "pair", "it to wait for pushes", |target| target.phase == Phase::Idle)
        .await
        .map(drop)
}

async fn suspend(space: &Space, suspend: bool) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
    space.api::<Replication>().patch("pair", &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Pushes an image with a layer of its own; the time from when that is acknowledged until it is at the target.
async fn push((here, there): &(Remote, Remote), tag: &str) -> Result<Duration> {
    let digest = tiny::push(here.http(), pair::APP, tag, tag).await?;
    let began = Instant::now();
    while pair::digest_of(there, pair::APP, tag).await?.as_ref() != Some(&digest) {
        if began.elapsed() > wait::LIMIT {
            bail!("{tag} has not arrived");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(began.elapsed())
}

fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |hundredth: usize| took.get((took.len() * hundredth).div_ceil(100).saturating_sub(1));
    if let (Some(p50), Some(p95), Some(most)) = (at(50), at(95), took.last()) {
        println!("{what}: p50 {p50:.2?}, p95 {p95:.2?}, at most {most:.2?} ({} pushes)", took.len());
    }
}
