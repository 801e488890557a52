//! Answers that have content: their entity tag, conditional requests, and JSON pages with a link to the next.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use oci::Digest;
use serde::Serialize;

use super::DOCKER_CONTENT_DIGEST;

/// An entity tag that is never equal for different content.
pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client says it has this content (RFC 9110, 13.1.2; compared weakly, as it must be).
pub(super) fn client_has(headers: &HeaderMap, digest: &Digest) -> bool {
    let etag = etag(digest);
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

/// 304: the client has it.
pub(super) fn not_modified(digest: &Digest) -> Response {
    let headers = [(header::ETAG, etag(digest)), (DOCKER_CONTENT_DIGEST, digest.to_string())];
    (StatusCode::NOT_MODIFIED, headers).into_response()
}

/// A value as JSON.
pub(super) fn json(media_type: &'static str, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, media_type)], Body::from(body)).into_response()
}

/// Says where the next page is (RFC 8288).
pub(super) fn with_next(mut response: Response, path: &str, query: &str) -> Response {
    if let Ok(link) = HeaderValue::from_str(&format!("<{path}?{query}>; rel=\"next\"")) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}
