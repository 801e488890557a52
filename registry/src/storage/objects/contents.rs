//! Content, shared by all repositories: which object has the bytes of a digest.
//!
//! Bytes lie in `data/` under the name of the session that brought them, which is never used again, so that whoever
//! deletes an object deletes what they mean. Every object of data is named by its session or by a content, so that
//! collection finds it.

use oci::Digest;
use serde::{Deserialize, Serialize};

use super::{
    Objects,
    bucket::{Attempts, Slot},
    keys,
};
use crate::storage::Error;

/// What a digest stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Content {
    /// None where it is lost, or about to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Data>,
    /// Since when collection knows nobody who holds it. Whoever comes to hold it takes this away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unheld_since: Option<u64>,
    /// When somebody last came to hold it.
    #[serde(default)]
    pub(super) touched: u64,
    /// Data that it no longer stands for and that has to be deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) former: Vec<String>,
    /// Data that was found not to match the digest, kept for whoever wants to know why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) damaged: Vec<String>,
}

/// An object of data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Data {
    pub(super) id: String,
    pub(super) size: u64,
}

/// What became of data that was to stand for a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    Ours,
    /// Other data already does.
    Other,
}

impl Objects {
    /// The data of a digest, which is there and has the right size.
    pub(super) async fn locate(&self, digest: &Digest) -> Result<Option<Data>, Error> {
        let key = keys::content(digest);
        let mut former = None;
        loop {
            let slot = self.bucket.read(&key).await?;
            let Some(data) = slot.json::<Content>()?.and_then(|content| content.data) else {
                return Ok(None);
            };
            match self.bucket.size(&keys::data(&data.id)).await? {
                Some(size) if size == data.size => return Ok(Some(data)),
                Some(size) => {
                    tracing::error!(%digest, size = data.size, length = size, "content has the wrong length");
                    self.is_damaged(digest, &data).await;
                    return Ok(None);
                }
                // Collected after it was looked up: the next look says so.
                None if former.as_ref() != Some(&data) => former = Some(data),
                None => {
                    self.count_damage();
                    tracing::error!(%digest, data = data.id, "content that a repository may have is lost");
                    return Ok(None);
                }
            }
        }
    }

    /// Lets data stand for a digest, unless other data does; either way it is not about to go. For who is among the
    /// holders already.
    pub(super) async fn publish(&self, digest: &Digest, data: &Data) -> Result<Published, Error> {
        let key = keys::content(digest);
        let mut attempts = Attempts::default();
        loop {
            let slot = self.bucket.read(&key).await?;
            let mut content = slot.json::<Content>()?.unwrap_or_default();
            let published = match &content.data {
                Some(found) if found == data => Published::Ours,
                Some(found) if self.bucket.size(&keys::data(&found.id)).await? == Some(found.size) => {
                    Published::Other
                }
                _ => {
                    content.former.extend(content.data.replace(data.clone()).map(|former| former.id));
                    Published::Ours
                }
            };
            if self.keep(&slot, content).await? {
                return Ok(published);
            }
            attempts.again(&key).await?;
        }
    }

    /// Takes back that content is about to go. None where it is not there. For who is among the holders already.
    pub(super) async fn hold_content(&self, digest: &Digest) -> Result<Option<Data>, Error> {
        let key = keys::content(digest);
        let mut attempts = Attempts::default();
        loop {
            let Some(data) = self.locate(digest).await? else {
                return Ok(None);
            };
            let slot = self.bucket.read(&key).await?;
            if let Some(content) = slot.json::<Content>()?
                && content.data.as_ref() == Some(&data)
                && self.keep(&slot, content).await?
            {
                return Ok(Some(data));
            }
            attempts.again(&key).await?;
        }
    }

    /// False where somebody else was faster.
    async fn keep(&self, slot: &Slot, content: Content) -> Result<bool, Error> {
        let kept = Content { unheld_since: None, touched: self.bucket.clock.now(), ..content };
        // Who came a moment ago is as good as now.
        let before = slot.json::<Content>()?;
        let is_kept = before.is_some_and(|before| {
            before.unheld_since.is_none()
                && before.data == kept.data
                && kept.touched.saturating_sub(before.touched) < 60
        });
        Ok(is_kept || self.bucket.swap_json(slot, &kept).await?.is_some())
    }

    /// Takes damaged data out of service: the next push brings the content back.
    pub(super) async fn is_damaged(&self, digest: &Digest, data: &Data) {
        self.count_damage();
        let take_out = async {
            let slot = self.bucket.read(&keys::content(digest)).await?;
            if let Some(mut content) = slot.json::<Content>()?
                && content.data.as_ref() == Some(data)
            {
                content.damaged.extend(content.data.take().map(|data| data.id));
                self.bucket.swap_json(&slot, &content).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = take_out.await {
            tracing::error!(%digest, %error, "failed to take damaged content out of service");
        }
    }
}
