//! What lies in the paths of the policy, and their quotas.
//!
//! Counted by listing whenever it matters: a request for each thousand of a repository's blobs and manifests, and one for
//! each of them. Pushes where there is a quota go one after the other in this process, so that it is exact there. Instances
//! do not know of each other's pushes under way: together they may exceed a quota by what all but one of them store at the
//! same time. Several would need an account of each path in the bucket, a value that is swapped before content joins a
//! repository and counted anew by collection.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use oci::{Digest, RepoName};
use tokio::sync::OwnedMutexGuard;

use super::{
    Objects,
    blobs::Membership,
    bucket::{AT_ONCE, LEAST_VALUE},
    keys,
};
use crate::storage::{
    Error, Governing, LastPush, Tally,
    ledger::Scope,
    walk::{Walk, everything},
};

/// For so long what was counted is good enough for who only looks.
const COUNTED: Duration = Duration::from_secs(10);

/// What is known of the paths.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    governing: std::sync::Mutex<Arc<Governing>>,
    /// Held by who pushes where there is a quota.
    pushing: Arc<tokio::sync::Mutex<()>>,
    counted: tokio::sync::Mutex<Option<Counted>>,
}

/// What lay in the paths of a policy.
#[derive(Debug)]
struct Counted {
    when: Instant,
    governing: Arc<Governing>,
    usage: Vec<(String, Tally)>,
}

impl Objects {
    pub(crate) fn govern(&self, governing: Arc<Governing>) {
        *self.shared.accounts.governing.lock().unwrap_or_else(PoisonError::into_inner) = governing;
    }

    pub(crate) fn governing(&self) -> Arc<Governing> {
        Arc::clone(&self.shared.accounts.governing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks whether a path's quota has room for what is about to come; to be held until it is there.
    pub(super) async fn take_in(
        &self,
        repository: &RepoName,
        digest: &Digest,
        size: u64,
    ) -> Result<Option<OwnedMutexGuard<()>>, Error> {
        let governing = self.governing();
        let Some(index) = governing.of(repository) else { return Ok(None) };
        let scope = Scope { governing, index };
        let Some(quota) = scope.governed().quota else { return Ok(None) };
        let one_at_a_time = Arc::clone(&self.shared.accounts.pushing).lock_owned().await;
        let mut seen = HashSet::new();
        let used = self.count(&scope, &mut seen).await?.bytes;
        if !seen.contains(digest) && used.saturating_add(size) > quota {
            let path = scope.governed().path.clone();
            return Err(Error::OverQuota { path, needed: size, used: Some(used), quota });
        }
        Ok(Some(one_at_a_time))
    }

    pub(crate) async fn path_usage(&self) -> Result<Vec<(String, Tally)>, Error> {
        let governing = self.governing();
        let mut counted = self.shared.accounts.counted.lock().await;
        if let Some(known) = &*counted
            && known.when.elapsed() < COUNTED
            && Arc::ptr_eq(&known.governing, &governing)
        {
            return Ok(known.usage.clone());
        }
        let mut usage = Vec::new();
        for (index, governed) in governing.all().iter().enumerate() {
            let scope = Scope { governing: Arc::clone(&governing), index };
            usage.push((governed.path.clone(), self.count(&scope, &mut HashSet::new()).await?));
        }
        *counted = Some(Counted { when: Instant::now(), governing, usage: usage.clone() });
        Ok(usage)
    }

    /// All that is in the repositories which a path governs; `seen` gets its digests.
    async fn count(&self, scope: &Scope, seen: &mut HashSet<Digest>) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        for repository in self.governed(scope).await? {
            self.count_repository(&repository, seen, &mut tally).await?;
        }
        Ok(tally)
    }

    async fn count_repository(
        &self,
        repository: &RepoName,
        seen: &mut HashSet<Digest>,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        for (part, is_blob) in [("_blobs", true), ("_manifests", false)] {
            let mut new = Vec::new();
            let mut found = self.bucket.list(&keys::within(repository, part));
            while let Some(found) = found.try_next().await? {
                let Some(digest) = keys::digest_of(&found.location).filter(|_| found.size >= LEAST_VALUE)
                else {
                    continue;
                };
                if !is_blob {
                    let time = found.last_modified.into();
                    tally.pushed(LastPush { time, tag: None, digest: digest.clone() });
                }
                if seen.insert(digest.clone()) {
                    new.push(digest);
                }
            }
            let sizes = new.iter().map(|digest| self.size_in(repository, digest, is_blob));
            let mut sizes = stream::iter(sizes.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
            while let Some(size) = sizes.try_next().await? {
                tally.bytes += size;
            }
        }
        let mut found = self.bucket.list(&keys::within(repository, "_tags"));
        while let Some(found) = found.try_next().await? {
            let tag = found.location.filename().and_then(|tag| tag.parse().ok());
            let Some(tag) = tag.filter(|_| found.size >= LEAST_VALUE) else { continue };
            tally.tags += 1;
            let time = found.last_modified.into();
            if tally.last_push.as_ref().is_none_or(|last| last.time <= time)
                && let Ok(Some(digest)) = self.resolve(repository, &tag).await
            {
                tally.pushed(LastPush { time, tag: Some(tag), digest });
            }
        }
        Ok(())
    }

    /// All names that a path governs, under some of which there may be nothing.
    pub(in crate::storage) async fn governed(&self, scope: &Scope) -> Result<Vec<RepoName>, Error> {
        if let Some(repository) = scope.governed().only() {
            return Ok(vec![repository]);
        }
        let (mut names, mut walk) = (Vec::new(), Walk::below(scope.governed().prefix()));
        while let Some(repository) = walk.next_in(self, everything).await? {
            names.extend(Some(repository).filter(|repository| scope.has(repository)));
        }
        Ok(names)
    }

    /// Digests of a repository's manifests, and of its blobs.
    pub(crate) async fn contents(&self, name: &RepoName) -> Result<(Vec<Digest>, Vec<Digest>), Error> {
        let digests = async |part| {
            let found = self.bucket.list(&keys::within(name, part));
            let found = found.try_filter(|found| futures::future::ready(found.size >= LEAST_VALUE));
            let found: Vec<_> = found.try_collect().await?;
            Ok::<_, Error>(found.iter().filter_map(|found| keys::digest_of(&found.location)).collect())
        };
        Ok((digests("_manifests").await?, digests("_blobs").await?))
    }

    async fn size_in(&self, repository: &RepoName, digest: &Digest, is_blob: bool) -> Result<u64, Error> {
        let size = if is_blob {
            let slot = self.bucket.read(&keys::blob(repository, digest)).await?;
            slot.json::<Membership>()?.map(|membership| membership.size)
        } else {
            self.manifest_header(repository, digest).await?.map(|(_, size)| size)
        };
        Ok(size.unwrap_or_default())
    }
}
