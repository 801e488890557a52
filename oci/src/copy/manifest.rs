//! Manifests on their way: small ones are held while what they need is brought, large ones are asked for again when
//! their turn comes. So memory is bounded whatever the sizes are.

use http::{HeaderMap, StatusCode};
use tokio::sync::SemaphorePermit;

use super::{
    Copier, Error, Place,
    document::{self, Document},
};
use crate::{
    Digest, Reference,
    client::{self, Found, Put},
    manifest::{DOCKER_IMAGE, DOCKER_LIST, IMAGE, INDEX},
};

/// Bytes of a manifest that is held.
const SMALL: usize = 64 << 10;

/// A manifest of the source.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) digest: Digest,
    pub(super) document: Document,
    /// All of it, where that is little.
    held: Option<Found>,
}

impl Copier {
    /// A manifest of the source; none where it is not there.
    pub(super) async fn manifest(&self, place: &Place, digest: &Digest) -> Result<Option<Manifest>, Error> {
        let _permit = self.permit().await;
        let Some((found, _room)) = self.fetch(place, digest).await? else { return Ok(None) };
        let invalid = |reason| Error::Manifest { digest: digest.clone(), reason };
        let document = Document::parse(&found.bytes).map_err(invalid)?;
        let held = Some(found).filter(|found| found.bytes.len() <= SMALL);
        Ok(Some(Manifest { digest: digest.clone(), document, held }))
    }

    /// Reads a manifest, its kind known, once there is room for it. Whoever holds the room waits for nobody who may
    /// want some.
    async fn fetch(
        &self,
        place: &Place,
        digest: &Digest,
    ) -> Result<Option<(Found, Option<SemaphorePermit<'_>>)>, Error> {
        let reference = Reference::Digest(digest.clone());
        let coming = self.source().open_manifest(&place.source, &reference).await.map_err(Error::Source)?;
        let Some(coming) = coming else { return Ok(None) };
        // Never closed.
        let room = if coming.size() > SMALL { self.0.room.acquire().await.ok() } else { None };
        let found = coming.read().await.map_err(Error::Source)?;
        Ok(Some((Found { media_type: kind(&found), ..found }, room)))
    }

    /// Pushes a manifest that has all it needs, and says of whom it speaks where the target does not find that out. What
    /// something else needs has to be there, also where it was deleted there later.
    pub(super) async fn put(
        &self,
        place: &Place,
        reference: &Reference,
        manifest: &Manifest,
        headers: &HeaderMap,
        needed: bool,
    ) -> Result<Put, Error> {
        let (put, referrer) = {
            let _permit = self.permit().await;
            let (found, _room) = match &manifest.held {
                Some(found) => (found.clone(), None),
                None => self.fetch(place, &manifest.digest).await?.ok_or_else(|| manifest.is_missing())?,
            };
            let mut put = self.target().put_manifest(&place.target, reference, &found, headers).await;
            if needed && matches!(put, Ok(Put::Newer)) {
                let none = HeaderMap::new();
                put = self.target().put_manifest(&place.target, reference, &found, &none).await;
            }
            let put = put.map_err(Error::Target)?;
            let referrer = match &manifest.document.subject {
                Some(_) if put == (Put::Stored { indexed: false }) => {
                    let invalid = |reason| Error::Manifest { digest: manifest.digest.clone(), reason };
                    Some(document::referrer(&found).map_err(invalid)?)
                }
                _ => None,
            };
            (put, referrer)
        };
        if let Some((subject, referrer)) = manifest.document.subject.as_ref().zip(referrer) {
            self.target().has_no_referrers_api();
            self.keep_fallback(place, subject, &referrer, headers).await?;
        }
        Ok(put)
    }
}

impl Manifest {
    fn is_missing(&self) -> Error {
        Error::Missing(self.digest.clone())
    }
}

/// What it says it is, where the registry did not: an answer that says `application/json` is no use to the target.
fn kind(manifest: &Found) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        #[serde(default)]
        media_type: String,
        manifests: Option<serde::de::IgnoredAny>,
    }
    if is_known(&manifest.media_type) {
        return manifest.media_type.clone();
    }
    match serde_json::from_slice::<Kind>(&manifest.bytes) {
        Ok(said) if !said.media_type.is_empty() => said.media_type,
        Ok(said) if manifest.media_type.is_empty() || manifest.media_type == "application/json" => {
            if said.manifests.is_some() { INDEX } else { IMAGE }.to_owned()
        }
        _ => manifest.media_type.clone(),
    }
}

/// Whether it is a type that only manifests have.
pub(super) fn is_known(media_type: &str) -> bool {
    [IMAGE, INDEX, DOCKER_IMAGE, DOCKER_LIST].contains(&media_type)
}

/// Whether it is the type of what consists of other manifests.
pub(super) fn is_index(media_type: &str) -> bool {
    [INDEX, DOCKER_LIST].contains(&media_type)
}

/// Whether a target may have said that something is not there that a manifest needs.
pub(super) fn lacks(error: &client::Error) -> bool {
    matches!(error.status(), Some(StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND))
}
