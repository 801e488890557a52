//! Signatures, attestations and whatever else refers to a manifest, and what refers to those.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use http::HeaderMap;

use super::{
    Copier, Error, Place, every,
    manifest::is_index,
    platform,
    tree::{Tree, Why},
};
use crate::{
    Descriptor, Digest, Reference,
    client::{Referrer, Room},
};

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
        let Place { source, target } = tree.place;
        // One for both, so that who has the room waits for nobody.
        let _permit = self.permit().await;
        let mut room = Room::new(&self.0.lists);
        let wanted = self.source().referrers(source, subject, &mut room).await.map_err(Error::Source)?;
        if wanted.is_empty() {
            return Ok(wanted);
        }
        let there = self.target().referrers(target, subject, &mut room).await.map_err(Error::Target)?;
        let there: HashSet<_> = there.into_iter().map(|known| known.digest).collect();
        let mut lacking = Vec::new();
        for referrer in wanted {
            if !there.contains(&referrer.digest) {
                lacking.push(referrer);
            } else if tree.begin(&referrer.digest)? {
                tree.is_there(&referrer.digest);
            }
        }
        Ok(lacking)
    }

    /// Lists what refers to something and is at the target, but not in its list: a run may have ended between the two.
    pub(super) async fn list(&self, tree: &Tree<'_>, digest: &Digest, why: Why) -> Result<(), Error> {
        if why == Why::Needed {
            return Ok(());
        }
        let Some(manifest) = self.manifest(tree.place, digest).await? else { return Ok(()) };
        let Some(subject) = &manifest.document.subject else { return Ok(()) };
        let is_listed = {
            let _permit = self.permit().await;
            let mut room = Room::new(&self.0.lists);
            let there = self.target().referrers(&tree.place.target, subject, &mut room).await;
            there.map_err(Error::Target)?.iter().any(|known| known.digest == *digest)
        };
        if !is_listed {
            // The target says whether it lists it by itself.
            self.put_whole(tree, &Reference::Digest(digest.clone()), &manifest, why).await?;
        }
        Ok(())
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
        let mut room = Room::new(&self.0.lists);
        let added = self.target().add_to_fallback(&place.target, subject, referrer, headers, &mut room).await;
        added.map_err(Error::Target)
    }
}
