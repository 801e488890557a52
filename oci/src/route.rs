//! Which endpoint a path means, decided from its right end, because a repository's name may contain any word.

use crate::{
    digest::{Digest, InvalidDigest},
    name::{InvalidName, InvalidReference, Reference, RepoName},
};

/// An endpoint of the specification, its parts parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(RepoName),
    /// `/v2/<name>/manifests/<tag-or-digest>`
    Manifest(RepoName, Reference),
    /// `/v2/<name>/blobs/<digest>`
    Blob(RepoName, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(RepoName),
    /// `/v2/<name>/blobs/uploads/<session>`; the session's name is whatever the registry once gave out.
    Upload(RepoName, String),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(RepoName, Digest),
    /// `/v2/<name>/_berth/replication/state`, an extension of Berth's own.
    State(RepoName),
    /// `/v2/_berth/replication/feed`, another one.
    Feed,
}

/// Why a path is no endpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoute {
    /// Nothing of this API.
    #[error("no such endpoint")]
    Unknown,
    /// An endpoint, but of no possible repository.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A manifest, but of no possible tag or digest.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A blob or referrers, but of no possible digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl Route {
    /// Parses the path of a URL as it was sent, percent-encoding and all.
    ///
    /// Only the last segment may be encoded: some clients write `sha256%3A…`. Everything else that the grammar allows
    /// needs no encoding, and so an encoded slash never separates anything.
    pub fn parse(path: &str) -> Result<Self, InvalidRoute> {
        let rest = path.strip_prefix("/v2").ok_or(InvalidRoute::Unknown)?;
        let rest = match rest.strip_prefix('/') {
            None if rest.is_empty() => return Ok(Self::Base),
            None => return Err(InvalidRoute::Unknown),
            Some("") => return Ok(Self::Base),
            Some("_catalog") => return Ok(Self::Catalog),
            Some("_berth/replication/feed") => return Ok(Self::Feed),
            Some(rest) => rest,
        };
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name.parse()?));
        }
        if let Some(name) = rest.strip_suffix("/_berth/replication/state") {
            return Ok(Self::State(name.parse()?));
        }
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Ok(Self::Uploads(name.parse()?));
        }
        let (rest, last) = rest.rsplit_once('/').ok_or(InvalidRoute::Unknown)?;
        let last = percent_decode(last).ok_or(InvalidRoute::Unknown)?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(name.parse()?, last));
        }
        let (name, kind) = rest.rsplit_once('/').ok_or(InvalidRoute::Unknown)?;
        match kind {
            "manifests" => Ok(Self::Manifest(name.parse()?, last.parse()?)),
            "blobs" => Ok(Self::Blob(name.parse()?, last.parse()?)),
            "referrers" => Ok(Self::Referrers(name.parse()?, last.parse()?)),
            _ => Err(InvalidRoute::Unknown),
        }
    }

    /// The repository it is about.
    #[must_use]
    pub fn repository(&self) -> Option<&RepoName> {
        match self {
            Self::Base | Self::Catalog | Self::Feed => None,
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _)
            | Self::State(name) => Some(name),
        }
    }
}

/// None where an escape is cut short or what comes out is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (escape, tail) = tail.split_at_checked(2)?;
            let mut decoded = [0];
            hex::decode_to_slice(escape, &mut decoded).ok()?;
            bytes.push(decoded[0]);
            rest = tail;
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::digest::Algorithm;

    fn name(text: &str) -> RepoName {
        text.parse().unwrap()
    }

    #[rstest]
    #[case("/v2", Route::Base)]
    #[case("/v2/", Route::Base)]
    #[case("/v2/_catalog", Route::Catalog)]
    #[case("/v2/a/b/tags/list", Route::Tags(name("a/b")))]
    #[case("/v2/a/manifests/latest", Route::Manifest(name("a"), "latest".parse().unwrap()))]
    #[case("/v2/a/blobs/uploads/", Route::Uploads(name("a")))]
    #[case("/v2/a/blobs/uploads", Route::Uploads(name("a")))]
    #[case("/v2/a/blobs/uploads/123", Route::Upload(name("a"), "123".into()))]
    #[case("/v2/_berth/replication/feed", Route::Feed)]
    #[case("/v2/a/b/_berth/replication/state", Route::State(name("a/b")))]
    #[case::words_as_names(
        "/v2/blobs/uploads/manifests/tags/list",
        Route::Tags(name("blobs/uploads/manifests"))
    )]
    #[case::list_as_tag("/v2/tags/manifests/list", Route::Manifest(name("tags"), "list".parse().unwrap()))]
    #[case::name_ends_like_an_upload("/v2/a/blobs/uploads/manifests/v1", Route::Manifest(name("a/blobs/uploads"), "v1".parse().unwrap()))]
    fn endpoints(#[case] path: &str, #[case] route: Route) {
        assert_eq!(Route::parse(path), Ok(route));
    }

    #[rstest]
    #[case("/", InvalidRoute::Unknown)]
    #[case("/v1/", InvalidRoute::Unknown)]
    #[case("/v2x", InvalidRoute::Unknown)]
    #[case("/v2/a", InvalidRoute::Unknown)]
    #[case("/v2/a/else/x", InvalidRoute::Unknown)]
    #[case("/v2/manifests/latest", InvalidRoute::Unknown)]
    #[case("/v2/a/_berth/replication/feed", InvalidRoute::Unknown)]
    #[case("/v2/_berth/replication/state", InvalidRoute::Unknown)]
    #[case("/v2/A/tags/list", InvalidName.into())]
    #[case("/v2/../tags/list", InvalidName.into())]
    #[case("/v2/a/../../etc/manifests/latest", InvalidName.into())]
    #[case("/v2/a%2fb/tags/list", InvalidName.into())]
    #[case("/v2/a%00/tags/list", InvalidName.into())]
    #[case("/v2/a//manifests/latest", InvalidName.into())]
    #[case("/v2/a/blobs/sha256:no", InvalidDigest::Syntax.into())]
    #[case("/v2/a/blobs/..%2f..", InvalidDigest::Syntax.into())]
    #[case("/v2/a/manifests/sha256:no", InvalidReference::Digest(InvalidDigest::Syntax).into())]
    #[case("/v2/a/manifests/..", InvalidReference::Tag(crate::name::InvalidTag).into())]
    #[case("/v2/a/manifests/%2e%2e%2f", InvalidReference::Tag(crate::name::InvalidTag).into())]
    #[case("/v2/a/manifests/%", InvalidRoute::Unknown)]
    #[case("/v2/a/manifests/%ff", InvalidRoute::Unknown)]
    fn no_endpoints(#[case] path: &str, #[case] error: InvalidRoute) {
        assert_eq!(Route::parse(path), Err(error));
    }

    proptest! {
        #[test]
        fn every_name_reaches_every_endpoint(
            text in r"(blobs|uploads|manifests|tags|list|referrers|v2|a)(/(blobs|uploads|manifests|tags|list|referrers|b)){0,4}",
            tag in "(list|uploads|manifests|blobs|[a-zA-Z0-9_][a-zA-Z0-9._-]{0,8})",
            content: Vec<u8>,
        ) {
            let name: RepoName = text.parse().unwrap();
            let digest = Digest::of(Algorithm::Sha256, &content);
            let parse = |end: &str| Route::parse(&format!("/v2/{text}/{end}"));
            prop_assert_eq!(parse("tags/list"), Ok(Route::Tags(name.clone())));
            prop_assert_eq!(parse("_berth/replication/state"), Ok(Route::State(name.clone())));
            prop_assert_eq!(parse("blobs/uploads/"), Ok(Route::Uploads(name.clone())));
            prop_assert_eq!(parse("blobs/uploads/1-2"), Ok(Route::Upload(name.clone(), "1-2".into())));
            prop_assert_eq!(parse(&format!("manifests/{tag}")), Ok(Route::Manifest(name.clone(), tag.parse().unwrap())));
            for encoded in [digest.to_string(), digest.as_str().replace(':', "%3A")] {
                prop_assert_eq!(parse(&format!("blobs/{encoded}")), Ok(Route::Blob(name.clone(), digest.clone())));
                prop_assert_eq!(parse(&format!("referrers/{encoded}")), Ok(Route::Referrers(name.clone(), digest.clone())));
                let reference = Reference::Digest(digest.clone());
                prop_assert_eq!(parse(&format!("manifests/{encoded}")), Ok(Route::Manifest(name.clone(), reference)));
            }
        }

        #[test]
        fn parsing_never_panics(path in r"/v2/[a-z/%.:0-9]{0,40}|\PC{0,40}") {
            let _ = Route::parse(&path);
        }
    }
}
