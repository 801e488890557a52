//! Following the feed of a Berth source: first everything is compared, from a cursor that was fetched before, so that
//! nothing falls between; then what the feed tells is copied, page by page.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use channel::{
    feed::{Entry, Kind, Stamp},
    replication::{Follow, Phase},
};
use futures::StreamExt as _;
use http::StatusCode;
use oci::{
    Digest, Reference, Tag,
    client::{self, backoff},
    copy::Place,
};

use super::{
    compare::{Action, Held, decide, when},
    deleting::Gone,
    families::Families,
    filters::Filters,
    plan::InvalidPlan,
    registry::Fed,
    run::{Run, Side, Stop},
};

/// The longest that one request waits for an entry.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often a source is asked that has no place for one more who waits.
const PACE: Duration = Duration::from_secs(2);
/// So long a source may be away at least.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an entry tells of that passes the filters.
struct Change {
    place: Place,
    /// None where a manifest came or went by its digest.
    tag: Option<Tag>,
    digest: Digest,
    /// What it refers to, or signs by its tag.
    subject: Option<Digest>,
    stamp: Stamp,
    deleted: bool,
}

impl Run {
    /// Follows until nothing was pushed for a while that is to be copied.
    pub(super) async fn follow(&self, follow: &Follow) -> Result<(), Stop> {
        let idle = Duration::from_secs(follow.idle_seconds);
        let mut cursor = match &follow.cursor {
            Some(cursor) => cursor.clone(),
            None => self.compare_from_now(idle).await?,
        };
        let mut last = Instant::now();
        loop {
            self.tally.phase(Phase::Following);
            let wait = idle.saturating_sub(last.elapsed()).min(LONGEST_WAIT);
            match self.next(Some(&cursor), wait, idle).await? {
                Fed::None => return Err(InvalidPlan::NoFeed.into()),
                Fed::TooOld => cursor = self.compare_from_now(idle).await?,
                Fed::Page(page) => {
                    cursor = page.cursor;
                    let changes: Vec<_> =
                        latest(page.entries).into_iter().filter_map(|entry| self.wanted(entry)).collect();
                    if changes.is_empty() {
                        self.tally.cursor(&cursor);
                        if last.elapsed() >= idle.saturating_sub(Duration::from_secs(1)) {
                            return Ok(());
                        }
                        continue;
                    }
                    self.in_time(self.take_in(changes)).await?;
                    self.tally.cursor(&cursor);
                }
            }
            last = Instant::now();
        }
    }

    /// Compares everything; the cursor from before.
    async fn compare_from_now(&self, patience: Duration) -> Result<String, Stop> {
        let Fed::Page(page) = self.next(None, Duration::ZERO, patience).await? else {
            return Err(InvalidPlan::NoFeed.into());
        };
        self.compare().await?;
        self.tally.cursor(&page.cursor);
        Ok(page.cursor)
    }

    /// What the feed says. A source that is away may come back within `patience`: to begin anew would cost more.
    async fn next(&self, after: Option<&str>, mut wait: Duration, patience: Duration) -> Result<Fed, Stop> {
        let (mut since, mut failures) = (None, 0);
        loop {
            let error = match self.source.feed(after, wait.as_secs()).await {
                Ok(fed) => return Ok(fed),
                Err(error) => error,
            };
            if error.status() == Some(StatusCode::TOO_MANY_REQUESTS) && !wait.is_zero() {
                // Others wait there already; who only looks needs no place.
                tokio::time::sleep(PACE.min(wait)).await;
                wait = Duration::ZERO;
                continue;
            }
            let since: &mut Instant = since.get_or_insert_with(Instant::now);
            if !error.is_temporary() || since.elapsed() >= patience.max(PATIENCE) {
                return Err(Stop::source(error));
            }
            tracing::debug!(%error, "the feed is asked for again");
            tokio::time::sleep(backoff(failures.min(4))).await;
            failures += 1;
        }
    }

    /// Tags first, then what signs them and refers to them, and what goes for good last.
    async fn take_in(&self, changes: Vec<Change>) {
        let (mut tags, mut signatures, mut referrers) = (Vec::new(), Vec::new(), Vec::new());
        let mut gone: HashMap<Place, Vec<Gone>> = HashMap::new();
        for change in changes {
            match &change.tag {
                Some(tag) if Filters::is_attached(tag) => signatures.push(change),
                Some(_) => tags.push(change),
                None if !change.deleted => referrers.push(change),
                None => gone.entry(change.place).or_default().push((change.digest, Some(change.stamp))),
            }
        }
        let families = self.families().await;
        for some in [tags, signatures, referrers] {
            let each = |change| self.take(change, &families);
            futures::stream::iter(some).for_each_concurrent(self.setup.concurrency, each).await;
        }
        for place in self.refused_places() {
            self.delete_refused(&place).await;
        }
        for (place, gone) in gone {
            match &families {
                Ok(families) => self.forget(&place, families, Vec::new(), gone).await,
                Err(error) => self.unheard(Side::Source, place.source.as_str(), error),
            }
        }
    }

    /// What passes the filters and did not come from the target.
    fn wanted(&self, entry: Entry) -> Option<Change> {
        let Entry { kind, repository, tag, digest, subject, stamp } = entry;
        if self.is_known_there(&stamp) {
            return None;
        }
        let filters = &self.setup.filters;
        let name = self.source.client.endpoint().outside(&repository)?;
        let tag: Option<Tag> = tag.map(|tag| tag.parse()).transpose().ok()?;
        let deleted = kind == Kind::Delete;
        let subject = match &tag {
            Some(tag) => Filters::signed_by(tag),
            None => subject.and_then(|subject| subject.parse().ok()),
        };
        let passes = match (&tag, &subject) {
            (Some(tag), subject) => {
                filters.takes_tag(tag)
                    || (filters.referrers && subject.is_some())
                    || !filters.attached([tag], &BTreeSet::new()).is_empty()
            }
            (None, _) if deleted => self.target.is_berth() && self.setup.propagate,
            (None, subject) => filters.referrers && subject.is_some(),
        };
        if !passes || !filters.takes_repository(name) {
            return None;
        }
        let (place, digest) = (self.setup.place(name).ok()?, digest.parse().ok()?);
        if self.was_brought(&place) {
            return None;
        }
        Some(Change { place, tag, digest, subject, stamp, deleted })
    }

    async fn take(&self, change: Change, families: &Result<Families, client::Error>) {
        let Change { place, tag, digest, subject, stamp, deleted } = change;
        if deleted && !self.setup.propagate {
            // What stays at the target need not come any more.
            let image = tag.map(|tag| format!("{}:{tag}", place.source));
            return image.iter().for_each(|image| self.tally.settled(image));
        }
        // What it refers to may not have been copied. Referrers come along with it then.
        let asks = tag.is_none() || self.setup.filters.selects_tags();
        if let Some(subject) = subject.filter(|_| asks && !deleted)
            && !self.target_has(&place, &subject).await
        {
            return;
        }
        let Some(tag) = tag else {
            self.tally.found(1);
            return self.bring(&place, None, &digest, Some(&stamp)).await;
        };
        let held = Held { digest, stamp: Some(stamp), deleted, media_type: None, attached: None };
        let image = format!("{}:{tag}", place.source);
        let families = match families {
            Ok(families) => families,
            Err(error) => return self.unheard(Side::Source, &image, error),
        };
        if deleted {
            return match self.heir(families, &place, &tag, &held).await {
                Ok(Some(heir)) => self.inherit(&place, tag, heir).await,
                Ok(None) => self.change(&place, tag, held).await,
                Err(error) => self.unheard(Side::Source, &image, &error),
            };
        }
        match self.first_with(families, &place, &tag).await {
            Ok(None) => {
                self.tally.found(1);
                self.bring_signatures(&place, &tag, &held).await;
                self.change(&place, tag, held).await;
            }
            Ok(Some((other, digest))) => self.yields(&place, &tag, &held, &other, &digest),
            Err(error) => self.unheard(Side::Source, &image, &error),
        }
    }

    /// Brings signatures that were pushed before their image had a tag that is copied. First, so that whoever sees the tag
    /// can verify it.
    async fn bring_signatures(&self, place: &Place, tag: &Tag, held: &Held) {
        let filters = &self.setup.filters;
        if !filters.referrers || !filters.selects_tags() || Filters::is_attached(tag) {
            return;
        }
        let image = BTreeSet::from([held.digest.clone()]);
        let beginning = format!("{}.", held.digest.fallback_tag());
        let found = match self.source.state_of(&place.source, &beginning).await {
            Ok(found) => found.into_iter().filter(|(_, held)| !held.deleted),
            Err(error) => {
                return self.unheard(Side::Source, &format!("{}@{}", place.source, held.digest), &error);
            }
        };
        let found: BTreeMap<Tag, Held> =
            found.filter_map(|(name, held)| Some((name.parse().ok()?, held))).collect();
        let signatures = filters.attached(found.keys(), &image);
        let each = async |signature: Tag| {
            if let Some(held) = found.get(&signature) {
                self.tally.found(1);
                self.change(place, signature, held.clone()).await;
            }
        };
        futures::stream::iter(signatures).for_each_concurrent(self.setup.concurrency, each).await;
    }

    /// Decides as a comparison does, but for the target's stamp: a Berth target refuses what is not the latest.
    pub(super) async fn change(&self, place: &Place, tag: Tag, held: Held) {
        let image = format!("{}:{tag}", place.source);
        let there = match self.target.tag(&place.target, &tag).await {
            Ok(there) => there,
            Err(error) => {
                let pushed = held.stamp.as_ref().filter(|_| !held.deleted).and_then(when);
                self.tally.behind(&image, pushed);
                return self.unheard(Side::Target, &image, &error);
            }
        };
        // Whether a deletion is the later one is for a Berth target to say.
        let asks = self.target.is_berth() && held.deleted;
        let there =
            there.map(|there| if asks { Held { digest: held.digest.clone(), ..there } } else { there });
        let stamp = held.stamp.as_ref();
        match decide(&held, there.as_ref(), self.setup.conflicts, self.setup.propagate) {
            Action::Copy => self.bring(place, Some(tag), &held.digest, stamp).await,
            Action::Delete => self.delete(place, &Reference::Tag(tag), stamp).await,
            Action::Equal | Action::Stays if held.deleted => self.tally.settled(&image),
            Action::Equal | Action::Stays => self.tally.caught_up(&image, None, false),
            Action::Conflict => {
                let reason = "the tag points elsewhere at the target, and conflicts are failures".to_owned();
                self.tally.failed(&image, reason, 1);
            }
        }
    }

    pub(super) async fn target_has(&self, place: &Place, digest: &Digest) -> bool {
        let reference = Reference::Digest(digest.clone());
        let found = self.target.client.head_manifest(&place.target, &reference).await;
        // Where nobody knows, what follows says why.
        found.map_or(true, |found| found.is_some())
    }
}

/// Of several entries for the same tag or manifest the last one.
fn latest(entries: Vec<Entry>) -> Vec<Entry> {
    let mut last: BTreeMap<(String, String), (usize, Entry)> = BTreeMap::new();
    for (at, entry) in entries.into_iter().enumerate() {
        let name = entry.tag.clone().unwrap_or_else(|| entry.digest.clone());
        last.insert((entry.repository.clone(), name), (at, entry));
    }
    let mut all: Vec<_> = last.into_values().collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use channel::feed::Stamp;

    use super::*;

    #[test]
    fn the_last_entry_of_a_tag_counts() {
        let entry = |kind, tag: Option<&str>, digest: &str| Entry {
            kind,
            repository: "a".into(),
            tag: tag.map(str::to_owned),
            digest: digest.into(),
            subject: None,
            stamp: Stamp { time: String::new(), origin: String::new() },
        };
        let entries = vec![
            entry(Kind::Push, Some("1"), "x"),
            entry(Kind::Push, Some("2"), "y"),
            entry(Kind::Push, None, "z"),
            entry(Kind::Delete, Some("1"), "x"),
        ];
        let left: Vec<_> = latest(entries).into_iter().map(|entry| (entry.kind, entry.digest)).collect();
        assert_eq!(
            left,
            [(Kind::Push, "y".to_owned()), (Kind::Push, "z".to_owned()), (Kind::Delete, "x".to_owned())]
        );
    }
}
