//! Requests that change something. Once begun they end, also where the client goes away: nothing is left halfway. So
//! only so many begin; the others wait, and are gone with their clients.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::error::Error;

/// Fewer than the runtime has threads for what blocks (512), so that reading always finds some.
const AT_ONCE: usize = 384;
/// KiB of manifests that are held in memory at once, however many are on their way.
const MANIFESTS: u32 = 128 << 10;
/// Then the client should come back later.
const PATIENCE: Duration = Duration::from_secs(30);

/// The changes under way.
#[derive(Debug)]
pub(crate) struct Changes {
    places: Arc<Semaphore>,
    manifests: Semaphore,
}

impl Default for Changes {
    fn default() -> Self {
        Self::at_once(AT_ONCE, MANIFESTS)
    }
}

impl Changes {
    /// So many, and so many KiB of manifests.
    pub(super) fn at_once(places: usize, manifests: u32) -> Self {
        let manifests = Semaphore::new(usize::try_from(manifests).unwrap_or(Semaphore::MAX_PERMITS));
        Self { places: Arc::new(Semaphore::new(places)), manifests }
    }

    /// Waits until another one may begin; it is under way until what this returns is dropped.
    pub(super) async fn begin(&self) -> Result<OwnedSemaphorePermit, Error> {
        let place = tokio::time::timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or(Error::Busy)
    }

    /// Waits until there is memory for a manifest of so many bytes, and takes it until what this returns is dropped.
    pub(super) async fn hold_manifest(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Error> {
        let kib = u32::try_from(bytes.div_ceil(1024)).map_err(|_| Error::ManifestTooLarge)?;
        let memory = tokio::time::timeout(PATIENCE, self.manifests.acquire_many(kib)).await;
        memory.ok().and_then(Result::ok).ok_or(Error::Busy)
    }

    #[cfg(test)]
    pub(super) fn is_memory_left(&self) -> bool {
        self.manifests.available_permits() > 0
    }
}
