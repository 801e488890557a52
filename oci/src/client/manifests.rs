//! Manifests: the bytes as they are, always those that the digest names.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    Client, Error, Scope,
    answer::{Answer, size},
};
use crate::{
    Algorithm, Digest, Reference, RepoName,
    manifest::{DOCKER_IMAGE, DOCKER_LIST, IMAGE, INDEX, MAX_MANIFEST},
};

const CONTENT_DIGEST: &str = "docker-content-digest";
/// Said by registries that keep lists of referrers, of a manifest that refers to another one.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Names the bytes.
    pub digest: Digest,
    /// What the registry says that it is, without parameters.
    pub media_type: String,
    /// As pushed.
    pub bytes: Bytes,
}

/// A manifest that has been asked for.
#[derive(Debug)]
pub struct Coming {
    client: Client,
    path: String,
    expected: Option<Digest>,
    answer: Answer,
}

/// What became of a manifest that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there; `indexed` where the registry lists it among the referrers of its subject.
    Stored {
        /// The registry said so.
        indexed: bool,
    },
    /// Something later is there, which stays (412).
    Newer,
}

/// What became of a tag or manifest that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It went.
    Gone,
    /// It was not there.
    Missing,
    /// Something later is there, which stays (412).
    Newer,
}

impl Client {
    /// What a reference names, without its bytes; none where there is nothing.
    pub async fn head_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Option<(Digest, String)>, Error> {
        let scope = Scope::pull(repository);
        let path = path(repository, reference);
        let mut call = self.request(Method::HEAD, &path, &scope)?;
        call.headers = accept();
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refusal(answer).await),
        }
        match (digest(&answer.headers), reference) {
            (Some(digest), _) => Ok(Some((digest, media_type(&answer.headers)))),
            (None, Reference::Digest(digest)) => Ok(Some((digest.clone(), media_type(&answer.headers)))),
            // Not every registry says it.
            (None, Reference::Tag(_)) => {
                let found = self.get_manifest(repository, reference).await?;
                Ok(found.map(|found| (found.digest, found.media_type)))
            }
        }
    }

    /// A manifest whose bytes are what its digest says; none where there is nothing.
    pub async fn get_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Option<Found>, Error> {
        match self.open_manifest(repository, reference).await? {
            Some(coming) => coming.read().await.map(Some),
            None => Ok(None),
        }
    }

    /// The same, its bytes yet to be read: who has many at once may wait until there is room for them.
    pub async fn open_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Option<Coming>, Error> {
        let scope = Scope::pull(repository);
        let path = path(repository, reference);
        let mut call = self.request(Method::GET, &path, &scope)?;
        call.headers = accept();
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refusal(answer).await),
        }
        let expected = match reference {
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(_) => digest(&answer.headers),
        };
        Ok(Some(Coming { client: self.clone(), path, expected, answer }))
    }

    /// Pushes a manifest under a tag or its digest, with headers that say how old it is. Without such, 412 is a refusal:
    /// some say so of a tag that may not move.
    pub async fn put_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
        manifest: &Found,
        headers: &HeaderMap,
    ) -> Result<Put, Error> {
        let scope = Scope::push(repository);
        let path = path(repository, reference);
        let mut call = self.request(Method::PUT, &path, &scope)?;
        call.headers = headers.clone();
        let kind = HeaderValue::from_str(&manifest.media_type);
        let kind = kind.map_err(|error| self.unusable(&Method::PUT, &path, &error.to_string()))?;
        call.headers.insert(header::CONTENT_TYPE, kind);
        call.body = manifest.bytes.clone();
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::PRECONDITION_FAILED if !headers.is_empty() => return Ok(Put::Newer),
            status if status.is_success() => {}
            _ => return Err(self.refusal(answer).await),
        }
        let stored = digest(&answer.headers);
        let differs =
            |stored: &Digest| stored.algorithm() == manifest.digest.algorithm() && *stored != manifest.digest;
        if let Some(stored) = stored.filter(differs) {
            return Err(self.unusable(&Method::PUT, &path, &format!("it stored {stored}, something else")));
        }
        let indexed = answer.headers.contains_key(SUBJECT);
        self.drain(answer).await;
        Ok(Put::Stored { indexed })
    }

    /// Deletes a tag, or a manifest with all its tags; with headers as above.
    pub async fn delete_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
        headers: &HeaderMap,
    ) -> Result<Removed, Error> {
        let scope = Scope::delete(repository);
        let mut call = self.request(Method::DELETE, &path(repository, reference), &scope)?;
        call.headers = headers.clone();
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(Removed::Missing),
            StatusCode::PRECONDITION_FAILED if !headers.is_empty() => Ok(Removed::Newer),
            status if status.is_success() => Ok(Removed::Gone),
            _ => Err(self.refusal(answer).await),
        }
    }

    /// Reads what nobody needs, so that the connection can be used again.
    pub(super) async fn drain(&self, answer: Answer) {
        // Where it is longer, another connection is cheaper.
        let _ = self.read(answer, 64 << 10).await;
    }
}

impl Coming {
    /// How many bytes it has, or may have where the registry does not say.
    #[must_use]
    pub fn size(&self) -> usize {
        size(&self.answer, MAX_MANIFEST)
    }

    /// The manifest.
    pub async fn read(self) -> Result<Found, Error> {
        let Self { client, path, expected, answer } = self;
        let media_type = media_type(&answer.headers);
        let bytes = client.read(answer, MAX_MANIFEST).await?;
        let algorithm = expected.as_ref().map_or(Algorithm::default(), Digest::algorithm);
        let digest = Digest::of(algorithm, &bytes);
        if expected.is_some_and(|expected| expected != digest) {
            let reason = format!("its content is {digest}, the manifest is damaged there");
            return Err(client.unusable(&Method::GET, &path, &reason));
        }
        Ok(Found { digest, media_type, bytes })
    }
}

fn path(repository: &RepoName, reference: &Reference) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// Each type by name: registries convert, or refuse, what was not asked for.
fn accept() -> HeaderMap {
    let types = [IMAGE, INDEX, DOCKER_IMAGE, DOCKER_LIST];
    types.into_iter().map(|kind| (header::ACCEPT, HeaderValue::from_static(kind))).collect()
}

fn digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_owned()
}
