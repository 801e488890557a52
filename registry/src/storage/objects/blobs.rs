//! Which repository has which blob, and who needs it there.

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use oci::{Digest, RepoName};
use serde::{Deserialize, Serialize};

use super::{
    Objects,
    bucket::{Attempts, nonce},
    contents::{Data, Published},
    keys,
    reading::OpenObject,
};
use crate::storage::{Blob, Deleted, Error, cache};

/// That a blob was looked at is written down once in so many seconds.
const TOUCH_AFTER: u64 = 60;

/// "This repository has this blob."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Membership {
    pub(super) size: u64,
    /// Names the entry among the content's holders.
    pub(super) holder: String,
    /// When it was last pushed or looked at.
    pub(super) touched: u64,
    /// Since when somebody wants to take it away. Whoever needs it takes this away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) going_since: Option<u64>,
}

/// Where content comes from that a repository is about to have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// A session brought it.
    New(&'a Data),
    /// It is there.
    There,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The session's data is what stands for the content.
    WithOurs,
    WithOther,
    /// The content is not there.
    Not,
}

impl Objects {
    pub(crate) async fn blob_size(&self, repository: RepoName, digest: Digest) -> Result<Option<u64>, Error> {
        let size = self.find_blob_data(&repository, &digest).await?.map(|data| data.size);
        if size.is_some()
            && let Err(error) = self.touch(&repository, &digest, TOUCH_AFTER).await
        {
            tracing::debug!(%digest, %error, "that a blob was looked at is not kept");
        }
        Ok(size)
    }

    pub(crate) async fn open_blob(
        &self,
        repository: RepoName,
        digest: Digest,
    ) -> Result<Option<Blob>, Error> {
        let Some(data) = self.find_blob_data(&repository, &digest).await? else {
            return Ok(None);
        };
        if data.size > cache::LARGEST {
            return Ok(Some(Blob::object(OpenObject::new(self.clone(), digest, data))));
        }
        let Some(bytes) = self.bucket.get(&keys::data(&data.id)).await? else {
            return Ok(None);
        };
        if Digest::of(digest.algorithm(), &bytes) == digest {
            return Ok(Some(Blob::held(bytes)));
        }
        tracing::error!(%digest, "content does not match its digest");
        self.is_damaged(&digest, &data).await;
        Ok(None)
    }

    /// The data of a blob that the repository has.
    pub(super) async fn find_blob_data(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<Data>, Error> {
        let key = keys::blob(repository, digest);
        let membership = self.bucket.read(&key);
        // Who asks for what is not there pays for a look too many: it takes no longer.
        let (membership, data) = futures::try_join!(membership, self.locate(digest))?;
        Ok(data.filter(|_| membership.content.is_some()))
    }

    /// Says that somebody counts on the blob. False where the repository has it no more.
    pub(super) async fn touch(
        &self,
        repository: &RepoName,
        digest: &Digest,
        after: u64,
    ) -> Result<bool, Error> {
        let key = keys::blob(repository, digest);
        let mut attempts = Attempts::default();
        loop {
            let slot = self.bucket.read(&key).await?;
            let Some(membership) = slot.json::<Membership>()? else {
                return Ok(false);
            };
            let now = self.bucket.clock.now();
            if membership.going_since.is_none() && now.saturating_sub(membership.touched) < after {
                return Ok(true);
            }
            let touched = Membership { touched: now, going_since: None, ..membership };
            if self.bucket.swap_json(&slot, &touched).await?.is_some() {
                return Ok(true);
            }
            attempts.again(&key).await?;
        }
    }

    pub(crate) async fn mount_blob(
        &self,
        from: RepoName,
        to: RepoName,
        digest: Digest,
    ) -> Result<bool, Error> {
        let Some(data) = self.find_blob_data(&from, &digest).await? else {
            return Ok(false);
        };
        let _one_at_a_time = self.take_in(&to, &digest, data.size).await?;
        Ok(self.join(&to, &digest, Source::There).await? != Joined::Not)
    }

    /// Lets a repository have a blob: first it is among the holders, then the content is looked at, then it has it.
    pub(super) async fn join(
        &self,
        repository: &RepoName,
        digest: &Digest,
        source: Source<'_>,
    ) -> Result<Joined, Error> {
        let key = keys::blob(repository, digest);
        let mut attempts = Attempts::default();
        let mut tried: Option<(String, Path)> = None;
        loop {
            let began = self.bucket.clock.now();
            let slot = self.bucket.read(&key).await?;
            let member = slot.json::<Membership>()?;
            if let Some((holder, entry)) = tried.take()
                && member.as_ref().is_none_or(|member| member.holder != holder)
            {
                // It never came to be true, or is so no more.
                self.bucket.forget([entry]).await;
            }
            let is_new = member.is_none();
            let holder = member.map_or_else(nonce, |member| member.holder);
            let entry = keys::holder(digest, &holder, repository);
            if is_new {
                self.bucket.write_entry(&entry).await?;
            }
            let (size, joined) = match source {
                Source::New(data) => {
                    let published = self.publish(digest, data).await?;
                    let ours = published == Published::Ours;
                    (data.size, if ours { Joined::WithOurs } else { Joined::WithOther })
                }
                Source::There => {
                    let Some(data) = self.hold_content(digest).await? else {
                        self.bucket.forget(is_new.then_some(entry)).await;
                        return Ok(Joined::Not);
                    };
                    (data.size, Joined::WithOther)
                }
            };
            self.bucket.check_time(began)?;
            tried = is_new.then(|| (holder.clone(), entry));
            let membership = Membership { size, holder, touched: began, going_since: None };
            if self.bucket.swap_json(&slot, &membership).await?.is_some() {
                return Ok(joined);
            }
            attempts.again(&key).await?;
        }
    }

    pub(crate) async fn find_blob(
        &self,
        digest: Digest,
        wanted: impl Fn(&RepoName) -> bool + Send + 'static,
    ) -> Result<Option<RepoName>, Error> {
        let holders = keys::holders(&digest);
        let mut found = Vec::new();
        let mut entries = self.bucket.list(&holders);
        while let Some(entry) = entries.try_next().await? {
            found.extend(keys::parse_holder(&holders, &entry.location).map(|(repository, _)| repository));
        }
        found.retain(|repository| wanted(repository));
        for repository in found {
            if self.find_blob_data(&repository, &digest).await?.is_some() {
                return Ok(Some(repository));
            }
        }
        Ok(None)
    }

    pub(crate) async fn delete_blob(&self, repository: RepoName, digest: Digest) -> Result<Deleted, Error> {
        self.leave(&repository, &digest, |_| true).await
    }

    /// Takes a blob from a repository, as long as `may_go` says so and nothing there needs it: first it is going, then
    /// who needs it is looked for, then it is gone.
    pub(super) async fn leave(
        &self,
        repository: &RepoName,
        digest: &Digest,
        may_go: impl Fn(&Membership) -> bool,
    ) -> Result<Deleted, Error> {
        let key = keys::blob(repository, digest);
        let mut attempts = Attempts::default();
        loop {
            let slot = self.bucket.read(&key).await?;
            let Some(membership) = slot.json::<Membership>()?.filter(&may_go) else {
                return Ok(Deleted::Unknown);
            };
            let going = Membership { going_since: Some(self.bucket.clock.now()), ..membership.clone() };
            if let Some(going) = self.bucket.swap_json(&slot, &going).await? {
                let needed = self.needed_by(repository, digest).await;
                if let Ok(None) = needed {
                    if self.bucket.bury(going.slot()).await? {
                        let entry = keys::holder(digest, &membership.holder, repository);
                        self.bucket.forget([entry]).await;
                        return Ok(Deleted::Done);
                    }
                } else {
                    // Whoever was faster did it already.
                    let turned_back = self.bucket.swap_json(going.slot(), &membership).await;
                    let needed_by = needed?;
                    turned_back?;
                    if let Some(needed_by) = needed_by {
                        return Ok(Deleted::Needed(needed_by));
                    }
                }
            }
            attempts.again(&key).await?;
        }
    }

    /// A manifest of the repository that needs this, or is about to. Entries of which neither is true any more go.
    pub(super) async fn needed_by(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<Digest>, Error> {
        let mut entries = self.bucket.list(&keys::needed(repository, digest)).map_ok(|entry| entry.location);
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let Some((manifest, nonce)) = keys::parse_entry(&entry) else { continue };
            let Some(manifest) = keys::as_digest(manifest).filter(|manifest| manifest != digest) else {
                continue;
            };
            // A push that is under way is not told from one that was cut. Of an entry that is stale it is known for good
            // after that whether it is true, not before.
            if self.is_entered(repository, &manifest, nonce).await?
                || !self.bucket.is_stale(&entry).await?
                || self.is_entered(repository, &manifest, nonce).await?
            {
                return Ok(Some(manifest));
            }
            self.bucket.forget([entry]).await;
        }
        Ok(None)
    }

    /// Whether a manifest is there that names its entries so.
    async fn is_entered(&self, repository: &RepoName, manifest: &Digest, nonce: &str) -> Result<bool, Error> {
        let header = self.manifest_header(repository, manifest).await?;
        Ok(header.is_some_and(|(header, _)| header.entries == nonce))
    }

    /// Whether a repository has a blob, and names its entry among the holders so.
    pub(super) async fn is_holder(
        &self,
        repository: &RepoName,
        digest: &Digest,
        nonce: &str,
    ) -> Result<bool, Error> {
        let membership = self.bucket.read(&keys::blob(repository, digest)).await?.json::<Membership>()?;
        Ok(membership.is_some_and(|membership| membership.holder == nonce))
    }
}
