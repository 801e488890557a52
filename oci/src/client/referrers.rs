//! What refers to a manifest: by the referrers API, or where a registry has none by the fallback tag, which clients
//! keep up (distribution-spec, "Referrers Tag Schema").

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Client, Error, Scope, manifests::Found};
use crate::{Algorithm, Descriptor, Digest, Reference, RepoName, manifest::INDEX};

/// One manifest that refers to another one.
pub type Referrer = Descriptor;

/// Whether a registry has the API.
#[derive(Debug, Default)]
pub(super) struct Api {
    missing: AtomicBool,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct Fallback {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: String,
    manifests: Vec<Value>,
    #[serde(flatten)]
    more: serde_json::Map<String, Value>,
}

impl Client {
    /// All that refer to a manifest, there or not. What can't be read of a list is left out.
    pub async fn referrers(&self, repository: &RepoName, subject: &Digest) -> Result<Vec<Referrer>, Error> {
        if !self.0.referrers_api.missing.load(Ordering::Relaxed)
            && let Some(found) = self.listed_referrers(repository, subject).await?
        {
            return Ok(found);
        }
        let fallback = self.fallback(repository, subject).await?;
        Ok(fallback.map(|fallback| understood(&fallback.manifests)).unwrap_or_default())
    }

    /// None where the registry has no such list.
    async fn listed_referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
    ) -> Result<Option<Vec<Referrer>>, Error> {
        let scope = Scope::pull(repository);
        let mut path = Some(format!("/v2/{repository}/referrers/{subject}"));
        let mut all = Vec::new();
        let mut first = true;
        while let Some(at) = path.take() {
            let page = match self.get_json::<List>(&at, &scope).await {
                Ok(Some(page)) => page,
                Ok(None) if first => return Ok(None),
                Ok(None) => return Err(self.ends(&at)),
                // Some say it in other words than 404.
                Err(error) if first && error.status().is_some_and(|status| status.is_client_error()) => {
                    return Ok(None);
                }
                // A web page is no list.
                Err(Error::Answer { .. }) if first => return Ok(None),
                Err(error) => return Err(error),
            };
            first = false;
            all.extend(understood(&page.value.manifests));
            path = page.next.filter(|next| *next != at && !page.value.manifests.is_empty());
        }
        Ok(Some(all))
    }

    /// Adds a referrer to the fallback tag of its subject, where a registry does not list it by itself. One at a time
    /// for a subject: whoever else writes the same tag meanwhile may be lost.
    pub async fn add_to_fallback(
        &self,
        repository: &RepoName,
        subject: &Digest,
        referrer: &Referrer,
        headers: &HeaderMap,
    ) -> Result<(), Error> {
        let mut index = self.fallback(repository, subject).await?.unwrap_or_else(|| Fallback {
            schema_version: 2,
            media_type: INDEX.to_owned(),
            manifests: Vec::new(),
            more: serde_json::Map::new(),
        });
        let digest = json!(referrer.digest);
        if index.manifests.iter().any(|known| known["digest"] == digest) {
            return Ok(());
        }
        index.manifests.push(json!(referrer));
        let path = format!("/v2/{repository}/manifests/{}", subject.fallback_tag());
        let bytes = serde_json::to_vec(&index);
        let bytes = bytes.map_err(|error| self.unusable(&Method::GET, &path, &error.to_string()))?;
        let digest = Digest::of(Algorithm::default(), &bytes);
        let manifest = Found { digest, media_type: INDEX.to_owned(), bytes: Bytes::from(bytes) };
        self.put_manifest(repository, &fallback_reference(subject), &manifest, headers).await.map(drop)
    }

    /// Remembers that the registry lists no referrers.
    pub fn has_no_referrers_api(&self) {
        self.0.referrers_api.missing.store(true, Ordering::Relaxed);
    }

    async fn fallback(&self, repository: &RepoName, subject: &Digest) -> Result<Option<Fallback>, Error> {
        let found = self.get_manifest(repository, &fallback_reference(subject)).await?;
        // What stands under the tag and is no index is somebody's own business.
        Ok(found.and_then(|found| serde_json::from_slice(&found.bytes).ok()))
    }
}

fn fallback_reference(subject: &Digest) -> Reference {
    // 71 characters of those that a tag may have; what it parses to is the same text.
    subject.fallback_tag().parse().map_or_else(|_| Reference::Digest(subject.clone()), Reference::Tag)
}

fn understood(manifests: &[Value]) -> Vec<Referrer> {
    manifests.iter().filter_map(|manifest| serde_json::from_value(manifest.clone()).ok()).collect()
}
