//! One pace for all transfers: pieces get their time one after the other, so that together they are never faster.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Bytes that go at once at most.
const MOST: u64 = 16 << 10;

/// So many bytes a second.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When the next piece may go.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), next: Mutex::new(None) }
    }

    /// How many bytes go at once: so few that with many transfers, each gets its turn before an end loses patience.
    pub(super) fn piece(&self) -> usize {
        usize::try_from((self.bytes_per_second / 8).clamp(1, MOST)).unwrap_or(1)
    }

    /// Waits until these bytes may go.
    pub(super) async fn take(&self, bytes: usize) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            let nanoseconds = (bytes as u128 * 1_000_000_000) / u128::from(self.bytes_per_second);
            *next = Some(at + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX / 4)));
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_of_many_goes_on_before_an_end_loses_patience() {
        for rate in [1000, 20_000, 70_000, 10_000_000] {
            let (pace, start) = (Pace::new(rate), Instant::now());
            let turn = || pace.take(pace.piece());
            futures::future::join_all((0..64).map(|_| turn())).await;
            turn().await;
            assert!(start.elapsed().as_secs() < 10, "{rate}: {:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn together_they_are_never_faster() {
        let (pace, start) = (Pace::new(1000), Instant::now());
        let one = async {
            for _ in 0..10 {
                pace.take(100).await;
            }
        };
        let other = async {
            for _ in 0..10 {
                pace.take(100).await;
            }
        };
        tokio::join!(one, other);
        pace.take(0).await;
        let took = start.elapsed();
        assert!((1990..2010).contains(&took.as_millis()), "{took:?}");
    }
}
