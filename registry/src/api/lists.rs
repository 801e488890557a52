//! Lists: tags, referrers, repositories. Sorted, in pages, each page with a link to the next.

use axum::response::Response;
use http::{HeaderName, HeaderValue};
use oci::{Descriptor, Digest, RepoName, manifest::INDEX};
use serde::Serialize;
use serde_json::json;

use super::{
    answer::{json, with_next},
    query::Query,
};
use crate::{
    access::Caller,
    error::Error,
    storage::{Holding, Storage},
};

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// Largest page, and the one that is sent to who does not ask for a size.
const MAX_PAGE: usize = 1000;
/// Referrers with a lot of annotations end a page early: clients read at most 4 MiB.
const MAX_REFERRERS_WEIGHT: usize = 1 << 20;

pub(super) async fn repositories(
    storage: &Storage,
    caller: Caller,
    query: &Query,
) -> Result<Response, Error> {
    let last = query.get("last").map(str::to_owned);
    let n = page_size(query)?;
    let holding = match query.get("emptied") {
        None | Some("false") => Holding::Manifests,
        Some("true") => Holding::Records,
        Some(_) => return Err(Error::Parameter("the parameter `emptied` must be true or false".into())),
    };
    let next = move |from: &str| caller.next_listed(from);
    let (page, more) = storage.repositories(holding, last, n, next).await?;
    let response = json("application/json", &json!({ "repositories": page }));
    Ok(match page.last() {
        Some(last) if more => with_next(response, "/v2/_catalog", &query.with_last(last.as_str())),
        _ => response,
    })
}

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a RepoName,
    tags: &'a [String],
}

pub(super) async fn tags(storage: &Storage, name: RepoName, query: &Query) -> Result<Response, Error> {
    let last = query.get("last").map(str::to_owned);
    let page = storage.tags(name.clone(), last, page_size(query)?).await?;
    let page = page.ok_or_else(|| Error::RepositoryUnknown(name.clone()))?;
    let (tags, more) = page.as_ref();
    let response = json("application/json", &Tags { name: &name, tags });
    Ok(match tags.last() {
        Some(last) if *more => with_next(response, &format!("/v2/{name}/tags/list"), &query.with_last(last)),
        _ => response,
    })
}

/// An image index.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Referrers {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

pub(super) async fn referrers(
    storage: &Storage,
    name: RepoName,
    subject: Digest,
    query: &Query,
) -> Result<Response, Error> {
    let wanted = query.media_type("artifactType");
    let last = query.get("last").and_then(|last| last.parse().ok());
    let limits = (MAX_PAGE, MAX_REFERRERS_WEIGHT);
    let page = storage.referrers(name.clone(), subject.clone(), wanted.clone(), last, limits).await?;
    let index = Referrers { schema_version: 2, media_type: INDEX, manifests: page.manifests };
    let mut response = json(INDEX, &index);
    if wanted.is_some() {
        response.headers_mut().insert(OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Ok(match page.more_after {
        Some(last) => {
            with_next(response, &format!("/v2/{name}/referrers/{subject}"), &query.with_last(last.as_str()))
        }
        None => response,
    })
}

pub(super) fn page_size(query: &Query) -> Result<usize, Error> {
    let Some(n) = query.get("n") else {
        return Ok(MAX_PAGE);
    };
    if n.is_empty() || !n.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::Parameter("the parameter `n` must be a number from 0".into()));
    }
    // What does not even fit into a number is above the bound too.
    Ok(n.parse().map_or(MAX_PAGE, |n: usize| n.min(MAX_PAGE)))
}
