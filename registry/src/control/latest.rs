//! Facts that may take long to find out, and nobody waits for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::storage;

/// An answer waits so long for the newest value; then the last known one has to do.
const PATIENCE: Duration = Duration::from_secs(1);
/// What took long is looked for again only after so many times as long.
const REST: u32 = 10;

/// The last known value of something. It is looked for once at a time, whoever gives up waiting.
#[derive(Debug)]
pub(super) struct Latest<T> {
    known: Mutex<Option<T>>,
    /// When it may be looked for again; held by whoever does.
    pub(super) turn: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

impl<T: Copy + Send + 'static> Latest<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { known: Mutex::default(), turn: Arc::default() })
    }

    /// The value that `find` finds, or the last one that was found where that takes too long, was done a moment ago
    /// or fails. None where there never was one.
    pub(super) async fn get(
        self: &Arc<Self>,
        find: impl Future<Output = Result<T, storage::Error>> + Send + 'static,
    ) -> Option<T> {
        let this = Arc::clone(self);
        let found = async move {
            let mut turn = Arc::clone(&this.turn).lock_owned().await;
            if turn.is_some_and(|rested| Instant::now() < rested) {
                return;
            }
            // It goes on where nobody waits any more.
            let finding = tokio::spawn(async move {
                let started = Instant::now();
                match find.await {
                    Ok(found) => *this.known() = Some(found),
                    Err(error) => tracing::error!(%error, "failed to look at the storage"),
                }
                let took = started.elapsed();
                *turn = (took > PATIENCE).then(|| Instant::now() + took * REST);
            });
            let _ = finding.await;
        };
        let _ = tokio::time::timeout(PATIENCE, found).await;
        *self.known()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<T>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    async fn slow(value: oneshot::Receiver<u64>) -> Result<u64, storage::Error> {
        Ok(value.await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_takes_long_and_it_is_looked_for_once_at_a_time() {
        let latest = Latest::new();
        assert_eq!(latest.get(async { Ok(1) }).await, Some(1));
        assert_eq!(latest.get(async { Ok(2) }).await, Some(2));
        let (sender, receiver) = oneshot::channel();
        let started = Instant::now();
        assert_eq!(latest.get(slow(receiver)).await, Some(2));
        assert_eq!(latest.get(async { unreachable!("one is being looked for") }).await, Some(2));
        assert!(started.elapsed() <= 3 * PATIENCE);
        sender.send(3).unwrap();
        // It took two seconds: the next look is due in twenty.
        assert_eq!(latest.get(async { unreachable!("a moment ago") }).await, Some(3));
        tokio::time::sleep(PATIENCE * 3 * REST).await;
        assert_eq!(latest.get(async { Ok(4) }).await, Some(4));
    }

    #[tokio::test]
    async fn failing_leaves_what_was_known() {
        let latest = Latest::new();
        let failing = || async { Err(storage::Error::Damaged { path: "a".into(), what: "it is a test" }) };
        assert_eq!(latest.get(failing()).await, None::<u64>);
        assert_eq!(latest.get(async { Ok(1) }).await, Some(1));
        assert_eq!(latest.get(failing()).await, Some(1));
    }
}
