//! Copying between any two registries: by digest, children before parents, the tag last. So what is visible at the
//! target can be pulled whole at any moment, and whoever pulls it gets the bytes that the source had.
//!
//! - Nothing is sent that is there, or that the target can mount from where this run has put it. What several images
//!   share goes once, also where they are copied at the same time.
//! - Blobs go through without being held. The last bytes of one are kept back until all of it has the digest that it
//!   should have, unless the target looks at that for certain: what is damaged at the source never becomes a blob of the
//!   target.
//! - What is cut goes on where it was, at both ends; where a registry can't, from the beginning.
//! - Foreign layers stay where they are.

mod blob;
mod document;
mod flight;
mod image;
mod manifest;
mod pace;
mod platform;
mod reading;
mod referrers;
mod tree;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use http::HeaderMap;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use self::platform::{InvalidPlatform, Platform};
use self::{flight::Flights, pace::Pace};
use crate::{
    Digest, RepoName, Tag,
    client::{self, Client},
};

/// Images of which indexes within indexes are under way at once: there are few of them, and they may be large.
const MOST_DEEP: usize = 2;
/// Large manifests in memory at once.
const MOST_LARGE: usize = 4;
/// Large lists of referrers in memory at once.
const MOST_LISTS: usize = 1;

/// How to copy.
#[derive(Clone, Debug)]
pub struct Options {
    /// Blobs and manifests under way at once.
    pub concurrency: usize,
    /// All transfers together; no limit without it.
    pub bytes_per_second: Option<u64>,
    /// Of indexes only manifests for these; all where there are none.
    pub platforms: Vec<Platform>,
    /// What refers to a manifest goes along.
    pub referrers: bool,
    /// The target looks by itself where it could mount a blob from.
    pub mounts_from_anywhere: bool,
    /// The target takes no blob that has not the digest that it should have, for certain: nobody else has to look.
    pub target_verifies: bool,
}

/// A repository at both ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// As the source knows it.
    pub source: RepoName,
    /// As the target knows it.
    pub target: RepoName,
}

/// An image to copy.
#[derive(Clone, Debug)]
pub struct Image {
    /// Where.
    pub place: Place,
    /// What.
    pub digest: Digest,
    /// Under which tag; without one it is there by digest alone.
    pub tag: Option<Tag>,
    /// Go along with every manifest that is pushed.
    pub headers: HeaderMap,
}

/// What became of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is at the target.
    Copied,
    /// The target has something later under the tag, which stays.
    Newer,
}

/// Why something is not at the target. Each is a sentence that says at which end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source did not give it.
    #[error("source: {0}")]
    Source(client::Error),
    /// The target did not take it.
    #[error("target: {0}")]
    Target(client::Error),
    /// The source has something else under this digest.
    #[error("the blob {digest} is damaged at the source, where its content is {actual}: it was not copied")]
    Corrupt {
        /// What was asked for.
        digest: Digest,
        /// What came.
        actual: Digest,
    },
    /// The source does not have it.
    #[error("the source has no manifest {0} any more")]
    Missing(Digest),
    /// The source has something that is not understood.
    #[error("the manifest {digest} can't be copied: {reason}")]
    Manifest {
        /// Which.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing of an index was chosen.
    #[error("the index {0} has no manifest for any of the chosen platforms")]
    NoPlatform(Digest),
    /// The target wants all of an index.
    #[error(
        "the target takes no index of which some platforms are missing ({0}): copy all platforms, or let the target \
         take such indexes (berth-registry serve --allow-sparse copied-indexes; a Registry of a cluster does)"
    )]
    Sparse(client::Error),
}

impl Error {
    /// What an end said, where it was one.
    #[must_use]
    pub fn at_source(&self) -> Option<&client::Error> {
        if let Self::Source(error) = self { Some(error) } else { None }
    }

    /// What an end said, where it was one.
    #[must_use]
    pub fn at_target(&self) -> Option<&client::Error> {
        if let Self::Target(error) = self { Some(error) } else { None }
    }

    /// A refusal of an index of which some was left out is most likely for that.
    fn of_sparse(self) -> Self {
        match self {
            Self::Target(reason) if manifest::lacks(&reason) => Self::Sparse(reason),
            other => other,
        }
    }
}

/// What was done so far. Numbers never fall.
#[derive(Debug, Default)]
pub struct Counters {
    moved: AtomicU64,
    skipped: AtomicU64,
}

impl Counters {
    /// Bytes of blobs that were sent to the target.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Bytes of blobs that were there, or were mounted.
    #[must_use]
    pub fn bytes_skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

/// Copies from one registry to another one. Clones share limits and what they know.
#[derive(Clone, Debug)]
pub struct Copier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Client,
    target: Client,
    options: Options,
    permits: Semaphore,
    /// Manifests without children under way at once, each with its blobs.
    leaves: Semaphore,
    /// Images of which indexes within indexes are under way.
    deep: Semaphore,
    /// Large manifests in memory.
    room: Semaphore,
    /// Large lists of referrers in memory.
    lists: Semaphore,
    pace: Option<Arc<Pace>>,
    blobs: Flights,
    subjects: Flights,
    counters: Arc<Counters>,
}

impl Copier {
    /// Between these two.
    #[must_use]
    pub fn new(source: Client, target: Client, options: Options) -> Self {
        let at_once = options.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let (permits, leaves) = (Semaphore::new(at_once), Semaphore::new(at_once));
        let (deep, room) = (Semaphore::new(MOST_DEEP), Semaphore::new(MOST_LARGE));
        let lists = Semaphore::new(MOST_LISTS);
        let pace = options.bytes_per_second.map(|rate| Arc::new(Pace::new(rate)));
        let (blobs, subjects, counters) = Default::default();
        let inner = Inner {
            source,
            target,
            options,
            permits,
            leaves,
            deep,
            room,
            lists,
            pace,
            blobs,
            subjects,
            counters,
        };
        Self(Arc::new(inner))
    }

    /// Where it copies from.
    #[must_use]
    pub fn source(&self) -> &Client {
        &self.0.source
    }

    /// Where it copies to.
    #[must_use]
    pub fn target(&self) -> &Client {
        &self.0.target
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    fn options(&self) -> &Options {
        &self.0.options
    }

    /// Waits until one more thing may be under way. Whoever holds this waits for nobody who may want one.
    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.0.permits.acquire().await.ok()
    }
}

/// Waits for all, so many at once, also after a failure: what the others have begun is there at the next attempt. The
/// first error.
fn every<'a, F: Future<Output = Result<(), Error>> + Send + 'a>(
    at_once: usize,
    work: impl Iterator<Item = F> + Send + 'a,
) -> BoxFuture<'a, Result<(), Error>> {
    // Boxed here, where the compiler still knows that all of it is `Send`.
    let running = futures::stream::iter(work).buffer_unordered(at_once.max(1));
    running.fold(Ok(()), async |result: Result<(), Error>, done| result.and(done)).boxed()
}
