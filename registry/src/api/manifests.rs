//! Pulling, checking, pushing and deleting manifests.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use channel::policy::Action;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use oci::{
    Algorithm, Digest, Manifest, Reference, RepoName, Tag, manifest::MAX_MANIFEST, route::InvalidRoute,
};

use super::{
    Api, DOCKER_CONTENT_DIGEST,
    answer::{client_has, etag, not_modified},
    incoming::whole,
    query::Query,
    replication::kept_stamp,
    shares::Memory,
};
use crate::{
    access::Caller,
    error::Error,
    sendfile::FileQueue,
    storage::{Deleted, NewTag, Put, Storage, StoredManifest},
};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// `tag` parameters of one push. The specification asks for at least 10.
const MAX_TAGS: usize = 100;
/// A manifest is small; who takes longer to send one is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn check(
    storage: &Storage,
    name: RepoName,
    reference: Reference,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let found = storage.find_manifest(name, reference.clone()).await?;
    let manifest = found.ok_or_else(|| Error::ManifestUnknown(reference.to_string()))?;
    Ok(content(manifest, headers, Body::empty))
}

pub(super) async fn pull(
    storage: &Storage,
    name: RepoName,
    reference: Reference,
    headers: &HeaderMap,
    files: Option<FileQueue>,
) -> Result<Response, Error> {
    let found = storage.open_manifest(name, reference.clone()).await?;
    let (manifest, bytes) = found.ok_or_else(|| Error::ManifestUnknown(reference.to_string()))?;
    let size = manifest.size;
    Ok(content(manifest, headers, || bytes.into_body(0, size, files)))
}

fn content(manifest: StoredManifest, headers: &HeaderMap, body: impl FnOnce() -> Body) -> Response {
    let StoredManifest { digest, media_type, size } = manifest;
    if client_has(headers, &digest) {
        return not_modified(&digest);
    }
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::ETAG, etag(&digest)),
        (DOCKER_CONTENT_DIGEST, digest.to_string()),
    ];
    (headers, body()).into_response()
}

pub(super) async fn push(
    api: &Api,
    caller: &Caller,
    (name, reference): (RepoName, Reference),
    query: &Query,
    headers: &HeaderMap,
    (body, mut memory): (Body, Memory),
) -> Result<Response, Error> {
    let stamp = kept_stamp(headers)?;
    let most = announced(headers)?;
    let bytes = whole(body, most, &mut memory, PATIENCE).await?.ok_or(Error::ManifestTooLarge)?;
    let written = reference.to_string();
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let (digest, tags) = named(reference, query, &bytes)?;
    let manifest = Manifest::parse(content_type, &bytes)?;
    if !caller.may(Action::ContentWrite, &name)
        && api.storage.find_manifest(name.clone(), Reference::Digest(digest.clone())).await?.is_none()
    {
        return Err(Error::OnlyTags(digest));
    }
    let subject = manifest.subject.clone();
    let new_tags = tags.iter().map(|tag| NewTag { tag: tag.clone(), is_fixed: caller.must_keep(&name, tag) });
    let new_tags = new_tags.collect();
    match api.storage.put_manifest(name.clone(), manifest, digest.clone(), bytes, new_tags, stamp).await? {
        Put::Fixed(tag, digest) => Err(Error::ImmutableTag(tag, digest)),
        Put::OtherType(known) => Err(Error::OtherMediaType(known)),
        Put::Older(stamp) => Err(Error::Older { reference: written, stamp }),
        Put::Missing(missing) => Err(Error::ManifestIncomplete(missing)),
        Put::Stored => Ok(created(&name, &digest, subject.as_ref(), &tags)),
    }
}

/// Bytes that the manifest has at most.
fn announced(headers: &HeaderMap) -> Result<usize, Error> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let announced = announced.unwrap_or(MAX_MANIFEST);
    if announced > MAX_MANIFEST { Err(Error::ManifestTooLarge) } else { Ok(announced) }
}

/// Under which digest and tags these bytes are pushed.
fn named(reference: Reference, query: &Query, bytes: &Bytes) -> Result<(Digest, Vec<Tag>), Error> {
    let expected = match reference {
        Reference::Tag(tag) => return Ok((Digest::of(Algorithm::default(), bytes), vec![tag])),
        Reference::Digest(digest) => digest,
    };
    let actual = Digest::of(expected.algorithm(), bytes);
    if actual != expected {
        return Err(Error::Mismatch { expected, actual });
    }
    let tags: Vec<_> = query.all("tag").collect();
    if tags.len() > MAX_TAGS {
        return Err(Error::TooManyTags(MAX_TAGS));
    }
    let tags: Result<_, _> = tags.into_iter().map(str::parse).collect();
    Ok((actual, tags.map_err(|tag: oci::name::InvalidTag| InvalidRoute::Reference(tag.into()))?))
}

fn created(name: &RepoName, digest: &Digest, subject: Option<&Digest>, tags: &[Tag]) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{name}/manifests/{digest}")),
        (DOCKER_CONTENT_DIGEST, digest.to_string()),
    ];
    let mut response = (StatusCode::CREATED, headers).into_response();
    let more = subject.map(|subject| (OCI_SUBJECT, subject.as_str())).into_iter();
    let more = more.chain(tags.iter().map(|tag| (OCI_TAG, tag.as_str())));
    for (name, value) in more {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

pub(super) async fn delete(
    storage: &Storage,
    caller: &Caller,
    (name, reference): (RepoName, Reference),
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let (stamp, stays) = (kept_stamp(headers)?, caller.kept(&name));
    match storage.delete_manifest_unless(name, reference.clone(), stamp, stays).await? {
        Deleted::Fixed(tag) => Err(Error::TagStays(tag)),
        Deleted::Done => Ok(StatusCode::ACCEPTED.into_response()),
        Deleted::Unknown => Err(Error::ManifestUnknown(reference.to_string())),
        Deleted::Older(stamp) => Err(Error::Older { reference: reference.to_string(), stamp }),
        Deleted::Needed(needed_by) => Err(Error::Needed { digest: reference.to_string(), needed_by }),
    }
}
