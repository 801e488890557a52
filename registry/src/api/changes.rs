//! Requests that change something. Once begun they end, also where the client goes away: nothing is left halfway. So
//! only so many begin; the others wait, and are gone with their clients.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// Fewer than the runtime has threads for what blocks (512), so that reading always finds some.
const AT_ONCE: usize = 384;
/// Then the client should come back later.
const PATIENCE: Duration = Duration::from_secs(30);

/// The changes under way.
#[derive(Debug)]
pub(crate) struct Changes(Arc<Semaphore>);

impl Default for Changes {
    fn default() -> Self {
        Self::at_once(AT_ONCE)
    }
}

impl Changes {
    pub(super) fn at_once(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Waits until another one may begin; it is under way until what this returns is dropped.
    pub(super) async fn begin(&self) -> Result<OwnedSemaphorePermit, Error> {
        let place = tokio::time::timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or(Error::Busy)
    }
}
