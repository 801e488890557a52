//! `berth-registry replicate`: copies from any registry to any other one, once or as things are pushed.
//!
//! ```text
//!   args ──► plan ──► run ──► repository (compare) ──► images ──► oci::copy
//!                      └────► follow (feed) ─────────────┘
//!   tally ◄── what was done            ──► report, listener
//! ```

mod args;
mod circles;
mod compare;
mod deleting;
mod families;
mod filters;
mod follow;
mod images;
mod listener;
mod pattern;
mod plan;
mod registry;
mod report;
mod repository;
mod run;
mod sweep;
mod tally;
mod workers;

use std::process::ExitCode;

use channel::replication::{Phase, Plan, Progress, Reason};
use tokio::signal::unix::{SignalKind, signal};

pub use self::args::ReplicateArgs;
use self::{
    args::Telling,
    plan::{InvalidPlan, Setup},
    run::{Run, Side, Stop},
    tally::Tally,
};

/// How a run ended, and what the program ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Equal = 0,
    ImagesFailed = 1,
    PlanWrong = 2,
    Source = 3,
    Target = 4,
    DeletionsStopped = 5,
    TimedOut = 6,
    Stopped = 7,
}

/// Carries out what the command line says. Needs a default provider of rustls.
#[must_use]
pub fn replicate(args: ReplicateArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(carry_out(args)),
        Err(error) => {
            tracing::error!(%error, "failed to start");
            Ended::ImagesFailed
        }
    };
    ExitCode::from(ended as u8)
}

async fn carry_out(args: ReplicateArgs) -> Ended {
    let (plan, Telling { termination_log, channel }) = args.split();
    let tally = Tally::default();
    let ended = tokio::select! {
        ended = work(plan, tally.clone()) => ended,
        ended = serve(channel, tally.clone()) => ended,
        () = report::tell(tally.clone()) => Ended::Stopped,
        ended = stopped() => ended,
    };
    tally.phase(Phase::Ended);
    report::end(&tally.progress(), termination_log.as_deref());
    ended
}

/// Does what the plan says.
async fn work(plan: Result<Plan, InvalidPlan>, tally: Tally) -> Ended {
    match run(plan, &tally).await {
        Ok(()) => verdict(&tally),
        Err(stop) => {
            tally.problem(stop.reason(), stop.to_string());
            tracing::error!("{stop}");
            match stop {
                Stop::Plan(_) => Ended::PlanWrong,
                Stop::End { side: Side::Source, .. } => Ended::Source,
                Stop::End { side: Side::Target, .. } => Ended::Target,
                Stop::TimedOut(_) => Ended::TimedOut,
            }
        }
    }
}

async fn run(plan: Result<Plan, InvalidPlan>, tally: &Tally) -> Result<(), Stop> {
    let setup = Setup::try_from(plan?)?;
    let follow = setup.follow.clone();
    let run = Run::begin(setup, tally.clone()).await?;
    match follow {
        Some(follow) => run.follow(&follow).await,
        None => run.compare().await,
    }
}

/// What a run that went to its end came to.
fn verdict(tally: &Tally) -> Ended {
    tally.conclude();
    ended(&tally.progress())
}

fn ended(progress: &Progress) -> Ended {
    match progress.problem.as_ref().map(|problem| problem.reason) {
        None => Ended::Equal,
        Some(Reason::SourceUnreachable | Reason::SourceUnauthorized) => Ended::Source,
        Some(Reason::TargetUnreachable | Reason::TargetUnauthorized | Reason::TargetFull) => Ended::Target,
        Some(Reason::DeletionsStopped) => Ended::DeletionsStopped,
        Some(Reason::TimedOut) => Ended::TimedOut,
        Some(_) => Ended::ImagesFailed,
    }
}

/// Lets an operator ask, if it is to; never ends but by failing.
async fn serve(channel: Option<(std::net::SocketAddr, ::channel::tls::Files)>, tally: Tally) -> Ended {
    let Some((address, files)) = channel else { return std::future::pending().await };
    match listener::listen(address, files, tally.clone()).await {
        Ok(serving) => serving.await,
        Err(error) => {
            tally.problem(Reason::InvalidPlan, error.to_string());
            tracing::error!("{error}");
        }
    }
    Ended::PlanWrong
}

/// SIGTERM or SIGINT.
async fn stopped() -> Ended {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ended::Stopped
}
