//! JSON that a registry gives, in pages where it is long.

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Client, Scope, answer::Answer, error::Error, link, send::Call};
use crate::{RepoName, Tag};

/// Bytes of a page; names have 255 at most.
const MAX_PAGE: usize = 8 << 20;
/// Names of one page.
const PAGE: usize = 1000;

/// Of one list: more than any registry holds, and few enough to be kept in memory.
const MOST_NAMES: usize = 1_000_000;

/// One page, and where the next one is.
#[derive(Debug)]
pub struct Page<T> {
    /// What it holds.
    pub value: T,
    /// Path and query of the next one.
    pub next: Option<String>,
    /// The answer's headers.
    pub headers: HeaderMap,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

/// The way through a list, which comes to an end whatever the registry says.
#[derive(Debug, Default)]
struct Pages {
    seen: HashSet<String>,
    names: usize,
}

impl Pages {
    /// Where the next page is, after one with so many names; none after the last one, or what is wrong.
    fn turn(&mut self, at: String, names: usize, next: Option<String>) -> Result<Option<String>, String> {
        self.names += names;
        if self.names > MOST_NAMES {
            return Err(format!("it lists more than {MOST_NAMES} names: name those to copy"));
        }
        let next = next.filter(|next| *next != at && names > 0);
        self.seen.insert(at);
        match next {
            Some(next) if self.seen.contains(&next) => {
                Err(format!("its pages go in a circle: the next one is {next} again"))
            }
            next => Ok(next),
        }
    }
}

impl Client {
    /// Whether the registry speaks this API and lets us in; the headers of its answer.
    pub async fn ping(&self) -> Result<HeaderMap, Error> {
        let (method, scope) = (Method::GET, Scope::none());
        let answer = self.call(self.request(method, "/v2/", &scope)?).await?;
        if answer.status.is_success() { Ok(answer.headers) } else { Err(self.refusal(answer).await) }
    }

    /// JSON at a path of the registry; none where there is nothing (404).
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        scope: &Scope,
    ) -> Result<Option<Page<T>>, Error> {
        let answer = self.call(self.request(Method::GET, path, scope)?).await?;
        self.page(path, answer).await
    }

    /// The same in one try, for who has a pace of its own: that it is too early (429) keeps no other request.
    pub async fn try_json<T: DeserializeOwned>(
        &self,
        path: &str,
        scope: &Scope,
    ) -> Result<Option<Page<T>>, Error> {
        let answer = self.follow(&self.request(Method::GET, path, scope)?).await?;
        self.page(path, answer).await
    }

    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
        answer: Answer,
    ) -> Result<Option<Page<T>>, Error> {
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refusal(answer).await),
        }
        let headers = answer.headers.clone();
        let next = link::next(&headers);
        let bytes = self.read(answer, MAX_PAGE).await?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| self.unusable(&Method::GET, path, &error.to_string()))?;
        Ok(Some(Page { value, next, headers }))
    }

    /// All tags of a repository, in the registry's order; those that nobody could pull are left out.
    pub async fn tags(&self, repository: &RepoName) -> Result<Vec<Tag>, Error> {
        let scope = Scope::pull(repository);
        let mut path = Some(format!("/v2/{repository}/tags/list?n={PAGE}"));
        let (mut all, mut pages) = (Vec::new(), Pages::default());
        let mut first = true;
        while let Some(at) = path.take() {
            let page = match self.get_json::<Tags>(&at, &scope).await? {
                None if first => break,
                page => page.ok_or_else(|| self.ends(&at))?,
            };
            first = false;
            let tags = page.value.tags.unwrap_or_default();
            all.extend(tags.iter().filter_map(|tag| tag.parse().ok()));
            path = self.turn(&mut pages, at, tags.len(), page.next)?;
        }
        Ok(all)
    }

    /// All repositories that the caller may see; none where the registry does not list them.
    pub async fn catalog(&self) -> Result<Option<Vec<RepoName>>, Error> {
        self.catalog_of("").await
    }

    /// The same with a parameter that the registry knows, `name=value`.
    pub async fn catalog_of(&self, parameter: &str) -> Result<Option<Vec<RepoName>>, Error> {
        let scope = Scope::catalog();
        let and = if parameter.is_empty() { "" } else { "&" };
        let mut path = Some(format!("/v2/_catalog?n={PAGE}{and}{parameter}"));
        let (mut all, mut pages) = (Vec::new(), Pages::default());
        let mut first = true;
        while let Some(at) = path.take() {
            let page = match self.get_json::<Catalog>(&at, &scope).await {
                Ok(Some(page)) => page,
                Ok(None) | Err(Error::Unauthorized { .. }) if first => return Ok(None),
                Err(error) if first && error.status().is_some_and(|status| status.is_client_error()) => {
                    return Ok(None);
                }
                Ok(None) => return Err(self.ends(&at)),
                Err(error) => return Err(error),
            };
            first = false;
            let names = page.value.repositories.unwrap_or_default();
            all.extend(names.iter().filter_map(|name| name.parse().ok()));
            path = self.turn(&mut pages, at, names.len(), page.next)?;
        }
        Ok(Some(all))
    }

    fn turn(
        &self,
        pages: &mut Pages,
        at: String,
        names: usize,
        next: Option<String>,
    ) -> Result<Option<String>, Error> {
        let path = at.clone();
        pages.turn(at, names, next).map_err(|reason| self.unusable(&Method::GET, &path, &reason))
    }

    /// What a list that ends before its end is: nobody may take it for all there is.
    #[must_use]
    pub fn ends(&self, path: &str) -> Error {
        self.unusable(&Method::GET, path, "the page that the one before it names is not there (404)")
    }

    /// A request without headers or body.
    pub(super) fn request<'a>(
        &self,
        method: Method,
        path: &str,
        scope: &'a Scope,
    ) -> Result<Call<'a>, Error> {
        let uri: Result<Uri, _> = format!("{}{path}", self.endpoint().origin()).parse();
        let uri = uri.map_err(|error| self.unusable(&method, path, &error.to_string()))?;
        Ok(Call { method, uri, headers: HeaderMap::new(), body: Bytes::new(), scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(pages: &mut Pages, at: &str, names: usize, next: &str) -> Result<Option<String>, String> {
        pages.turn(at.to_owned(), names, Some(next.to_owned()))
    }

    #[test]
    fn lists_end() {
        let mut pages = Pages::default();
        assert_eq!(turn(&mut pages, "/1", 2, "/2").unwrap().unwrap(), "/2");
        assert_eq!(pages.turn("/2".into(), 1, None), Ok(None));
        for (names, path) in [(0, "/3"), (1, "/2")] {
            assert_eq!(turn(&mut Pages::default(), "/2", names, path), Ok(None), "as some registries say it");
        }
    }

    #[test]
    fn what_never_ends_is_given_up() {
        let mut pages = Pages::default();
        turn(&mut pages, "/1", 1, "/2").unwrap();
        assert!(turn(&mut pages, "/2", 1, "/1").unwrap_err().contains("circle"));
        let mut pages = Pages::default();
        let mut page = |n: usize| turn(&mut pages, &format!("/{n}"), 1000, &format!("/{}", n + 1));
        assert!((0..MOST_NAMES / 1000).all(|n| page(n).is_ok()));
        assert!(page(MOST_NAMES / 1000).unwrap_err().contains("more than 1000000 names"));
    }
}
