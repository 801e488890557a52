//! Pulling, checking and deleting blobs.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};
use oci::{Digest, RepoName};

use super::{
    DOCKER_CONTENT_DIGEST,
    answer::{client_has, etag, not_modified},
};
use crate::{
    error::Error,
    range::{self, Selection},
    sendfile::FileQueue,
    storage::{Deleted, Storage},
};

pub(super) async fn check(
    storage: &Storage,
    name: RepoName,
    digest: Digest,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let size = storage.blob_size(name, digest.clone()).await?;
    let size = size.ok_or_else(|| Error::BlobUnknown(digest.clone()))?;
    if client_has(headers, &digest) {
        return Ok(not_modified(&digest));
    }
    content(&digest, size, headers, |_, _| Body::empty())
}

pub(super) async fn pull(
    storage: &Storage,
    name: RepoName,
    digest: Digest,
    headers: &HeaderMap,
    files: Option<FileQueue>,
) -> Result<Response, Error> {
    let blob = storage.open_blob(name, digest.clone()).await?;
    let blob = blob.ok_or_else(|| Error::BlobUnknown(digest.clone()))?;
    if client_has(headers, &digest) {
        return Ok(not_modified(&digest));
    }
    content(&digest, blob.size(), headers, |first, length| blob.into_body(first, length, files))
}

/// The same for GET and HEAD but for the body.
fn content(
    digest: &Digest,
    size: u64,
    headers: &HeaderMap,
    body: impl FnOnce(u64, u64) -> Body,
) -> Result<Response, Error> {
    let common = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, etag(digest)),
        (DOCKER_CONTENT_DIGEST, digest.to_string()),
    ];
    match range::select(wanted_range(headers, digest), size) {
        Selection::Whole => {
            Ok((common, [(header::CONTENT_LENGTH, size.to_string())], body(0, size)).into_response())
        }
        Selection::Part { first, length } => {
            let part = [
                (header::CONTENT_LENGTH, length.to_string()),
                (header::CONTENT_RANGE, format!("bytes {first}-{}/{size}", first + length - 1)),
            ];
            Ok((StatusCode::PARTIAL_CONTENT, common, part, body(first, length)).into_response())
        }
        Selection::Unsatisfiable => Err(Error::Range { size }),
    }
}

/// The Range header, unless an If-Range asks for it only of other content (RFC 9110, 13.1.5).
fn wanted_range<'a>(headers: &'a HeaderMap, digest: &Digest) -> Option<&'a str> {
    let same = headers.get(header::IF_RANGE).is_none_or(|known| known.as_bytes() == etag(digest).as_bytes());
    if same { headers.get(header::RANGE)?.to_str().ok() } else { None }
}

pub(super) async fn delete(storage: &Storage, name: RepoName, digest: Digest) -> Result<Response, Error> {
    match storage.delete_blob(name, digest.clone()).await? {
        Deleted::Done => Ok(StatusCode::ACCEPTED.into_response()),
        // No tag points to a blob.
        Deleted::Unknown | Deleted::Fixed(_) => Err(Error::BlobUnknown(digest)),
        Deleted::Older(stamp) => Err(Error::Older { reference: digest.to_string(), stamp }),
        Deleted::Needed(needed_by) => Err(Error::Needed { digest: digest.to_string(), needed_by }),
    }
}
