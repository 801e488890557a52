//! Tags: a value each, that says which digest, and by which entry that digest knows of the tag.

use futures::TryStreamExt as _;
use oci::{Digest, RepoName, Tag};

use super::{
    Objects,
    bucket::{Attempts, Slot, nonce},
    keys,
};
use crate::storage::{Deleted, Error, NewTag};

/// What a tag points to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    digest: Digest,
    entry: String,
}

fn target(slot: &Slot) -> Result<Option<Target>, Error> {
    let Some(content) = &slot.content else { return Ok(None) };
    let parsed = std::str::from_utf8(content).ok().and_then(|text| {
        let (digest, entry) = text.split_once('\n')?;
        Some(Target { digest: digest.parse().ok()?, entry: entry.to_owned() })
    });
    parsed.map(Some).ok_or_else(|| slot.damaged("it should hold a digest"))
}

impl Objects {
    pub(super) async fn resolve(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Digest>, Error> {
        let slot = self.bucket.read(&keys::tag(repository, tag)).await?;
        Ok(target(&slot)?.map(|target| target.digest))
    }

    /// Lets a tag point to a manifest. Also where it does already: who deletes that manifest then notices. One that must
    /// stay and points elsewhere does so on: that is what this returns.
    pub(super) async fn point(
        &self,
        repository: &RepoName,
        new: &NewTag,
        digest: &Digest,
    ) -> Result<Option<Digest>, Error> {
        let NewTag { tag, is_fixed } = new;
        let key = keys::tag(repository, tag);
        let entry = nonce();
        let entry_of = |digest: &Digest, entry: &str| {
            keys::entry(&keys::tagged(repository, digest), tag.as_str(), entry)
        };
        self.bucket.write_entry(&entry_of(digest, &entry)).await?;
        let mut attempts = Attempts::default();
        loop {
            let slot = self.bucket.read(&key).await?;
            let former = match target(&slot) {
                Err(Error::Damaged { .. }) => None,
                former => former?,
            };
            if let Some(former) = former.as_ref().filter(|former| *is_fixed && former.digest != *digest) {
                self.bucket.forget([entry_of(digest, &entry)]).await;
                return Ok(Some(former.digest.clone()));
            }
            if self.bucket.swap(&slot, format!("{digest}\n{entry}").as_bytes()).await?.is_some() {
                self.bucket.forget(former.map(|former| entry_of(&former.digest, &former.entry))).await;
                return Ok(None);
            }
            attempts.again(&key).await?;
        }
    }

    /// Takes a tag away and nothing else.
    pub(super) async fn delete_tag(&self, repository: &RepoName, tag: &Tag) -> Result<Deleted, Error> {
        self.take_tag(repository, tag, None).await
    }

    /// Takes a tag away; where a digest is given, only if it points to that and no such manifest is there, seen in this
    /// order: who pushes writes the manifest first and the tag then.
    async fn take_tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
        digest: Option<&Digest>,
    ) -> Result<Deleted, Error> {
        let key = keys::tag(repository, tag);
        let mut attempts = Attempts::default();
        loop {
            let slot = self.bucket.read(&key).await?;
            if slot.content.is_none() {
                return Ok(Deleted::Unknown);
            }
            let target = target(&slot).ok().flatten();
            if let Some(digest) = digest
                && (target.as_ref().is_none_or(|target| target.digest != *digest)
                    || self.manifest_header(repository, digest).await?.is_some())
            {
                return Ok(Deleted::Unknown);
            }
            if self.bucket.bury(&slot).await? {
                let entry = target.map(|target| {
                    keys::entry(&keys::tagged(repository, &target.digest), tag.as_str(), &target.entry)
                });
                self.bucket.forget(entry).await;
                return Ok(Deleted::Done);
            }
            attempts.again(&key).await?;
        }
    }

    /// One of these tags that points to a manifest, if one does.
    pub(super) async fn tagged(
        &self,
        repository: &RepoName,
        digest: &Digest,
        is_wanted: &(dyn Fn(&Tag) -> bool + Send + Sync),
    ) -> Result<Option<Tag>, Error> {
        let mut entries = self.bucket.list(&keys::tagged(repository, digest)).map_ok(|entry| entry.location);
        while let Some(entry) = entries.try_next().await? {
            let tag = keys::parse_entry(&entry).and_then(|(tag, _)| tag.parse().ok());
            let Some(tag) = tag.filter(|tag| is_wanted(tag)) else { continue };
            let slot = self.bucket.read(&keys::tag(repository, &tag)).await?;
            if target(&slot)?.is_some_and(|target| target.digest == *digest) {
                return Ok(Some(tag));
            }
        }
        Ok(None)
    }

    /// Takes the tags away that point to a manifest which is gone. One that was moved elsewhere stays.
    pub(super) async fn take_tags(&self, repository: &RepoName, digest: &Digest) -> Result<(), Error> {
        let entries = self.bucket.list(&keys::tagged(repository, digest)).map_ok(|entry| entry.location);
        let entries: Vec<_> = entries.try_collect().await?;
        for entry in entries {
            let Some(tag) = keys::parse_entry(&entry).and_then(|(tag, _)| tag.parse().ok()) else { continue };
            self.take_tag(repository, &tag, Some(digest)).await?;
        }
        Ok(())
    }
}
