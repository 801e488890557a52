//! What a server does by itself: it collects, and reads all content from time to time, so that damage is found while
//! another copy is still somewhere.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;

use super::{EVENTS, Event, Maintenance, Order, Schedule, Summary};
use crate::{metrics::Metrics, storage::Collected};

/// Before a scrub that failed is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(24 * 3600);

impl Maintenance {
    /// Does what is due, until the server ends.
    pub(crate) fn follow(&self, schedule: Schedule, metrics: &Arc<Metrics>) {
        if let Some(interval) = schedule.collect_every {
            tokio::spawn(self.clone().collect_every(interval, Arc::clone(metrics)));
        }
        if let Some(interval) = schedule.scrub_every {
            tokio::spawn(self.clone().scrub_every(interval, Arc::clone(metrics)));
        }
    }

    async fn collect_every(self, interval: Duration, metrics: Arc<Metrics>) {
        let order = Order::Collect { dry_run: false, grace_seconds: None };
        while self.end.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let start = Instant::now();
            match self.run(&order).await {
                Ok(Summary { collected, bytes, .. }) => {
                    let seconds = start.elapsed().as_secs_f64();
                    metrics.collection_ended(Some((collected, bytes)));
                    tracing::info!(collected, bytes, seconds, "collection ended");
                }
                Err(error) => {
                    metrics.collection_ended(None);
                    tracing::error!(error, "collection failed");
                }
            }
        }
    }

    /// The last time is kept in the storage, so that restarts don't put it off for ever.
    async fn scrub_every(self, interval: Duration, metrics: Arc<Metrics>) {
        loop {
            let since =
                self.storage.last_scrub().and_then(|last| SystemTime::now().duration_since(last).ok());
            let wait = interval.saturating_sub(since.unwrap_or_default());
            if self.end.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            let start = Instant::now();
            match self.run(&Order::Scrub).await {
                Ok(Summary { problems, .. }) => {
                    let seconds = start.elapsed().as_secs_f64();
                    metrics.scrub_ended();
                    tracing::info!(problems, seconds, "scrub ended");
                    match self.storage.scrubbed() {
                        Ok(()) => continue,
                        Err(error) => tracing::error!(%error, "that content was scrubbed is not kept"),
                    }
                }
                Err(error) => tracing::error!(error, "scrub failed"),
            }
            // What stopped it may go on for a while.
            if self.end.run_until_cancelled(tokio::time::sleep(interval.min(AFTER_FAILURE))).await.is_none() {
                return;
            }
        }
    }

    /// Carries an order out and logs what comes of it.
    async fn run(&self, order: &Order) -> Result<Summary, String> {
        let (sender, mut events) = mpsc::channel(EVENTS);
        let working = tokio::spawn(self.clone().carry_out(order.clone(), sender));
        let mut end = Err("it ended early".to_owned());
        while let Some(event) = events.recv().await {
            match event {
                Event::Collected(Collected { kind, path, bytes }) => {
                    tracing::debug!(?kind, path, bytes, "collected");
                }
                Event::Problem(problem) => {
                    tracing::error!(path = problem.path, done = problem.done, "{}", problem.what);
                }
                Event::Done(summary) => end = Ok(summary),
                Event::Failed(error) => end = Err(error),
            }
        }
        let _ = working.await;
        end
    }
}
