//! One image: what it needs, then what refers to it, then itself.

use super::{
    Copier, Error, Image, Outcome,
    tree::{Tree, Why},
};
use crate::{Reference, client::Put};

impl Copier {
    /// Copies an image; what is there already is not sent again.
    pub async fn image(&self, image: &Image) -> Result<Outcome, Error> {
        let Image { place, digest, tag, headers } = image;
        let tree = Tree::new(place, headers);
        let manifest = self.manifest(place, digest).await?;
        let mut manifest = manifest.ok_or_else(|| Error::Missing(digest.clone()))?;
        let sparse = self.needs(&tree, &mut manifest, 0).await?;
        if self.options().referrers {
            tree.is_there(digest);
            self.all_referrers(&tree).await?;
        }
        let reference = tag.clone().map_or_else(|| Reference::Digest(digest.clone()), Reference::Tag);
        let put = self.put_whole(&tree, &reference, &manifest, Why::Refers).await;
        match put.map_err(|error| if sparse { error.of_sparse() } else { error })? {
            Put::Newer => Ok(Outcome::Newer),
            Put::Stored { .. } => Ok(Outcome::Copied),
        }
    }
}
