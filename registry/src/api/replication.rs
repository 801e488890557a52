//! For who keeps another registry equal to this one: the state of a repository, and stamps that a push or delete keeps.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use axum::response::Response;
use http::HeaderMap;
use oci::RepoName;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Api,
    answer::{json, with_next},
    lists::page_size,
    query::Query,
};
use crate::{
    access::{Access, Caller},
    error::Error,
    storage::{InvalidStamp, Stamp, Storage},
};

/// An answer waits no longer for the first entry.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who waits waits no longer after another policy came.
const LOOK: Duration = Duration::from_secs(1);

/// Each push wakes all who wait.
const FOLLOWERS: usize = 256;
/// Of these, those of one login.
const FOLLOWERS_OF_ONE: usize = 16;

/// Those who wait for something to happen.
#[derive(Debug)]
pub(crate) struct Followers {
    places: Semaphore,
    /// How many places each login has.
    taken: Mutex<HashMap<Arc<str>, usize>>,
    /// When it is cancelled nobody waits any longer.
    end: CancellationToken,
}

impl Followers {
    pub(crate) fn until(end: CancellationToken) -> Self {
        Self::at_most(FOLLOWERS, end)
    }

    pub(super) fn at_most(places: usize, end: CancellationToken) -> Self {
        Self { places: Semaphore::new(places), taken: Mutex::default(), end }
    }

    fn place(&self, login: Option<Arc<str>>) -> Result<Place<'_>, Error> {
        let permit = self.places.try_acquire().map_err(|_| Error::TooManyFollowers)?;
        if let Some(login) = &login {
            let mut taken = self.taken();
            let count = taken.get(login).copied().unwrap_or_default();
            if count >= FOLLOWERS_OF_ONE {
                return Err(Error::TooManyFollowers);
            }
            taken.insert(Arc::clone(login), count + 1);
        }
        Ok(Place { followers: self, login, _permit: permit })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of one who waits, until it is dropped.
#[derive(Debug)]
struct Place<'a> {
    followers: &'a Followers,
    /// None where there is no policy.
    login: Option<Arc<str>>,
    _permit: SemaphorePermit<'a>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(login) = &self.login else { return };
        let mut taken = self.followers.taken();
        if let Some(count) = taken.get_mut(login) {
            *count -= 1;
            if *count == 0 {
                taken.remove(login);
            }
        }
    }
}

/// The stamp of another registry that a request is to keep.
pub(super) fn kept_stamp(headers: &HeaderMap) -> Result<Option<Stamp>, Error> {
    let mut all = headers.get_all(channel::feed::ORIGIN_HEADER).iter();
    let Some(header) = all.next() else { return Ok(None) };
    let text = header.to_str().ok().filter(|_| all.next().is_none()).ok_or(InvalidStamp::Syntax)?;
    Ok(Some(Stamp::parse(text)?.check(SystemTime::now())?))
}

/// Tags and recorded deletions, a page as that of tags.
pub(super) async fn state(storage: &Storage, name: RepoName, query: &Query) -> Result<Response, Error> {
    let last = query.get("last").map(str::to_owned);
    let page = storage.state(name.clone(), last, page_size(query)?).await?;
    let page = page.ok_or_else(|| Error::RepositoryUnknown(name.clone()))?;
    let told = channel::feed::StatePage { entries: page.entries.clone(), tells_attached: true };
    let response = json("application/json", &told);
    Ok(match &page.more_after {
        Some(last) => {
            with_next(response, &format!("/v2/{name}/_berth/replication/state"), &query.with_last(last))
        }
        None => response,
    })
}

/// What happened in the repositories that the caller sees in the list.
pub(super) async fn feed(api: &Api, caller: Caller, query: &Query) -> Result<Response, Error> {
    let n = page_size(query)?.max(1);
    let wait = match query.get("wait") {
        None => Duration::ZERO,
        Some(text) => wait(text).ok_or_else(|| {
            Error::Parameter("the parameter `wait` must be a number of seconds from 0 to 60".into())
        })?,
    };
    let after = query.get("after").map(str::to_owned);
    let _place = if wait.is_zero() { None } else { Some(api.followers.place(caller.login())?) };
    let end = async {
        api.followers.end.run_until_cancelled(until(&api.access, Instant::now() + wait)).await;
    };
    let readable = move |name: &RepoName| caller.may_list(name);
    let page = api.storage.follow(after, n, readable, end).await?;
    Ok(json("application/json", &page.ok_or(Error::CursorUnknown)?))
}

fn wait(text: &str) -> Option<Duration> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|_| is_number).map(Duration::from_secs)?;
    (seconds <= PATIENCE).then_some(seconds)
}

/// Until a time, or not long after another policy decides: what the caller may see was decided under this one.
async fn until(access: &Access, end: Instant) {
    let revision = access.policy_revision();
    while Instant::now() < end && access.policy_revision() == revision {
        tokio::time::sleep_until(end.min(Instant::now() + LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_takes_no_more_than_its_places() {
        let followers = Followers::at_most(FOLLOWERS_OF_ONE + 2, CancellationToken::new());
        let place = |login: &str| followers.place(Some(login.into()));
        let mut one: Vec<_> = (0..FOLLOWERS_OF_ONE).map(|_| place("one").unwrap()).collect();
        assert!(matches!(place("one"), Err(Error::TooManyFollowers)));
        let other = place("other").unwrap();
        one.pop();
        one.push(place("one").unwrap());
        let without_policy = followers.place(None).unwrap();
        assert!(matches!(place("other"), Err(Error::TooManyFollowers)), "all places are taken");
        drop((one, other, without_policy));
        assert!(followers.taken().is_empty());
    }
}
