//! Collection and checking: by the clock in a server, and on demand by `berth-registry gc` and `check`, which go
//! through the server where one has the root.

mod command;
mod control;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

pub use self::command::{CheckArgs, CollectionArgs, GcArgs, check, gc};
pub(crate) use self::control::listen;
use crate::storage::{Collected, Collecting, Error, Problem, Severity, Storage};

/// In a server maintenance works so long before it leaves the machine to requests for as long.
const STRETCH: Duration = Duration::from_millis(5);
/// Events on their way to who ordered them.
const EVENTS: usize = 64;

/// When to collect and what to spare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Collection {
    /// None where it is only on demand.
    pub(crate) interval: Option<Duration>,
    pub(crate) grace: Duration,
}

/// What can be ordered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Order {
    Collect { dry_run: bool, grace_seconds: Option<u64> },
    Check { repair: bool },
}

/// What comes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Event {
    Collected(Collected),
    Problem(Problem),
    /// The last one.
    Done(Summary),
    /// The last one.
    Failed(String),
}

/// All events in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    collected: u64,
    /// That the disk got, or would get, back.
    bytes: u64,
    problems: u64,
    /// Problems that are damage and are still there.
    damage: u64,
}

/// Carries an order out, here and now; blocks. False where `go_on` ended it.
fn perform(
    storage: &Storage,
    order: &Order,
    grace: Duration,
    tell: &mut dyn FnMut(Event),
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    match order {
        Order::Collect { dry_run, grace_seconds } => {
            let grace = grace_seconds.map_or(grace, Duration::from_secs);
            let mut report = |collected: Collected| {
                summary.collected += 1;
                summary.bytes += collected.bytes;
                tell(Event::Collected(collected));
            };
            storage.collect(Collecting { dry_run: *dry_run, grace }, &mut report, go_on)?;
        }
        Order::Check { repair } => {
            let mut report = |problem: Problem| {
                summary.problems += 1;
                summary.damage += u64::from(problem.severity == Severity::Damage && problem.done.is_none());
                tell(Event::Problem(problem));
            };
            storage.verify(*repair, &mut report, go_on)?;
        }
    }
    Ok(summary)
}

/// Maintenance in a server: one thing at a time, with pauses, until the server ends.
#[derive(Clone, Debug)]
pub(crate) struct Maintenance {
    storage: Storage,
    grace: Duration,
    end: CancellationToken,
    one_at_a_time: Arc<Mutex<()>>,
}

impl Maintenance {
    pub(crate) fn new(storage: Storage, grace: Duration, end: CancellationToken) -> Self {
        Self { storage, grace, end, one_at_a_time: Arc::default() }
    }

    /// Collects at each interval, until the server ends.
    pub(crate) async fn every(self, interval: Duration) {
        let order = Order::Collect { dry_run: false, grace_seconds: None };
        while self.end.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let start = Instant::now();
            let (sender, mut events) = mpsc::channel(EVENTS);
            let working = tokio::spawn(self.clone().carry_out(order.clone(), sender));
            while let Some(event) = events.recv().await {
                match event {
                    Event::Collected(Collected { kind, path, bytes }) => {
                        tracing::debug!(?kind, path, bytes, "collected");
                    }
                    Event::Done(Summary { collected, bytes, .. }) => {
                        let seconds = start.elapsed().as_secs_f64();
                        tracing::info!(collected, bytes, seconds, "collection ended");
                    }
                    Event::Failed(error) => tracing::error!(error, "collection failed"),
                    Event::Problem(_) => {}
                }
            }
            let _ = working.await;
        }
    }

    /// Sends what comes of an order, and ends early when nobody listens any more.
    async fn carry_out(self, order: Order, events: mpsc::Sender<Event>) {
        let one_at_a_time = Arc::clone(&self.one_at_a_time).lock_owned().await;
        let work = move || {
            let _one_at_a_time = one_at_a_time;
            let mut stretch = Instant::now();
            let mut go_on = || {
                if stretch.elapsed() > STRETCH {
                    std::thread::sleep(stretch.elapsed());
                    stretch = Instant::now();
                }
                !self.end.is_cancelled() && !events.is_closed()
            };
            let mut tell = |event| {
                // Nobody listens: it ends at the next step.
                let _ = events.blocking_send(event);
            };
            let done = perform(&self.storage, &order, self.grace, &mut tell, &mut go_on);
            let last = match done {
                Ok(_) if self.end.is_cancelled() => Event::Failed("the server is shutting down".to_owned()),
                Ok(summary) => Event::Done(summary),
                Err(error) => Event::Failed(error.to_string()),
            };
            let _ = events.blocking_send(last);
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error, "maintenance ended early");
        }
    }
}
