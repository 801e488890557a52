//! What lies in the paths of the policy, and their quotas: for both kinds of storage.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use oci::RepoName;

use super::{Backend, Error, Governing, Storage, files::Files, ledger::Tally};

/// Counting begins no path later than this after it was asked for.
const COUNTING: Duration = Duration::from_secs(3);

impl Storage {
    /// Goes by the paths of another policy: at once, or where changes are under way when they have ended. Within a
    /// runtime.
    pub(crate) fn govern(&self, governing: Arc<Governing>) {
        match &self.backend {
            Backend::Files(files) => files.govern(governing),
            Backend::Objects(objects) => objects.govern(governing),
        }
    }

    /// What lies in each path of the policy. What takes long to count is left out, and counted on when somebody asks
    /// again.
    pub(crate) async fn path_usage(&self) -> Result<Vec<(String, Tally)>, Error> {
        match &self.backend {
            Backend::Files(files) => files.path_usage().await,
            Backend::Objects(objects) => objects.path_usage().await,
        }
    }

    /// Which path governs what.
    pub(super) fn governing(&self) -> Arc<Governing> {
        match &self.backend {
            Backend::Files(files) => files.store().ledger.governing(),
            Backend::Objects(objects) => objects.governing(),
        }
    }

    /// Fails where so many bytes are more than a repository's quota, whatever is there.
    pub(crate) async fn check_quota_for(&self, repository: RepoName, bytes: u64) -> Result<(), Error> {
        match &self.backend {
            Backend::Files(files) => files.check_quota_for(repository, bytes).await,
            Backend::Objects(objects) => objects.governing().check(&repository, bytes),
        }
    }
}

impl Files {
    fn govern(&self, governing: Arc<Governing>) {
        if !self.store().ledger.govern(governing) {
            let store = Arc::clone(self.store());
            tokio::task::spawn_blocking(move || store.ledger.turn());
        }
    }

    async fn path_usage(&self) -> Result<Vec<(String, Tally)>, Error> {
        self.run(|store| Ok(store.ledger.usage(store, Instant::now() + COUNTING))).await
    }

    async fn check_quota_for(&self, repository: RepoName, bytes: u64) -> Result<(), Error> {
        self.run(move |store| store.ledger.governing().check(&repository, bytes)).await
    }
}
