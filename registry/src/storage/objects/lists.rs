//! Tags, referrers, repositories. Stores promise no order, so that whatever is sorted is listed whole first: a page of tags
//! or referrers costs one listing of all of them (a request for each thousand), referrers one look at each of the page
//! besides; a page of repositories costs a listing of each folder in which any may be seen, and one of each repository that may.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use oci::{Descriptor, Digest, RepoName};

use super::{
    Objects,
    bucket::{AT_ONCE, LEAST_VALUE},
    keys,
};
use crate::storage::{
    Error, ReferrersPage,
    model::weigh,
    walk::{self, Look, Walk, everything},
};

/// For so long it does not matter that other instances add and remove repositories.
const COUNTED: Duration = Duration::from_secs(10);

impl Objects {
    pub(crate) async fn tags(
        &self,
        repository: RepoName,
        last: Option<String>,
        n: usize,
    ) -> Result<Option<Arc<(Vec<String>, bool)>>, Error> {
        let mut tags = Vec::new();
        let mut found = self.bucket.list(&keys::within(&repository, "_tags"));
        while let Some(found) = found.try_next().await? {
            if found.size >= LEAST_VALUE {
                tags.extend(found.location.filename().map(str::to_owned));
            }
        }
        if tags.is_empty()
            && !self.has_any(&repository, "_blobs").await?
            && !self.has_any(&repository, "_manifests").await?
        {
            return Ok(None);
        }
        tags.retain(|tag| last.as_ref().is_none_or(|last| tag > last));
        tags.sort_unstable();
        let more = tags.len() > n;
        tags.truncate(n);
        Ok(Some(Arc::new((tags, more))))
    }

    /// Whether there is a value in this part of a repository.
    async fn has_any(&self, repository: &RepoName, part: &str) -> Result<bool, Error> {
        let mut found = self.bucket.list(&keys::within(repository, part));
        while let Some(found) = found.try_next().await? {
            if found.size >= LEAST_VALUE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) async fn referrers(
        &self,
        repository: RepoName,
        subject: Digest,
        artifact_type: Option<String>,
        last: Option<Digest>,
        (n, weight): (usize, usize),
    ) -> Result<ReferrersPage, Error> {
        let mut digests = Vec::new();
        let mut entries = self.bucket.list(&keys::referrers(&repository, &subject));
        while let Some(entry) = entries.try_next().await? {
            let name = keys::parse_entry(&entry.location).map(|(name, _)| name);
            digests.extend(name.and_then(keys::as_digest));
        }
        digests.sort_unstable();
        digests.dedup();
        digests.retain(|digest| last.as_ref().is_none_or(|last| digest > last));
        let descriptors = digests.into_iter().map(|digest| self.descriptor(&repository, &subject, digest));
        let mut descriptors = stream::iter(descriptors.collect::<Vec<_>>()).buffered(AT_ONCE);
        let mut page = ReferrersPage::default();
        let mut carried = 0;
        while let Some(descriptor) = descriptors.try_next().await? {
            let Some(descriptor) =
                descriptor.filter(|found| artifact_type.is_none() || artifact_type == found.artifact_type)
            else {
                continue;
            };
            if page.manifests.len() >= n || carried > weight {
                page.more_after = page.manifests.last().map(|last| last.digest.clone());
                return Ok(page);
            }
            carried += weigh(&descriptor);
            page.manifests.push(descriptor);
        }
        Ok(page)
    }

    /// None where the manifest is not there, or has another subject.
    async fn descriptor(
        &self,
        repository: &RepoName,
        subject: &Digest,
        digest: Digest,
    ) -> Result<Option<Descriptor>, Error> {
        let Some(record) = self.record(repository, &digest).await? else {
            return Ok(None);
        };
        let manifest = record.parse().filter(|manifest| manifest.subject.as_ref() == Some(subject));
        Ok(manifest.map(|manifest| Descriptor {
            media_type: manifest.media_type,
            digest,
            size: record.bytes.len() as u64,
            artifact_type: manifest.artifact_type,
            annotations: manifest.annotations,
        }))
    }

    pub(crate) async fn repositories(
        &self,
        last: Option<String>,
        n: usize,
        next: impl Fn(&str) -> Option<String> + Send + 'static,
    ) -> Result<(Vec<RepoName>, bool), Error> {
        let mut found = Vec::new();
        let mut walk = Walk::after(last.as_deref());
        while let Some(repository) = walk.next_in(self, &next).await? {
            if !self.has_any(&repository, "_manifests").await? {
                continue;
            }
            if found.len() == n {
                return Ok((found, true));
            }
            found.push(repository);
        }
        Ok((found, false))
    }

    /// Counted anew after a change here, and at times.
    pub(crate) async fn count_repositories(&self) -> Result<u64, Error> {
        let changes = self.changes();
        let counted = *self.shared.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, when, count)) = counted
            && then == changes
            && when.elapsed() < COUNTED
        {
            return Ok(count);
        }
        let (mut count, mut walk) = (0, Walk::after(None));
        while let Some(repository) = walk.next_in(self, everything).await? {
            count += u64::from(self.has_any(&repository, "_manifests").await?);
        }
        let mut counted = self.shared.counted.lock().unwrap_or_else(PoisonError::into_inner);
        *counted = Some((changes, Instant::now(), count));
        Ok(count)
    }
}

impl Walk {
    /// The next name under which a repository may be; none at the end.
    pub(super) async fn next_in(
        &mut self,
        objects: &Objects,
        next: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<RepoName>, Error> {
        loop {
            match self.next(&next) {
                None => return Ok(None),
                Some(Look::At(repository)) => return Ok(Some(repository)),
                Some(Look::In { prefix, after }) => {
                    let mut steps = Vec::new();
                    for folder in
                        objects.bucket.folders(&format!("{}/{prefix}", keys::REPOSITORIES).into()).await?
                    {
                        walk::steps(folder, &mut steps);
                    }
                    steps.retain(|step| after.as_ref().is_none_or(|after| step > after));
                    steps.sort_unstable();
                    self.found(prefix, &steps, false);
                }
            }
        }
    }
}
