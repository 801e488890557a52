//! Pushing blobs: in one request, in a session of several, or by mounting what is there.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};
use oci::{Algorithm, ContentRange, Digest, RepoName};

use super::{DOCKER_CONTENT_DIGEST, query::Query, shares::Who};
use crate::{
    access::{Action, Caller},
    error::Error,
    storage::{Finished, NotOpened, Received, Storage, Upload, UploadId},
};

/// Bytes of a chunk for which room is looked for before the first of them is taken.
const WORTH_ASKING: u64 = 1 << 20;

pub(super) async fn start(
    storage: &Storage,
    (caller, who): (Caller, &Who),
    name: RepoName,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    if let Some(digest) = query.get("mount") {
        let digest = parse_digest(digest)?;
        if mount(storage, caller, &name, query.get("from"), &digest).await? {
            return Ok(created(&name, &digest));
        }
    } else if let Some(digest) = query.get("digest") {
        return push_at_once(storage, who, name, parse_digest(digest)?, headers, body).await;
    }
    let algorithm = match query.get("digest-algorithm") {
        None => Algorithm::default(),
        Some(algorithm) => algorithm.parse().map_err(|error| Error::Digest(format!("{error}")))?,
    };
    let id = storage.begin_upload(who.name(), name.clone(), algorithm).await?;
    Ok(session(StatusCode::ACCEPTED, &name, id, 0))
}

/// Whether the repository has the blob now, from another one that the caller may read: the one named, or any. That
/// there is no such blob and that the caller may not read it look the same.
async fn mount(
    storage: &Storage,
    caller: Caller,
    name: &RepoName,
    from: Option<&str>,
    digest: &Digest,
) -> Result<bool, Error> {
    let readable = move |from: &RepoName| caller.may(Action::ContentRead, from);
    let from = match from {
        Some(from) => from.parse().ok().filter(readable),
        None => storage.find_blob(digest.clone(), readable).await?,
    };
    match from {
        Some(from) => Ok(storage.mount_blob(from, name.clone(), digest.clone()).await?),
        None => Ok(false),
    }
}

async fn push_at_once(
    storage: &Storage,
    who: &Who,
    name: RepoName,
    digest: Digest,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let id = storage.begin_upload(who.name(), name.clone(), digest.algorithm()).await?;
    let pushed = receive_last(storage, &name, id, &digest, headers, body).await;
    if pushed.is_err() {
        // Nobody knows of this session, so nobody could go on with it.
        storage.cancel_upload(name.clone(), id).await?;
    }
    pushed.map(|()| created(&name, &digest))
}

pub(super) async fn check(storage: &Storage, name: RepoName, id: &str) -> Result<Response, Error> {
    let id = parse_id(id)?;
    let received = storage.upload_received(name.clone(), id).await?.ok_or(Error::UploadUnknown)?;
    Ok(session(StatusCode::NO_CONTENT, &name, id, received))
}

pub(super) async fn append(
    storage: &Storage,
    name: RepoName,
    id: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let id = parse_id(id)?;
    let upload = open(storage, &name, id).await?;
    let upload = receive(storage, &name, upload, headers, body).await?;
    let received = upload.received();
    storage.suspend_upload(upload).await?;
    Ok(session(StatusCode::ACCEPTED, &name, id, received))
}

pub(super) async fn finish(
    storage: &Storage,
    name: RepoName,
    id: &str,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let id = parse_id(id)?;
    let digest =
        query.get("digest").ok_or_else(|| Error::Digest("the parameter `digest` is missing".into()))?;
    let digest = parse_digest(digest)?;
    receive_last(storage, &name, id, &digest, headers, body).await?;
    Ok(created(&name, &digest))
}

pub(super) async fn cancel(storage: &Storage, name: RepoName, id: &str) -> Result<Response, Error> {
    if storage.cancel_upload(name, parse_id(id)?).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(Error::UploadUnknown)
    }
}

/// Takes the last chunk and makes the session a blob.
async fn receive_last(
    storage: &Storage,
    name: &RepoName,
    id: UploadId,
    digest: &Digest,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Error> {
    let upload = open(storage, name, id).await?;
    let upload = receive(storage, name, upload, headers, body).await?;
    match storage.finish_upload(upload, digest.clone()).await? {
        Finished::Stored => Ok(()),
        Finished::Mismatch(actual) => Err(Error::Mismatch { expected: digest.clone(), actual }),
        Finished::Unknown => Err(Error::UploadUnknown),
    }
}

async fn open(storage: &Storage, name: &RepoName, id: UploadId) -> Result<Upload, Error> {
    storage.open_upload(name.clone(), id).await.map_err(|error| match error {
        NotOpened::Unknown => Error::UploadUnknown,
        NotOpened::Busy => Error::UploadBusy,
        NotOpened::Storage(error) => error.into(),
    })
}

/// Appends a chunk that is in order and as long as it says. One that was cut off is kept as far as it came; one that
/// is not what it says is forgotten.
async fn receive(
    storage: &Storage,
    name: &RepoName,
    upload: Upload,
    headers: &HeaderMap,
    body: Body,
) -> Result<Upload, Error> {
    let mut body = body.into_data_stream();
    let announced = announced_length(headers, upload.received())?;
    let largest = storage.largest_blob();
    let announced_bytes = announced.unwrap_or_default();
    let all = upload.received().saturating_add(announced_bytes);
    if all > largest {
        storage.suspend_upload(upload).await?;
        return Err(Error::BlobTooLarge { largest });
    }
    if announced_bytes > WORTH_ASKING {
        storage.check_quota_for(name.clone(), all).await?;
        storage.check_room_for(announced_bytes).await?;
    }
    let (upload, end) = storage.receive(upload, &mut body).await?;
    let appended = upload.appended();
    let error = match (end, announced) {
        (Received::Whole, Some(said)) if said != appended => {
            storage.roll_back_upload(upload).await?;
            return Err(Error::Length { said, actual: appended });
        }
        (Received::Whole, _) => return Ok(upload),
        (Received::TooLarge, _) => {
            storage.roll_back_upload(upload).await?;
            return Err(Error::BlobTooLarge { largest });
        }
        (Received::Cut, _) => Error::Cut,
        (Received::Idle, _) => Error::Idle,
    };
    tracing::debug!(upload = %upload.id(), appended, "a chunk was cut off");
    storage.suspend_upload(upload).await?;
    Err(error)
}

/// How long the chunk is, where the client says so; checked before anything is read.
fn announced_length(headers: &HeaderMap, received: u64) -> Result<Option<u64>, Error> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let length: Option<u64> = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let Some(range) = text(header::CONTENT_RANGE) else {
        return Ok(length);
    };
    if length == Some(0) && range.is_empty() {
        return Ok(length);
    }
    let range: ContentRange =
        range.parse().map_err(|error| Error::UploadInvalid(format!("Content-Range is {error}")))?;
    match length {
        _ if range.first() != received => Err(Error::OutOfOrder { received }),
        Some(length) if length != range.length() => {
            Err(Error::Length { said: range.length(), actual: length })
        }
        _ => Ok(Some(range.length())),
    }
}

fn parse_id(id: &str) -> Result<UploadId, Error> {
    id.parse().map_err(|()| Error::UploadUnknown)
}

fn parse_digest(digest: &str) -> Result<Digest, Error> {
    digest.parse().map_err(|error| Error::Digest(format!("{error}")))
}

fn created(name: &RepoName, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{name}/blobs/{digest}")),
        (DOCKER_CONTENT_DIGEST, digest.to_string()),
    ];
    (StatusCode::CREATED, headers).into_response()
}

/// Where the session stands. The location is a path, so that it is right under whatever name and behind whatever
/// proxy the client reaches the registry.
fn session(status: StatusCode, name: &RepoName, id: UploadId, received: u64) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}")),
        // An empty session says the same as one with a single byte, by convention.
        (header::RANGE, format!("0-{}", received.saturating_sub(1))),
        (header::HeaderName::from_static("docker-upload-uuid"), id.to_string()),
    ];
    (status, headers).into_response()
}
