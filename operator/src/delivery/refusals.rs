//! What the operator is not allowed to watch.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::runtime::watcher::Error;
use tokio::time::Instant;

/// Rights may come a moment after the operator, or be taken away and given anew by an upgrade.
const PATIENCE: Duration = Duration::from_secs(30);

/// A watch that is refused asks again sooner than this. One that succeeds after it was known what is there may have nothing
/// to tell.
const SILENCE: Duration = Duration::from_secs(120);

/// Of which kinds of objects the API server refuses to tell; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(Arc<Mutex<BTreeMap<String, Refusal>>>);

#[derive(Debug)]
struct Refusal {
    first: Instant,
    last: Instant,
}

impl Refusals {
    /// Notes what came of an attempt to watch this kind.
    pub(super) fn note(&self, kind: &str, error: Option<&Error>) {
        let mut refused = self.refused();
        match error {
            Some(error) if is_refusal(error) => {
                let now = Instant::now();
                let former = refused.remove(kind).filter(Refusal::holds);
                let first = former.map_or(now, |former| former.first);
                refused.insert(kind.to_owned(), Refusal { first, last: now });
            }
            // It tells nothing of rights.
            Some(_) => {}
            None => {
                refused.remove(kind);
            }
        }
    }

    /// Kinds that have been refused for a while, and still are.
    pub(super) fn lasting(&self) -> Vec<String> {
        let refused = self.refused();
        let lasting =
            refused.iter().filter(|(_, refusal)| refusal.holds() && refusal.first.elapsed() >= PATIENCE);
        lasting.map(|(kind, _)| kind.clone()).collect()
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<String, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refusal {
    fn holds(&self) -> bool {
        self.last.elapsed() < SILENCE
    }
}

fn is_refusal(error: &Error) -> bool {
    let (Error::InitialListFailed(source) | Error::WatchStartFailed(source)) = error else { return false };
    matches!(source, kube::Error::Api(status) if status.is_forbidden())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_counts_after_a_while_until_it_is_over_or_not_heard_of_again() {
        let status = serde_json::json!({"status": "Failure", "reason": "Forbidden", "code": 403});
        let status = serde_json::from_value(status).unwrap();
        let refusal = Error::WatchStartFailed(kube::Error::Api(status));
        let refusals = Refusals::default();
        refusals.note("secrets", Some(&refusal));
        assert!(refusals.lasting().is_empty());
        tokio::time::advance(PATIENCE).await;
        assert_eq!(refusals.lasting(), ["secrets"]);
        refusals.note("secrets", Some(&Error::NoResourceVersion));
        refusals.note("secrets", Some(&refusal));
        assert_eq!(refusals.lasting(), ["secrets"]);
        tokio::time::advance(SILENCE).await;
        assert!(refusals.lasting().is_empty());
        refusals.note("secrets", Some(&refusal));
        assert!(refusals.lasting().is_empty(), "it begins anew");
        tokio::time::advance(PATIENCE).await;
        assert_eq!(refusals.lasting(), ["secrets"]);
        refusals.note("secrets", None);
        assert!(refusals.lasting().is_empty());
    }
}
