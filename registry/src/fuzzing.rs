//! What must hold of every parser of text from outside, whatever it is given: that it ends, and that what it accepts is
//! what the rest relies on. The tests here try text that is random or nearly right; `make fuzz` tries for as long as one
//! likes, by the targets in `fuzz/`.

#[cfg(test)]
mod tests;

use oci::{ContentRange, Digest, Manifest, Reference, RepoName, Route, Tag, manifest};

pub use crate::access::fuzzing::{account_token, authorization, origin, password_file, policy, scope, token};
use crate::{
    range::{Selection, select},
    storage::{Stamp, fuzz_cursor},
};

/// A check by its name, which is also that of its fuzz target and of the folder in `fuzz/seeds` with text to start from.
pub type Target = (&'static str, fn(&[u8]));

/// Every check.
pub const TARGETS: &[Target] = &[
    ("account_token", account_token),
    ("authorization", authorization),
    ("content_range", content_range),
    ("cursor", cursor),
    ("digest", digest),
    ("manifest", manifest),
    ("name", name),
    ("origin", origin),
    ("password_file", password_file),
    ("policy", policy),
    ("range", range),
    ("route", route),
    ("scope", scope),
    ("stamp", stamp),
    ("token", token),
];

/// Text as it comes in paths and headers, where nothing else can.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Splits off the first line.
fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// Paths of URLs.
pub fn route(bytes: &[u8]) {
    let Some(Ok(route)) = text(bytes).map(Route::parse) else { return };
    if let Some(name) = route.repository() {
        is_safe_name(name);
    }
    let path = match &route {
        Route::Base => "/v2/".to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Tags(name) => format!("/v2/{name}/tags/list"),
        Route::Manifest(name, reference) => format!("/v2/{name}/manifests/{reference}"),
        Route::Blob(name, digest) => format!("/v2/{name}/blobs/{digest}"),
        Route::Uploads(name) => format!("/v2/{name}/blobs/uploads/"),
        // Whatever was encoded there is no session, and no part of a path.
        Route::Upload(name, session) if session.parse::<crate::storage::UploadId>().is_ok() => {
            format!("/v2/{name}/blobs/uploads/{session}")
        }
        Route::Upload(..) => return,
        Route::Feed => "/v2/_berth/replication/feed".to_owned(),
        Route::State(name) => format!("/v2/{name}/_berth/replication/state"),
        Route::Referrers(name, digest) => format!("/v2/{name}/referrers/{digest}"),
    };
    assert_eq!(Route::parse(&path).as_ref(), Ok(&route), "another route is written like this one");
}

/// Repositories, tags, references.
pub fn name(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(name) = text.parse::<RepoName>() {
        assert_eq!(name.as_str(), text);
        is_safe_name(&name);
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!(text.len() <= 128 && !text.starts_with('.') && !text.contains(['/', ':', '\0']));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
        assert_eq!(matches!(reference, Reference::Digest(_)), text.contains(':'));
    }
}

/// That it can be a path of folders: none of them hidden, none of ours, none above.
fn is_safe_name(name: &RepoName) {
    assert!(name.as_str().len() <= 255);
    for component in name.as_str().split('/') {
        let byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        assert!(component.starts_with(|c: char| c.is_ascii_alphanumeric()), "{name}");
        assert!(component.bytes().all(byte) && !component.contains(".."), "{name}");
    }
}

/// Digests.
pub fn digest(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(digest) = text.parse::<Digest>() else { return };
    let (algorithm, hex) = (digest.algorithm(), digest.hex());
    assert_eq!(format!("{}:{hex}", algorithm.as_str()), text);
    assert!(hex.len() == algorithm.hex_len() && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(hex, hex.to_lowercase(), "one file would have two names");
    assert!(digest.fallback_tag().parse::<Tag>().is_ok());
}

/// The `Content-Range` of a chunk.
pub fn content_range(bytes: &[u8]) {
    let Some(Ok(range)) = text(bytes).map(str::parse::<ContentRange>) else { return };
    assert!(range.length() > 0);
    let last = range.first().checked_add(range.length() - 1);
    let again = last.map(|last| format!("{}-{last}", range.first()).parse());
    assert_eq!(again, Some(Ok(range)));
}

/// The `Range` of a download; the first eight bytes are the blob's size.
pub fn range(bytes: &[u8]) {
    let Some((size, header)) = bytes.split_first_chunk() else { return };
    let size = u64::from_le_bytes(*size);
    // Headers that are no text count as none.
    if let Selection::Part { first, length } = select(text(header), size) {
        let end = first.checked_add(length);
        assert!(length > 0 && end.is_some_and(|end| end <= size), "{first}, {length} of {size}");
    }
}

/// A `Content-Type`, which may be empty, a line feed, a manifest.
pub fn manifest(bytes: &[u8]) {
    let (kind, bytes) = line(bytes);
    let Some(kind) = text(kind) else { return };
    let Ok(parsed) = Manifest::parse(Some(kind), bytes) else { return };
    let kinds = [manifest::IMAGE, manifest::INDEX, manifest::DOCKER_IMAGE, manifest::DOCKER_LIST];
    assert!(kinds.contains(&parsed.media_type.as_str()), "{}", parsed.media_type);
    assert!(parsed.blobs.is_empty() || parsed.manifests.is_empty());
    for digest in parsed.blobs.iter().chain(&parsed.manifests).chain(&parsed.subject) {
        assert!(digest.as_str().parse::<Digest>().is_ok());
    }
    // As a check of the root reads it again.
    assert_eq!(Manifest::parse(Some(&parsed.media_type), bytes).ok(), Some(parsed));
}

/// The header `Berth-Origin`, and a stamp as it is stored.
pub fn stamp(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for stamp in [Stamp::parse(text), text.parse()].into_iter().flatten() {
        let written = stamp.to_string();
        assert_eq!(written.parse().as_ref(), Ok(&stamp));
        assert!(
            written.is_ascii() && !written.contains('\n') && written.matches(' ').count() == 1,
            "{written}"
        );
        assert_eq!(Stamp::parse(&format!("{}; time={}", stamp.origin, stamp.time)), Ok(stamp));
    }
}

/// A cursor of the feed.
pub fn cursor(bytes: &[u8]) {
    text(bytes).into_iter().for_each(fuzz_cursor);
}
