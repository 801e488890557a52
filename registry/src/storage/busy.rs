//! One request at a time for each upload session: a second one waits a moment for the first, then is told so.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::UploadId;

/// A client that lost its connection may be back before the server has noticed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sessions that a request works on now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    taken: Mutex<HashSet<UploadId>>,
    freed: Notify,
}

/// While it lives, the session is its holder's.
#[derive(Debug)]
pub(crate) struct Guard {
    id: UploadId,
    shared: Arc<Shared>,
}

impl Busy {
    /// None where another request does not end in time.
    pub(crate) async fn take(&self, id: UploadId) -> Option<Guard> {
        let taken = async {
            loop {
                let freed = self.0.freed.notified();
                tokio::pin!(freed);
                // Before looking, or a guard dropped in between would go unnoticed.
                freed.as_mut().enable();
                if let Some(guard) = self.try_take(id) {
                    return guard;
                }
                freed.await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.ok()
    }

    /// None where another request has it.
    pub(crate) fn try_take(&self, id: UploadId) -> Option<Guard> {
        let is_new = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        is_new.then(|| Guard { id, shared: Arc::clone(&self.0) })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.shared.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_waits_for_the_first() {
        let busy = Busy::default();
        let id = UploadId::random();
        let first = busy.take(id).await.unwrap();
        assert!(busy.try_take(id).is_none());
        assert!(busy.take(UploadId::random()).await.is_some(), "another session is free");
        let second = tokio::spawn({
            let busy = busy.clone();
            async move { busy.take(id).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(second.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let busy = Busy::default();
        let id = UploadId::random();
        let _first = busy.take(id).await.unwrap();
        assert!(busy.take(id).await.is_none());
    }
}
