//! What an image consists of, from the leaves up: each manifest once, however many others name it, so that the work is
//! never more than what somebody has pushed.
//!
//! - Leaves go side by side, indexes within indexes one after the other: of an image one chain of them is under way. What
//!   a descriptor says is not believed, what turns out to be an index waits for its turn.
//! - Whoever holds the turn for deep images waits for leaves, whoever holds one of those for blobs, and whoever holds a
//!   blob for permits; never the other way round.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt as _, future::BoxFuture};
use http::HeaderMap;

use super::{
    Copier, Error, Place, every,
    manifest::{Manifest, is_index, is_known, lacks},
    platform,
};
use crate::{Descriptor, Digest, Reference, client::Put};

/// Indexes within indexes.
const DEEPEST: u32 = 16;
/// Manifests of one image, with all that refers to them. The largest indexes have some hundreds.
const MOST_MANIFESTS: usize = 10_000;

/// One image, and which of its manifests were looked at.
pub(super) struct Tree<'a> {
    pub(super) place: &'a Place,
    pub(super) headers: &'a HeaderMap,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    begun: HashSet<Digest>,
    /// At the target, and nobody has asked yet what refers to them.
    subjects: Vec<Digest>,
}

/// Why a manifest is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// An index can't be without it.
    Needed,
    /// It says something of another one.
    Refers,
}

impl<'a> Tree<'a> {
    pub(super) fn new(place: &'a Place, headers: &'a HeaderMap) -> Self {
        Self { place, headers, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False where somebody has begun with it.
    pub(super) fn begin(&self, digest: &Digest) -> Result<bool, Error> {
        let mut seen = self.seen();
        if seen.begun.len() >= MOST_MANIFESTS {
            let reason = format!("with it the image has more than {MOST_MANIFESTS} manifests");
            return Err(Error::Manifest { digest: digest.clone(), reason });
        }
        Ok(seen.begun.insert(digest.clone()))
    }

    /// Somebody else may have to bring it.
    fn give_up(&self, digest: &Digest) {
        self.seen().begun.remove(digest);
    }

    /// The target has it, or will have.
    pub(super) fn is_there(&self, digest: &Digest) {
        self.seen().subjects.push(digest.clone());
    }

    pub(super) fn subjects(&self) -> Vec<Digest> {
        std::mem::take(&mut self.seen().subjects)
    }
}

impl Copier {
    /// Brings all that a manifest needs; true where the platforms leave something of it out.
    pub(super) async fn needs(
        &self,
        tree: &Tree<'_>,
        manifest: &mut Manifest,
        depth: u32,
    ) -> Result<bool, Error> {
        self.blobs(tree.place, &manifest.document.blobs).await?;
        let children = std::mem::take(&mut manifest.document.children);
        let all = children.len();
        let children = platform::choose(children, &self.options().platforms);
        if children.is_empty() && all > 0 {
            return Err(Error::NoPlatform(manifest.digest.clone()));
        }
        let sparse = children.len() < all;
        let children = children.into_iter().map(|child| child.descriptor).collect();
        self.bring(tree, children, Why::Needed, depth + 1).await?;
        Ok(sparse)
    }

    /// Brings these manifests, each with all that it needs. Nothing else is begun after a failure.
    pub(super) fn bring<'a>(
        &'a self,
        tree: &'a Tree<'a>,
        wanted: Vec<Descriptor>,
        why: Why,
        depth: u32,
    ) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let (indexes, leaves): (Vec<_>, Vec<_>) =
                wanted.into_iter().partition(|wanted| is_index(&wanted.media_type));
            let indexes = Mutex::new(indexes);
            let each = leaves.into_iter().map(|leaf| async {
                if !self.leaf(tree, &leaf, why).await? {
                    indexes.lock().unwrap_or_else(PoisonError::into_inner).push(leaf);
                }
                Ok(())
            });
            every(self.options().concurrency, each).await?;
            let indexes = indexes.into_inner().unwrap_or_else(PoisonError::into_inner);
            // Never closed.
            let _turn =
                if depth == 1 && !indexes.is_empty() { self.0.deep.acquire().await.ok() } else { None };
            for index in &indexes {
                self.index(tree, index, why, depth).await?;
            }
            Ok(())
        }
        .boxed()
    }

    /// Brings a manifest that needs no others; false where it does.
    async fn leaf(&self, tree: &Tree<'_>, leaf: &Descriptor, why: Why) -> Result<bool, Error> {
        if !tree.begin(&leaf.digest)? {
            return Ok(true);
        }
        // Never closed.
        let _permit = self.0.leaves.acquire().await.ok();
        if why == Why::Needed && !is_known(&leaf.media_type) && self.is_blob(tree.place, leaf).await? {
            return Ok(true);
        }
        if self.is_whole(tree, &leaf.digest).await? {
            return self.list(tree, &leaf.digest, why).await.map(|()| true);
        }
        let Some(manifest) = self.manifest(tree.place, &leaf.digest).await? else {
            return is_gone(tree, leaf, why).map(|()| true);
        };
        if !manifest.document.children.is_empty() {
            tree.give_up(&leaf.digest);
            return Ok(false);
        }
        self.blobs(tree.place, &manifest.document.blobs).await?;
        self.put_below(tree, &manifest, why).await?;
        Ok(true)
    }

    async fn index(&self, tree: &Tree<'_>, index: &Descriptor, why: Why, depth: u32) -> Result<(), Error> {
        if depth > DEEPEST {
            let reason = format!("it lies more than {DEEPEST} manifests deep");
            return Err(Error::Manifest { digest: index.digest.clone(), reason });
        }
        if !tree.begin(&index.digest)? {
            return Ok(());
        }
        if self.is_whole(tree, &index.digest).await? {
            return self.list(tree, &index.digest, why).await;
        }
        let Some(mut manifest) = self.manifest(tree.place, &index.digest).await? else {
            return is_gone(tree, index, why);
        };
        let sparse = self.needs(tree, &mut manifest, depth).await?;
        let put = self.put_below(tree, &manifest, why).await;
        put.map_err(|error| if sparse { error.of_sparse() } else { error })
    }

    /// Whether the target has a manifest with all that it needs: of an index some may not have been chosen then.
    async fn is_whole(&self, tree: &Tree<'_>, digest: &Digest) -> Result<bool, Error> {
        let _permit = self.permit().await;
        let reference = Reference::Digest(digest.clone());
        let found =
            self.target().head_manifest(&tree.place.target, &reference).await.map_err(Error::Target)?;
        let all = self.options().platforms.is_empty();
        let is_whole = found.is_some_and(|(_, kind)| all || (is_known(&kind) && !is_index(&kind)));
        if is_whole {
            tree.is_there(digest);
        }
        Ok(is_whole)
    }

    /// Indexes may name plain blobs, as those of build caches do: then it is brought. Asked first, because some answer 500
    /// where one asks for such a manifest.
    async fn is_blob(&self, place: &Place, wanted: &Descriptor) -> Result<bool, Error> {
        let is_blob = {
            let _permit = self.permit().await;
            self.source().has_blob(&place.source, &wanted.digest).await.map_err(Error::Source)?
        };
        if is_blob {
            // Looked for again, since nobody would know why the target refuses the index.
            self.0.blobs.join(&wanted.digest).await.forget(&place.target);
            self.blob(place, wanted).await?;
        }
        Ok(is_blob)
    }

    async fn put_below(&self, tree: &Tree<'_>, manifest: &Manifest, why: Why) -> Result<(), Error> {
        let reference = Reference::Digest(manifest.digest.clone());
        match self.put_whole(tree, &reference, manifest, why).await? {
            Put::Stored { .. } => tree.is_there(&manifest.digest),
            Put::Newer => tree.give_up(&manifest.digest),
        }
        Ok(())
    }

    /// Pushes a manifest. What the target lacks of its blobs it had when this run put them there, and has collected
    /// since: they are brought once more.
    pub(super) async fn put_whole(
        &self,
        tree: &Tree<'_>,
        reference: &Reference,
        manifest: &Manifest,
        why: Why,
    ) -> Result<Put, Error> {
        let Tree { place, headers, .. } = tree;
        let (blobs, needed) = (&manifest.document.blobs, why == Why::Needed);
        match self.put(place, reference, manifest, headers, needed).await {
            Err(Error::Target(error)) if lacks(&error) && !blobs.is_empty() => {
                for blob in blobs {
                    self.0.blobs.join(&blob.digest).await.forget(&place.target);
                }
                self.blobs(place, blobs).await?;
                self.put(place, reference, manifest, headers, needed).await
            }
            done => done,
        }
    }

    async fn blobs(&self, place: &Place, blobs: &[Descriptor]) -> Result<(), Error> {
        every(self.options().concurrency, blobs.iter().map(|blob| self.blob(place, blob))).await
    }
}

/// A list of referrers may name what is gone, an index not.
fn is_gone(tree: &Tree<'_>, wanted: &Descriptor, why: Why) -> Result<(), Error> {
    match why {
        Why::Needed => Err(Error::Missing(wanted.digest.clone())),
        Why::Refers => {
            tree.give_up(&wanted.digest);
            Ok(())
        }
    }
}
