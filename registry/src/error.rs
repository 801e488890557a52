//! Everything that can go wrong with a request, and the one place that says which status and OCI code it gets.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header};
use oci::{
    Denial, Digest, ErrorCode, ErrorList, RepoName, Tag,
    error::ErrorItem,
    manifest::{InvalidManifest, MAX_MANIFEST},
    route::InvalidRoute,
};
use serde_json::json;

use crate::{
    access::{Origin, Refusal, Wanted, ask},
    storage,
};

/// Seconds after which a registry that is busy may have time.
const RETRY_BUSY: u64 = 5;
/// Missing things that an answer names, so that it stays small.
const MOST_NAMED: usize = 100;

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{message}")]
    Unauthorized { message: String, challenge: HeaderValue },
    #[error("too many failed attempts to log in: try again in {} s", seconds(*.0))]
    TooManyAttempts(Duration),
    #[error("whether these credentials are right can't be checked now: try again")]
    Unchecked,
    #[error("repository `{0}` does not exist or access is denied")]
    Denied(RepoName),
    #[error(
        "manifest {0} is not in this repository: you may set tags on what is there (metadata/write), not push more (content/write)"
    )]
    OnlyTags(Digest),
    #[error("{0}")]
    Route(#[from] InvalidRoute),
    #[error("{0} is not possible here; possible: {1}")]
    Method(http::Method, &'static str),
    #[error("{0}")]
    Parameter(String),
    #[error("{0}")]
    Digest(String),
    #[error("the content's digest is {actual}, not {expected}")]
    Mismatch { expected: Digest, actual: Digest },
    #[error("repository `{0}` is not known")]
    RepositoryUnknown(RepoName),
    #[error("blob {0} is not in this repository")]
    BlobUnknown(Digest),
    #[error("manifest {0} is not in this repository")]
    ManifestUnknown(String),
    #[error("{0}")]
    Manifest(#[from] InvalidManifest),
    #[error("the manifest is larger than {MAX_MANIFEST} bytes")]
    ManifestTooLarge,
    #[error("the manifest needs {} things that are not in this repository", .0.len())]
    ManifestIncomplete(Vec<Digest>),
    #[error("the same bytes are in this repository already, as {0}: push them with that Content-Type")]
    OtherMediaType(String),
    #[error("more than {0} tags in one request")]
    TooManyTags(usize),
    #[error("tag `{0}` is immutable and points to {1}: push another tag")]
    ImmutableTag(Tag, Digest),
    #[error(
        "tag `{0}` is immutable: neither it nor what it points to goes, except by who has the role Admin"
    )]
    TagStays(Tag),
    #[error("`{reference}` was set or deleted here later than that, at {}", stamp.time)]
    Older { reference: String, stamp: storage::Stamp },
    #[error("this cursor is not known, or not any more: compare everything, then follow from a new one")]
    CursorUnknown,
    #[error("too many wait for something to happen: ask without `wait`, or try again")]
    TooManyFollowers,
    #[error("the header `Berth-Origin` can't be used: {0}")]
    Origin(#[from] storage::InvalidStamp),
    #[error("manifest {needed_by} of this repository needs {digest}: delete that first")]
    Needed { digest: String, needed_by: Digest },
    #[error("this upload is not known: it never was, is finished, was cancelled or took too long")]
    UploadUnknown,
    #[error("another request is writing to this upload: try again when it has ended")]
    UploadBusy,
    #[error("{0}")]
    UploadInvalid(String),
    #[error("this chunk is out of order: the upload has {received} bytes, so the next one starts there")]
    OutOfOrder { received: u64 },
    #[error("the range is not satisfiable: the blob has {size} bytes")]
    Range { size: u64 },
    #[error("{said} bytes were announced, {actual} came")]
    Length { said: u64, actual: u64 },
    #[error("the blob is larger than the {largest} bytes that this registry takes")]
    BlobTooLarge { largest: u64 },
    #[error("the registry is busy with other pushes and deletes: try again")]
    Busy,
    #[error("the connection broke before the request was complete")]
    Cut,
    #[error("the request did not go on")]
    Idle,
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error("the request's task ended early: {0}")]
    Task(tokio::task::JoinError),
}

impl Error {
    /// Refusals speak of what the request is about, and say how to get further.
    pub(crate) fn refused(refusal: Refusal, wanted: Wanted<'_>, origin: Option<&Origin>) -> Self {
        let (message, error) = match (refusal, wanted) {
            (Refusal::TooManyAttempts(wait), _) => return Self::TooManyAttempts(wait),
            (Refusal::Unchecked, _) => return Self::Unchecked,
            (Refusal::Denied, Wanted::Action(_, repository) | Wanted::Manifest(repository)) => {
                return Self::Denied(repository.clone());
            }
            (Refusal::NoCredentials | Refusal::Denied, _) => ("authentication required".to_owned(), None),
            (Refusal::WrongCredentials, _) => {
                ("authentication failed: unknown username or wrong password".to_owned(), None)
            }
            (Refusal::InvalidToken, _) => {
                ("the token has expired or was revoked: get another one".to_owned(), Some("invalid_token"))
            }
            (Refusal::InsufficientScope, Wanted::Action(_, repository) | Wanted::Manifest(repository)) => {
                (Self::Denied(repository.clone()).to_string(), Some("insufficient_scope"))
            }
            (Refusal::InsufficientScope, _) => {
                ("the token is not for this".to_owned(), Some("insufficient_scope"))
            }
        };
        Self::Unauthorized { message, challenge: ask(origin, wanted.scope().as_deref(), error) }
    }

    /// Whether it says that something is there or not, which is only for those who may read.
    pub(crate) fn tells_what_is_there(&self) -> bool {
        matches!(
            self,
            Self::RepositoryUnknown(_)
                | Self::BlobUnknown(_)
                | Self::ManifestUnknown(_)
                | Self::OtherMediaType(_)
                | Self::ImmutableTag(..)
                | Self::TagStays(_)
                | Self::Older { .. }
                | Self::Needed { .. }
                | Self::Storage(storage::Error::OverQuota { .. })
        )
    }

    /// The status and the code: here and nowhere else.
    fn kind(&self) -> (StatusCode, ErrorCode) {
        use oci::name::InvalidReference;
        match self {
            Self::Unauthorized { .. } => (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized),
            Self::Denied(_)
            | Self::OnlyTags(_)
            | Self::ImmutableTag(..)
            | Self::TagStays(_)
            | Self::Storage(storage::Error::OverQuota { .. } | storage::Error::UploadsOverQuota { .. }) => {
                (StatusCode::FORBIDDEN, ErrorCode::Denied)
            }
            Self::Route(InvalidRoute::Unknown) | Self::Storage(storage::Error::NoStamps) => {
                (StatusCode::NOT_FOUND, ErrorCode::Unsupported)
            }
            Self::Route(InvalidRoute::Name(_)) => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
            Self::Route(InvalidRoute::Reference(InvalidReference::Tag(_)))
            | Self::Manifest(_)
            | Self::OtherMediaType(_) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
            Self::Route(InvalidRoute::Digest(_) | InvalidRoute::Reference(_))
            | Self::Digest(_)
            | Self::Mismatch { .. } => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
            Self::Method(..) | Self::Needed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported)
            }
            Self::CursorUnknown => (StatusCode::GONE, ErrorCode::Unsupported),
            Self::Older { .. } => (StatusCode::PRECONDITION_FAILED, ErrorCode::Denied),
            Self::Origin(_) | Self::Parameter(_) => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
            Self::RepositoryUnknown(_) => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
            Self::BlobUnknown(_) => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
            Self::ManifestUnknown(_) => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
            Self::ManifestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ManifestInvalid),
            Self::ManifestIncomplete(_) => (StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown),
            Self::TooManyTags(_) => (StatusCode::URI_TOO_LONG, ErrorCode::ManifestInvalid),
            Self::UploadUnknown | Self::Storage(storage::Error::SessionLost) => {
                (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown)
            }
            Self::UploadBusy => (StatusCode::CONFLICT, ErrorCode::BlobUploadInvalid),
            Self::UploadInvalid(_) | Self::Cut => (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
            Self::OutOfOrder { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid),
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid),
            Self::Length { .. } => (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid),
            Self::BlobTooLarge { .. } | Self::Storage(storage::Error::LargerThanDisk) => {
                (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid)
            }
            Self::Idle => (StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid),
            Self::Storage(storage::Error::Full { .. }) => {
                (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unknown)
            }
            Self::TooManyAttempts(_)
            | Self::Busy
            | Self::TooManyFollowers
            | Self::Storage(storage::Error::TooManyUploads(_) | storage::Error::TooManyOwnUploads(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests)
            }
            // Most clients try again by themselves.
            Self::Unchecked => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown),
            Self::Storage(_) | Self::Task(_) => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
        }
    }

    /// What the client reads. What happened inside stays in the log, under the request's id.
    fn items(&self, code: ErrorCode, request: &str) -> Vec<ErrorItem> {
        match self {
            Self::ManifestIncomplete(missing) => incomplete(code, missing),
            Self::Storage(storage::Error::Full { .. }) => {
                let message =
                    "the registry's storage is full: nothing was stored; make room or ask who runs it";
                vec![ErrorItem::new(code, format!("{message} (request {request})"))]
            }
            Self::Storage(storage::Error::SessionLost) => {
                vec![ErrorItem::new(code, Self::UploadUnknown.to_string())]
            }
            Self::Storage(error @ storage::Error::LargerThanDisk) => {
                vec![ErrorItem::new(code, error.to_string())]
            }
            Self::Storage(storage::Error::TooManyUploads(_) | storage::Error::TooManyOwnUploads(_)) => {
                vec![ErrorItem::new(code, format!("{self}: finish or cancel some, or try again later"))]
            }
            Self::Storage(error @ storage::Error::UploadsOverQuota { .. }) => {
                let message = format!("{error}: finish or cancel some, or try again later");
                vec![ErrorItem { code, message, detail: Some(Denial::QuotaExceeded.detail()) }]
            }
            Self::Storage(error @ storage::Error::OverQuota { .. }) => {
                let message =
                    format!("{error}; have something deleted there, or ask whoever sets that quota for more");
                vec![ErrorItem { code, message, detail: Some(Denial::QuotaExceeded.detail()) }]
            }
            Self::ImmutableTag(..) => {
                let detail = Some(Denial::ImmutableTag.detail());
                vec![ErrorItem { code, message: self.to_string(), detail }]
            }
            Self::Storage(error @ storage::Error::NoStamps) => vec![ErrorItem::new(code, error.to_string())],
            Self::Storage(_) | Self::Task(_) => {
                vec![ErrorItem::new(
                    code,
                    format!("the registry failed; its log says why under request {request}"),
                )]
            }
            _ => vec![ErrorItem::new(code, self.to_string())],
        }
    }

    /// The answer. Failures of the server's own are logged here, once.
    pub(crate) fn respond(&self, request: &str) -> Response {
        let (status, code) = self.kind();
        if status.is_server_error() {
            tracing::error!(request, error = %self, "request failed");
        }
        let list = ErrorList { errors: self.items(code, request) };
        let body = serde_json::to_vec(&list).unwrap_or_default();
        let json = HeaderValue::from_static("application/json");
        let mut response = (status, [(header::CONTENT_TYPE, json)], Body::from(body)).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Unauthorized { challenge, .. } => {
                headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
            }
            Self::TooManyAttempts(wait) => {
                headers.insert(header::RETRY_AFTER, seconds(*wait).into());
            }
            _ if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_BUSY.into());
            }
            Self::Method(_, allowed) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Range { size } => {
                if let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}")) {
                    headers.insert(header::CONTENT_RANGE, range);
                }
            }
            _ => {}
        }
        response
    }
}

/// One for each thing that is missing, up to a number.
fn incomplete(code: ErrorCode, missing: &[Digest]) -> Vec<ErrorItem> {
    let named = missing.iter().take(MOST_NAMED).map(|digest| ErrorItem {
        code,
        message: format!("the manifest needs {digest}, which is not in this repository"),
        detail: Some(json!({ "digest": digest })),
    });
    let more = missing.len().saturating_sub(MOST_NAMED);
    let more = (more > 0).then(|| ErrorItem::new(code, format!("and {more} more")));
    named.chain(more).collect()
}

/// Whole seconds, never too few.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::attempts(Error::TooManyAttempts(Duration::from_millis(1500)), "2")]
    #[case::busy(Error::Busy, "5")]
    #[case::followers(Error::TooManyFollowers, "5")]
    #[case::uploads(Error::Storage(storage::Error::TooManyUploads(10_000)), "5")]
    #[case::own_uploads(Error::Storage(storage::Error::TooManyOwnUploads(5000)), "5")]
    fn p34_who_should_come_back_is_told_when(#[case] error: Error, #[case] after: &str) {
        let response = error.respond("1");
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], after);
    }

    #[test]
    fn p10_a_session_that_was_lost_on_the_way_is_unknown() {
        let lost = Error::Storage(storage::Error::SessionLost);
        assert_eq!(lost.kind(), (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown));
    }
}
