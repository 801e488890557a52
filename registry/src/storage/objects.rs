//! Storage in a bucket that any number of registries serve at the same time.
//!
//! ```text
//! policy.json, token.key                          as in a folder
//! data/<session>                                  bytes that a session brought; never written twice, never reused
//! contents/sha256/abcd…                           *value*: which data has the content of a digest
//! holders/sha256/abcd…/<nonce>/team/app           entry: this repository has it, or is about to
//! uploads/<session>/{session,tail-<nonce>}        *value*: all about a session; its bytes that are in no part yet
//! repositories/<name>/_blobs/sha256/abcd…         *value*: "this repository has this blob"
//! repositories/<name>/_manifests/sha256/abcd…     *value*: a manifest, with its bytes
//! repositories/<name>/_tags/<tag>                 *value*: the digest that the tag points to
//! repositories/<name>/_needed/sha256/abcd…/<manifest>/<nonce>      entry: that manifest needs abcd…, or is about to
//! repositories/<name>/_referrers/sha256/abcd…/<manifest>/<nonce>   entry: that manifest's subject is abcd…
//! repositories/<name>/_tagged/sha256/abcd…/<tag>/<nonce>           entry: that tag points to abcd…
//! ```
//!
//! Values are replaced by compare-and-swap only and never deleted, but by collection ([`bucket`] says how). Entries lie
//! under names that are never used again: who deletes one deletes what they mean. A value names the entry that stands
//! for it, so that an entry of which nothing says so is either about to be true or never will be; it counts as true for
//! [`bucket::LONGEST`], and requests give up within half of that.
//!
//! # Why nothing that is needed goes
//!
//! Instances share no lock. Each race is between one who comes to need something and one who takes it away, and has the
//! shape of Dekker's: both write first what they are about to do, and look then at what the other one wrote, so that
//! at least one of them sees the other.
//!
//! | who needs | writes | then looks at | then writes |
//! |---|---|---|---|
//! | a manifest's push | `_needed` entries | `_blobs`, `_manifests`: there, and not *going*? | the manifest |
//! | a blob's push, a mount | the `holders` entry | `contents`: there, and not *unheld*? | `_blobs` |
//!
//! | who takes away | writes | then looks at | then writes |
//! |---|---|---|---|
//! | a delete, collection of what a repository does not need | *going* | `_needed`: nobody? | a grave |
//! | collection of content | *unheld* | a long time later: `holders`: nobody? | no data, and deletes it |
//!
//! Who needs and finds the other's word takes it back by compare-and-swap, and the other one's last write fails: it
//! begins again, and now sees the entry. Who takes away and finds an entry takes their own word back. Values are all
//! different, so that nobody mistakes a value for an earlier one that looked the same.

mod accounts;
mod blobs;
mod bucket;
mod collect;
mod contents;
mod keys;
mod lists;
mod manifests;
mod reading;
mod sessions;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod strict;
mod tags;
mod upload;

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use oci::Digest;

pub(crate) use self::{
    bucket::{Backend, Clock},
    reading::OpenObject,
    upload::{LARGEST_BLOB, Upload},
};
use self::{
    bucket::{Bucket, Slot},
    contents::Data,
};
use super::{Error, Problem, Sparse, busy::Busy, cache::Cache};

/// Bytes of the key that signs tokens.
const TOKEN_KEY: usize = 32;

/// An open bucket. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Objects {
    bucket: Bucket,
    runtime: tokio::runtime::Handle,
    shared: Arc<Shared>,
    sparse: Sparse,
}

/// What one instance knows by itself: nothing that others would have to know.
#[derive(Debug, Default)]
struct Shared {
    busy: Busy,
    /// Of which data it was found that it matches its digest.
    cache: Cache,
    damaged: AtomicU64,
    changes: AtomicU64,
    counted: Mutex<Option<(u64, Instant, u64)>>,
    accounts: accounts::Accounts,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Objects({:?})", self.bucket)
    }
}

impl Objects {
    /// Within a runtime, on which all work goes on that must not block.
    pub(crate) fn open(store: Arc<dyn Backend>, clock: Clock) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let bucket = Bucket { store, clock };
        Self { bucket, runtime, shared: Arc::default(), sparse: Sparse::default() }
    }

    /// With what may be pushed although some of it is missing.
    pub(crate) fn taking(self, sparse: Sparse) -> Self {
        Self { sparse, ..self }
    }

    pub(crate) async fn load_policy(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.bucket.get(&keys::policy()).await?.map(Vec::from))
    }

    pub(crate) async fn save_policy(&self, policy: Vec<u8>) -> Result<(), Error> {
        self.bucket.write(&keys::policy(), policy.into()).await
    }

    /// Makes the key where there is none yet: of several who try, one succeeds, and all use that one.
    pub(crate) async fn token_key(&self) -> Result<Vec<u8>, Error> {
        let path = keys::token_key();
        let slot = self.bucket.read(&path).await?;
        let key = if let Some(key) = slot.content {
            key.into()
        } else {
            let mut key = vec![0; TOKEN_KEY];
            getrandom::fill(&mut key).map_err(|error| Error::Io {
                action: "make a key for",
                path: path.to_string().into(),
                source: error.into(),
            })?;
            match self.bucket.swap(&slot, &key).await? {
                Some(_) => key,
                None => self.bucket.read(&path).await?.content.map(Vec::from).unwrap_or_default(),
            }
        };
        let what = "it should hold a key of 32 bytes: remove it, and a new one is made";
        if key.len() == TOKEN_KEY { Ok(key) } else { Err(Slot::absent(&path).damaged(what)) }
    }

    pub(crate) fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed)
    }

    #[expect(clippy::unused_self, reason = "it will be used")]
    pub(crate) fn verify(
        &self,
        _repair: bool,
        _report: &mut dyn FnMut(Problem),
        _go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        Err(Error::NoCheck)
    }

    fn count_damage(&self) {
        self.shared.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// A manifest came or went.
    fn changed(&self) {
        self.shared.changes.fetch_add(1, Ordering::AcqRel);
    }

    fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Acquire)
    }

    fn is_trusted(&self, digest: &Digest, data: &Data) -> bool {
        self.shared.cache.is_trusted(&(digest, data))
    }

    fn trust(&self, digest: &Digest, data: &Data) {
        self.shared.cache.trust(&(digest, data));
    }
}

#[cfg(test)]
mod tests;
