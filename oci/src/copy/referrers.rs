//! Signatures, attestations and whatever else refers to a manifest, and what refers to those.

use std::sync::{Mutex, PoisonError};

use http::HeaderMap;

use super::{
    Copier, Error, Place, every,
    manifest::is_index,
    platform,
    tree::{Tree, Why},
};
use crate::{Descriptor, Digest, client::Referrer};

impl Copier {
    /// Brings what refers to an image that is at both ends, and to the manifests within it; and of an index what was not
    /// chosen when it came. `media_type` is what the
    /// source says of it, where that is known.
    pub async fn referrers(
        &self,
        place: &Place,
        digest: &Digest,
        media_type: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<(), Error> {
        let tree = Tree::new(place, headers);
        tree.begin(digest)?;
        tree.is_there(digest);
        let mut indexes: Vec<_> =
            media_type.is_none_or(is_index).then(|| digest.clone()).into_iter().collect();
        while let Some(index) = indexes.pop() {
            let Some(manifest) = self.manifest(place, &index).await? else { continue };
            let children = platform::choose(manifest.document.children, &self.options().platforms);
            let children: Vec<_> = children.into_iter().map(|child| child.descriptor).collect();
            if !self.options().platforms.is_empty() {
                // Others may have been chosen before.
                self.bring(&tree, children, Why::Needed, 1).await?;
                continue;
            }
            for child in children {
                if tree.begin(&child.digest)? {
                    tree.is_there(&child.digest);
                    indexes.extend(
                        Some(child).filter(|child| is_index(&child.media_type)).map(|child| child.digest),
                    );
                }
            }
        }
        self.all_referrers(&tree).await
    }

    /// Brings what refers to the manifests of an image that are there, and to what is brought. Each list is asked for
    /// once, also where lists name each other.
    pub(super) async fn all_referrers(&self, tree: &Tree<'_>) -> Result<(), Error> {
        loop {
            let subjects = tree.subjects();
            if subjects.is_empty() {
                return Ok(());
            }
            let all = Mutex::new(Vec::new());
            let each = subjects.iter().map(|subject| async {
                let lacking = self.lacking(tree, subject).await?;
                all.lock().unwrap_or_else(PoisonError::into_inner).extend(lacking);
                Ok(())
            });
            every(self.options().concurrency, each).await?;
            let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.bring(tree, all, Why::Refers, 1).await?;
        }
    }

    /// What refers to a manifest and is not at the target.
    async fn lacking(&self, tree: &Tree<'_>, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let wanted = self.at_source(tree.place, subject).await?;
        if wanted.is_empty() {
            return Ok(wanted);
        }
        let there = self.at_target(tree.place, subject).await?;
        let mut lacking = Vec::new();
        for referrer in wanted {
            if !there.iter().any(|known| known.digest == referrer.digest) {
                lacking.push(Descriptor { annotations: None, ..referrer });
            } else if tree.begin(&referrer.digest)? {
                tree.is_there(&referrer.digest);
            }
        }
        Ok(lacking)
    }

    async fn at_source(&self, place: &Place, subject: &Digest) -> Result<Vec<Referrer>, Error> {
        let _permit = self.permit().await;
        self.source().referrers(&place.source, subject).await.map_err(Error::Source)
    }

    async fn at_target(&self, place: &Place, subject: &Digest) -> Result<Vec<Referrer>, Error> {
        let _permit = self.permit().await;
        self.target().referrers(&place.target, subject).await.map_err(Error::Target)
    }

    /// Keeps up the fallback tag at a target that lists no referrers.
    pub(super) async fn keep_fallback(
        &self,
        place: &Place,
        subject: &Digest,
        referrer: &Referrer,
        headers: &HeaderMap,
    ) -> Result<(), Error> {
        let _alone = self.0.subjects.join(subject).await;
        let _permit = self.permit().await;
        self.target().add_to_fallback(&place.target, subject, referrer, headers).await.map_err(Error::Target)
    }
}
