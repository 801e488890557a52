//! Collection and checking: by the clock in a server, and on demand by `berth-registry gc` and `check`, which go
//! through the server where one has the root.

mod command;
mod control;
mod schedule;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

pub use self::command::{CheckArgs, GcArgs, ScheduleArgs, check, gc};
pub(crate) use self::control::listen;
use crate::storage::{Collected, Collecting, Error, Problem, Severity, Storage};

/// In a server maintenance works so long before it leaves the machine to requests.
const STRETCH: Duration = Duration::from_millis(5);
/// For as long again, and a scrub, which reads everything, for so many times as long.
const SCRUB_PAUSES: u32 = 9;
/// Events on their way to who ordered them.
const EVENTS: usize = 64;

/// What a server does by itself, and what to spare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// None where it is only on demand.
    pub(crate) collect_every: Option<Duration>,
    pub(crate) grace: Duration,
    /// None for never.
    pub(crate) scrub_every: Option<Duration>,
}

/// What can be ordered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Order {
    Collect {
        dry_run: bool,
        grace_seconds: Option<u64>,
    },
    Check {
        repair: bool,
    },
    /// Content alone.
    Scrub,
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
        Order::Check { .. } | Order::Scrub => {
            let mut report = |problem: Problem| {
                summary.problems += 1;
                summary.damage += u64::from(problem.severity == Severity::Damage && problem.done.is_none());
                tell(Event::Problem(problem));
            };
            match order {
                Order::Check { repair } => storage.verify(*repair, &mut report, go_on)?,
                _ => storage.scrub(&mut report, go_on)?,
            }
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

    /// Sends what comes of an order, and ends early when nobody listens any more.
    async fn carry_out(self, order: Order, events: mpsc::Sender<Event>) {
        let one_at_a_time = Arc::clone(&self.one_at_a_time).lock_owned().await;
        let work = move || {
            let _one_at_a_time = one_at_a_time;
            let mut stretch = Instant::now();
            let pauses = if matches!(order, Order::Scrub) { SCRUB_PAUSES } else { 1 };
            let mut go_on = || {
                if stretch.elapsed() > STRETCH {
                    std::thread::sleep(stretch.elapsed() * pauses);
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
