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
    tag: String,
    /// None where it was deleted.
    digest: Option<Digest>,
    begun: Instant,
    /// When it was acknowledged.
    ended: Option<Instant>,
}

impl Written {
    pub(super) fn begin(tag: &str, digest: Option<Digest>) -> Self {
        Self { tag: tag.to_owned(), digest, begun: Instant::now(), ended: None }
    }

    pub(super) fn end(&mut self) {
        self.ended = Some(Instant::now());
    }

    /// Nobody can see it any more once this other one is acknowledged.
    fn is_before(&self, other: &Self) -> bool {
        other.ended.is_some() && self.ended.is_some_and(|ended| ended < other.begun)
    }
}

/// What every tag was when it was looked at last.
#[derive(Default)]
pub(super) struct Tags(HashMap<String, Option<Digest>>);

impl Tags {
    /// Looks at all tags that were changed since.
    pub(super) async fn check(&mut self, client: &Client, written: &[Written]) {
        let mut of_tags: HashMap<_, Vec<_>> = HashMap::new();
        for written in written {
            of_tags.entry(&written.tag).or_default().push(written);
        }
        for (tag, all) in of_tags {
            let last = all.iter().filter(|one| !all.iter().any(|other| one.is_before(other)));
            let mut possible: HashSet<_> = last.map(|one| one.digest.clone()).collect();
            if all.iter().all(|one| one.ended.is_none()) {
                possible.insert(self.0.get(tag).cloned().flatten());
            }
            let served = served(client, tag).await;
            assert!(possible.contains(&served), "{tag} is {served:?} and should be one of {possible:?}");
            self.0.insert(tag.clone(), served);
        }
    }

    /// Looks whether all tags are as they were.
    pub(super) async fn check_all(&self, client: &Client) {
        for (tag, digest) in &self.0 {
            assert_eq!(served(client, tag).await, *digest, "{tag}");
        }
    }
}

async fn served(client: &Client, tag: &str) -> Option<Digest> {
    let answer = client.head(&format!("/v2/crash/test/manifests/{tag}")).await;
    if answer.status == StatusCode::NOT_FOUND {
        return None;
    }
    Some(answer.expect(StatusCode::OK).header("docker-content-digest").parse().unwrap())
}
