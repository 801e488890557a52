//! One end of a replication: its client, and if it is a Berth registry, what only those tell.

use std::collections::BTreeMap;

use channel::feed::{FeedPage, MANY, ORIGIN_HEADER, REGISTRY_HEADER, Stamp, StatePage};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use oci::{
    Reference, RepoName, Tag,
    client::{Client, Error, Scope},
};

use super::compare::Held;

/// Entries of one page.
const PAGE: usize = 1000;
/// The same where there are few.
const FEW: usize = 20;
const FEED: &str = "/v2/_berth/replication/feed";

/// A registry that answered.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) client: Client,
    /// Its id, if it is one of ours.
    pub(super) id: Option<String>,
}

/// What a repository holds.
pub(super) type State = BTreeMap<String, Held>;

/// What a feed said.
#[derive(Debug)]
pub(super) enum Fed {
    Page(FeedPage),
    /// It does not know the cursor any more.
    TooOld,
    /// There is none.
    None,
}

impl Registry {
    /// Asks who it is.
    pub(super) async fn meet(client: Client) -> Result<Self, Error> {
        let headers = client.ping().await?;
        let id = headers.get(REGISTRY_HEADER).and_then(|id| id.to_str().ok()).map(str::to_owned);
        Ok(Self { client, id })
    }

    pub(super) fn is_berth(&self) -> bool {
        self.id.is_some()
    }

    /// Whom what it has comes from, unless a stamp says more.
    pub(super) fn origin(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.client.host())
    }

    /// Repositories of a Berth registry of which nothing is left but the records of what was deleted there.
    pub(super) async fn emptied(&self) -> Result<Vec<RepoName>, Error> {
        if !self.is_berth() {
            return Ok(Vec::new());
        }
        Ok(self.client.catalog_of("emptied=true").await?.unwrap_or_default())
    }

    /// Tags and recorded deletions of a repository with their stamps; none where it tells no such thing.
    pub(super) async fn state(&self, repository: &RepoName) -> Result<Option<State>, Error> {
        if !self.is_berth() {
            return Ok(None);
        }
        let path = format!("/v2/{repository}/_berth/replication/state?n={PAGE}");
        self.states(repository, path, |_| true).await.map(Some)
    }

    /// Of a Berth registry's repository the tags that begin so, which stand beside each other there.
    pub(super) async fn state_of(&self, repository: &RepoName, beginning: &str) -> Result<State, Error> {
        let path = format!("/v2/{repository}/_berth/replication/state?n={FEW}&last={beginning}");
        let mut state = self.states(repository, path, |name| name.starts_with(beginning)).await?;
        state.retain(|name, _| name.starts_with(beginning));
        Ok(state)
    }

    /// Pages as long as their last names are wanted.
    async fn states(
        &self,
        repository: &RepoName,
        path: String,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<State, Error> {
        let scope = Scope::pull(repository);
        let mut path = Some(path);
        let mut state = State::new();
        let mut first = true;
        while let Some(at) = path.take() {
            let page = match self.client.get_json::<StatePage>(&at, &scope).await? {
                // A repository that is not there has nothing.
                None if first => break,
                page => page.ok_or_else(|| self.client.ends(&at))?,
            };
            first = false;
            let goes_on = page.value.entries.last().is_some_and(|last| wanted(&last.name));
            let tells_attached = page.value.tells_attached;
            state.extend(page.value.entries.into_iter().filter_map(|entry| {
                let attached = entry.attached.or_else(|| (!tells_attached).then(|| MANY.to_owned()));
                let digest = entry.digest.parse().ok()?;
                let held = Held {
                    digest,
                    stamp: Some(entry.stamp),
                    deleted: entry.deleted,
                    media_type: None,
                    attached,
                };
                Some((entry.name, held))
            }));
            path = page.next.filter(|next| *next != at && goes_on);
        }
        Ok(state)
    }

    /// What a tag points to now.
    pub(super) async fn tag(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Held>, Error> {
        let found = self.client.head_manifest(repository, &Reference::Tag(tag.clone())).await?;
        Ok(found.map(|(digest, media_type)| {
            let media_type = Some(media_type).filter(|kind| !kind.is_empty());
            Held { digest, stamp: None, deleted: false, media_type, attached: None }
        }))
    }

    /// What happened after a cursor; without one only the present one. Waits for the first entry for so many seconds. One
    /// try: who follows has patience enough.
    pub(super) async fn feed(&self, after: Option<&str>, wait: u64) -> Result<Fed, Error> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(after) = after {
            query.append_pair("after", after).append_pair("wait", &wait.to_string());
        }
        let path = format!("{FEED}?{}", query.append_pair("n", &PAGE.to_string()).finish());
        match self.client.try_json(&path, &Scope::none()).await {
            Ok(Some(page)) => Ok(Fed::Page(page.value)),
            Ok(None) => Ok(Fed::None),
            Err(error) if error.status() == Some(StatusCode::GONE) => Ok(Fed::TooOld),
            Err(error) => Err(error),
        }
    }
}

/// Headers that let a Berth registry keep a stamp; none for others.
pub(super) fn keeping(target: &Registry, stamp: &Stamp) -> HeaderMap {
    let value = HeaderValue::try_from(format!("{}; time={}", stamp.origin, stamp.time)).ok();
    let value = value.filter(|_| target.is_berth());
    value.map(|value| (HeaderName::from_static(ORIGIN_HEADER), value)).into_iter().collect()
}
