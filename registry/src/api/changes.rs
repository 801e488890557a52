//! Requests that change something. Once begun they end, also where the client goes away: nothing is left halfway. So
//! only so many begin; the others wait, and are gone with their clients.

use super::shares::{Memory, Shares, Taken, Who};
use crate::error::Error;

/// Fewer than the runtime has threads for what blocks (512), so that reading always finds some.
const AT_ONCE: usize = 384;
/// KiB of manifests that are held in memory at once, however many are on their way.
const MANIFESTS: usize = 128 << 10;
/// Taken for a manifest at once, so that most take memory once.
const STEP: usize = 64 << 10;

/// The changes under way.
#[derive(Debug)]
pub(crate) struct Changes {
    places: Shares,
    manifests: Shares,
}

impl Default for Changes {
    fn default() -> Self {
        Self::at_once(AT_ONCE, MANIFESTS)
    }
}

impl Changes {
    /// So many, and so many KiB of manifests.
    pub(super) fn at_once(places: usize, manifests: usize) -> Self {
        Self { places: Shares::new(places), manifests: Shares::new(manifests) }
    }

    /// Waits until another one may begin; it is under way until what this returns is dropped.
    pub(super) async fn begin(&self, who: &Who) -> Result<Taken, Error> {
        self.places.of(who).take(1).await
    }

    /// Memory for a manifest.
    pub(super) fn manifest(&self, who: &Who) -> Memory {
        Memory::new(self.manifests.of(who), STEP)
    }

    #[cfg(test)]
    pub(super) fn memory_left(&self) -> usize {
        self.manifests.left()
    }
}
