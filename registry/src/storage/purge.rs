//! Emptying a path: its tags, manifests and blobs go from the repositories that it governs, one by one, as if somebody
//! deleted them. It may end early and be begun again at any time. Content goes with the collection.

use std::time::Instant;

use oci::{Digest, Reference, RepoName};

use super::{Backend, Deleted, Error, Storage, ledger::Scope};

/// Tags that are looked at together.
const PAGE: usize = 1000;

/// What became of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purged {
    /// Tags, manifests and blobs that went.
    pub(crate) removed: u64,
    /// Nothing was left when it was looked at.
    pub(crate) is_done: bool,
}

impl Storage {
    /// Empties the repositories that a path governs, or would govern if it were in the policy, until a time. None where
    /// it can't be a path.
    pub(crate) async fn purge(&self, path: &str, until: Instant) -> Result<Option<Purged>, Error> {
        let Some(scope) = self.governing().with(path) else { return Ok(None) };
        let mut purge = Purge { storage: self, until, removed: 0 };
        let mut is_done = true;
        for repository in self.governed(scope).await? {
            is_done &= purge.repository(&repository).await?;
        }
        Ok(Some(Purged { removed: purge.removed, is_done }))
    }

    /// All names that a path governs, under some of which there may be nothing.
    async fn governed(&self, scope: Scope) -> Result<Vec<RepoName>, Error> {
        match &self.backend {
            Backend::Files(files) => {
                files
                    .run(move |store| {
                        let mut names = Vec::new();
                        store.governed(&scope, &mut |name| {
                            names.push(name);
                            Ok(true)
                        })?;
                        Ok(names)
                    })
                    .await
            }
            Backend::Objects(objects) => objects.governed(&scope).await,
        }
    }

    /// Digests of a repository's manifests, and of its blobs.
    async fn contents(&self, repository: RepoName) -> Result<(Vec<Digest>, Vec<Digest>), Error> {
        match &self.backend {
            Backend::Files(files) => files.run(move |store| store.contents(&repository)).await,
            Backend::Objects(objects) => objects.contents(&repository).await,
        }
    }
}

struct Purge<'a> {
    storage: &'a Storage,
    until: Instant,
    removed: u64,
}

impl Purge<'_> {
    /// False where something is left.
    async fn repository(&mut self, name: &RepoName) -> Result<bool, Error> {
        if !self.tags(name).await? {
            return Ok(false);
        }
        let (manifests, blobs) = self.storage.contents(name.clone()).await?;
        Ok(self.manifests(name, manifests).await? && self.blobs(name, blobs).await?)
    }

    async fn tags(&mut self, name: &RepoName) -> Result<bool, Error> {
        let mut last = None;
        while let Some(page) = self.storage.tags(name.clone(), last, PAGE).await? {
            for tag in &page.0 {
                if self.is_late() {
                    return Ok(false);
                }
                if let Ok(tag) = tag.parse() {
                    let deleted =
                        self.storage.delete_manifest(name.clone(), Reference::Tag(tag), None).await?;
                    self.note(&deleted);
                }
            }
            if !page.1 {
                break;
            }
            last = page.0.last().cloned();
        }
        Ok(true)
    }

    /// Those that another one needs go after that: each round takes at least the outermost.
    async fn manifests(&mut self, name: &RepoName, mut left: Vec<Digest>) -> Result<bool, Error> {
        while !left.is_empty() {
            let mut needed = Vec::new();
            let count = left.len();
            for digest in left {
                if self.is_late() {
                    return Ok(false);
                }
                let reference = Reference::Digest(digest.clone());
                let deleted = self.storage.delete_manifest(name.clone(), reference, None).await?;
                if !self.note(&deleted) {
                    needed.push(digest);
                }
            }
            // Somebody is pushing.
            if needed.len() == count {
                return Ok(false);
            }
            left = needed;
        }
        Ok(true)
    }

    async fn blobs(&mut self, name: &RepoName, blobs: Vec<Digest>) -> Result<bool, Error> {
        let mut is_done = true;
        for digest in blobs {
            if self.is_late() {
                return Ok(false);
            }
            let deleted = self.storage.delete_blob(name.clone(), digest).await?;
            is_done &= self.note(&deleted);
        }
        Ok(is_done)
    }

    /// Whether it is gone.
    fn note(&mut self, deleted: &Deleted) -> bool {
        self.removed += u64::from(*deleted == Deleted::Done);
        !matches!(deleted, Deleted::Needed(_))
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use bytes::Bytes;
    use oci::Algorithm;

    use super::*;
    use crate::storage::{Finished, Limits};

    async fn push(storage: &Storage, name: &RepoName, content: &'static str) {
        let id = storage.begin_upload("owner".into(), name.clone(), Algorithm::Sha256).await.unwrap();
        let upload = storage.open_upload(name.clone(), id).await.unwrap();
        let mut body = futures::stream::iter([Ok::<_, Infallible>(Bytes::from(content))]);
        let (upload, _) = storage.receive(upload, &mut body).await.unwrap();
        let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
        assert_eq!(storage.finish_upload(upload, digest).await.unwrap(), Finished::Stored);
    }

    #[tokio::test]
    async fn what_was_not_done_in_time_is_done_the_next_time() {
        let root = tempfile::tempdir().unwrap();
        let storage = Storage::open(root.path(), Limits::default()).unwrap();
        let name = "team/app".parse().unwrap();
        push(&storage, &name, "one").await;
        push(&storage, &name, "two").await;
        let late = storage.purge("team/*", Instant::now()).await.unwrap();
        assert_eq!(late, Some(Purged { removed: 0, is_done: false }));
        let later = Instant::now() + Duration::from_secs(60);
        let done = storage.purge("team/*", later).await.unwrap();
        assert_eq!(done, Some(Purged { removed: 2, is_done: true }));
        assert_eq!(storage.purge("team/", later).await.unwrap(), None);
    }
}
