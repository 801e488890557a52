//! What refers to a manifest: by the referrers API, or where a registry has none by the fallback tag, which clients
//! keep up (distribution-spec, "Referrers Tag Schema").

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Client, Error, Scope, answer::size, manifests::Found};
use crate::{Algorithm, Descriptor, Digest, Reference, RepoName, manifest::INDEX};

/// Bytes of a list for which there is always room.
const SMALL: usize = 64 << 10;
/// What takes no more memory than such a list, once it was read.
const FEW: usize = 250;
/// Referrers of one manifest.
const MOST: usize = 10_000;

/// One manifest that refers to another one.
pub type Referrer = Descriptor;

/// Whether a registry has the API.
#[derive(Debug, Default)]
pub(super) struct Api {
    missing: AtomicBool,
}

/// Room for what is large, so that there is little of it in memory at once: taken when it is first needed, and kept.
/// Whoever has it waits for nobody who may want some.
#[derive(Debug)]
pub struct Room<'a> {
    all: &'a Semaphore,
    held: Option<SemaphorePermit<'a>>,
}

impl<'a> Room<'a> {
    /// For one thing of these.
    #[must_use]
    pub fn new(all: &'a Semaphore) -> Self {
        Self { all, held: None }
    }

    /// Waits until there is room for what has so many bytes.
    async fn take_for(&mut self, bytes: usize) {
        if bytes > SMALL && self.held.is_none() {
            // Never closed.
            self.held = self.all.acquire().await.ok();
        }
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Listed>,
}

/// What is read of a descriptor. Remarks are skipped: they may be long, and stay in the manifest.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Understood(Understood),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Understood {
    media_type: String,
    digest: Digest,
    size: u64,
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
    /// All that refer to a manifest, there or not, without remarks. What can't be read of a list is left out.
    pub async fn referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
        room: &mut Room<'_>,
    ) -> Result<Vec<Referrer>, Error> {
        if !self.0.referrers_api.missing.load(Ordering::Relaxed)
            && let Some(found) = self.listed_referrers(repository, subject, room).await?
        {
            return Ok(found);
        }
        let Some(found) = self.fallback(repository, subject, room).await? else { return Ok(Vec::new()) };
        // What stands under the tag and is no index is somebody's own business.
        let list = serde_json::from_slice::<List>(&found.bytes);
        Ok(list.map(|list| understood(list).collect()).unwrap_or_default())
    }

    /// None where the registry has no such list.
    async fn listed_referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
        room: &mut Room<'_>,
    ) -> Result<Option<Vec<Referrer>>, Error> {
        let scope = Scope::pull(repository);
        let mut path = Some(format!("/v2/{repository}/referrers/{subject}"));
        let had_room = room.held.is_some();
        let mut all = Vec::new();
        let mut first = true;
        while let Some(at) = path.take() {
            let answer = self.call(self.request(Method::GET, &at, &scope)?).await?;
            room.take_for(size(&answer, usize::MAX)).await;
            let page = match self.page::<List>(&at, answer).await {
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
            path = page.next.filter(|next| *next != at && !page.value.manifests.is_empty());
            all.extend(understood(page.value));
            if all.len() > MOST {
                return Err(self.unusable(
                    &Method::GET,
                    &at,
                    &format!("it lists more than {MOST} referrers"),
                ));
            }
            if path.is_some() {
                room.take_for(usize::MAX).await;
            }
        }
        // Not every registry says how long an answer is.
        if !had_room && all.len() <= FEW {
            room.held = None;
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
        room: &mut Room<'_>,
    ) -> Result<(), Error> {
        let found = self.fallback(repository, subject, room).await?;
        let index = found.and_then(|found| serde_json::from_slice::<Fallback>(&found.bytes).ok());
        let mut index = index.unwrap_or_else(|| Fallback {
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

    async fn fallback(
        &self,
        repository: &RepoName,
        subject: &Digest,
        room: &mut Room<'_>,
    ) -> Result<Option<Found>, Error> {
        let coming = self.open_manifest(repository, &fallback_reference(subject)).await?;
        let Some(coming) = coming else { return Ok(None) };
        room.take_for(coming.size()).await;
        coming.read().await.map(Some)
    }
}

fn fallback_reference(subject: &Digest) -> Reference {
    // 71 characters of those that a tag may have; what it parses to is the same text.
    subject.fallback_tag().parse().map_or_else(|_| Reference::Digest(subject.clone()), Reference::Tag)
}

fn understood(list: List) -> impl Iterator<Item = Referrer> {
    list.manifests.into_iter().filter_map(|listed| match listed {
        Listed::Understood(Understood { media_type, digest, size }) => {
            Some(Descriptor { media_type, digest, size, artifact_type: None, annotations: None })
        }
        Listed::Other(_) => None,
    })
}
