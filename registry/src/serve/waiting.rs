//! How many answers over HTTP/2 wait for clients to take them. Each holds a piece of a blob in memory, and one client can
//! have a hundred on each of its connections, so that where there are too many, those who take nothing go.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

/// Where more wait, connections end whose client has taken nothing for [`STALLED`].
pub(super) const MANY: usize = 1024;
/// Never more for long: those who have taken nothing for longest go, however short that is.
pub(super) const TOO_MANY: usize = 2 * MANY;
/// Who takes nothing for so long is not just slow.
pub(super) const STALLED: Duration = Duration::from_secs(5);
/// How often it is looked whether there are still many.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// The answers of one listener that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    now: AtomicUsize,
    many: Notify,
}

impl Waiting {
    pub(super) fn add(&self) {
        if self.now.fetch_add(1, Ordering::Relaxed) >= MANY {
            self.many.notify_one();
        }
    }

    pub(super) fn remove(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn are_many(&self) -> bool {
        self.now.load(Ordering::Relaxed) > MANY
    }

    /// Until there are many.
    pub(super) async fn many(&self) {
        self.many.notified().await;
    }
}
