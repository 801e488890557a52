//! Which digests a tag may have after a kill: one that was acknowledged and that nothing acknowledged came after, or one
//! that was under way.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use http::StatusCode;
use oci::Digest;

use crate::client::Client;

/// A change of a tag, as its client saw it.
pub(super) struct Written {
    /// Where the tag is.
    path: String,
    /// None where it was deleted.
    digest: Option<Digest>,
    begun: Instant,
    /// When it was acknowledged.
    ended: Option<Instant>,
}

impl Written {
    pub(super) fn begin(path: String, digest: Option<Digest>) -> Self {
        Self { path, digest, begun: Instant::now(), ended: None }
    }

    pub(super) fn end(&mut self) {
        self.ended = Some(Instant::now());
    }

    /// Where, and what it is since; none where it was not acknowledged.
    pub(super) fn acknowledged(&self) -> Option<(&str, Option<&Digest>)> {
        self.ended.is_some().then_some((&*self.path, self.digest.as_ref()))
    }

    /// Nobody can see it any more once this other one is acknowledged.
    fn is_before(&self, other: &Self) -> bool {
        other.ended.is_some() && self.ended.is_some_and(|ended| ended < other.begun)
    }
}

/// What every tag was when it was looked at last, by its path.
#[derive(Default)]
pub(super) struct Tags(HashMap<String, Option<Digest>>);

impl Tags {
    /// Looks at all tags that were changed since.
    pub(super) async fn check(&mut self, client: &Client, written: &[Written]) {
        let mut of_tags: HashMap<_, Vec<_>> = HashMap::new();
        for written in written {
            of_tags.entry(&written.path).or_default().push(written);
        }
        for (path, all) in of_tags {
            let last = all.iter().filter(|one| !all.iter().any(|other| one.is_before(other)));
            let mut possible: HashSet<_> = last.map(|one| one.digest.clone()).collect();
            if all.iter().all(|one| one.ended.is_none()) {
                possible.insert(self.0.get(path).cloned().flatten());
            }
            let served = served(client, path).await;
            assert!(possible.contains(&served), "{path} is {served:?} and should be one of {possible:?}");
            self.0.insert(path.clone(), served);
        }
    }

    /// Looks whether all tags are as they were.
    pub(super) async fn check_all(&self, client: &Client) {
        for (path, digest) in &self.0 {
            assert_eq!(served(client, path).await, *digest, "{path}");
        }
    }
}

async fn served(client: &Client, path: &str) -> Option<Digest> {
    let answer = client.head(path).await;
    if answer.status == StatusCode::NOT_FOUND {
        return None;
    }
    Some(answer.expect(StatusCode::OK).header("docker-content-digest").parse().unwrap())
}
