//! Follows the feeds of source Registries, as long as some Replication waits for their pushes.
//!
//! What is asked of a feed is whether it has something for a target after that target's own cursor: so nothing is missed,
//! whatever happened before the operator started, and nobody waits for anybody else. A target whose run is under way is
//! followed by that run. The first entry that counts marks the target; its run copies all others as well. What is pushed to
//! repositories that the Replication's account may not read does not count.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use channel::{
    client::{self, Client},
    feed::FeedPage,
};
use crds::{Replication, replication::TriggerType};
use futures::{StreamExt as _, stream::FuturesUnordered};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource as _, ResourceExt as _, runtime::reflector::ObjectRef};
use tokio::sync::watch;

use super::end::source_ref;
use crate::{
    context::Context,
    controller::{Guarded, GuardedReplication},
    names, replicas,
};

mod news;

use news::{mark, set};

/// How long an answer of the feed waits for an entry; the client gives up later.
const WAIT_SECONDS: u64 = 5;
/// Entries in one answer.
const PAGE: usize = 1000;
/// How soon after a failure a registry is asked again.
const AWAY: Duration = Duration::from_secs(2);
/// How soon a registry is asked again that has no feed.
const NO_FEED: Duration = Duration::from_secs(60);
/// A client's certificate is good for longer.
const RENEW: Duration = Duration::from_secs(30 * 60);
/// How often it is looked whether other registries are to be followed, if nobody tells.
const LOOK: Duration = Duration::from_secs(30);

/// Follows what is to be followed; never ends.
pub(crate) async fn run(context: Arc<Context>) {
    // Who may read what is not known before.
    while context.stores.complete().await.is_err() {
        tokio::time::sleep(AWAY).await;
    }
    let (mut following, mut sources) = (FuturesUnordered::new(), HashSet::new());
    let mut changes = context.replications.changes();
    loop {
        changes.mark_unchanged();
        for source in wanted(&context) {
            if sources.insert(source.clone()) {
                following.push(follow(Arc::clone(&context), source));
            }
        }
        tokio::select! {
            Some(ended) = following.next() => { sources.remove(&ended); }
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The Registries of which some Replication waits for pushes that go on from a cursor.
pub(super) fn wanted(context: &Context) -> HashSet<ObjectRef<Guarded>> {
    let all = context.stores.replications.state();
    let readable = all.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    let following = readable.filter(|replication| follows(replication) && has_cursor(replication));
    let mut sources: HashSet<_> = following.filter_map(source_ref).collect();
    sources.retain(|source| context.stores.registries.get(source).is_some_and(|guarded| guarded.0.is_ok()));
    sources
}

fn has_cursor(replication: &Replication) -> bool {
    replication.status.iter().flat_map(|status| &status.targets).any(|target| target.cursor.is_some())
}

fn follows(replication: &Replication) -> bool {
    let spec = &replication.spec;
    spec.trigger.type_ == TriggerType::OnPush && !spec.suspend
}

/// A target that is the same up to a cursor, and has no run that follows.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) replication: Arc<GuardedReplication>,
    pub(super) target: String,
    pub(super) cursor: String,
}

/// The targets that wait for a Registry's pushes.
pub(super) fn waiting(context: &Context, source: &ObjectRef<Guarded>) -> Vec<Waiting> {
    let is_of = |guarded: &GuardedReplication| {
        guarded.0.as_ref().is_ok_and(|it| follows(it) && source_ref(it).as_ref() == Some(source))
    };
    let mut waiting = Vec::new();
    for guarded in context.stores.replications.state_filter(is_of) {
        let Ok(replication) = &guarded.0 else { continue };
        let uid = replication.uid().unwrap_or_default();
        let status = replication.status.iter().flat_map(|status| &status.targets);
        let idle = status.filter(|target| target.job.is_none());
        let declared = idle.filter(|target| replication.spec.targets.iter().any(|it| it.name == target.name));
        for target in declared {
            let Some(cursor) = target.cursor.clone() else { continue };
            if context.replications.marked(&uid, &target.name, Some(&cursor)).is_none() {
                waiting.push(Waiting {
                    replication: Arc::clone(&guarded),
                    target: target.name.clone(),
                    cursor,
                });
            }
        }
    }
    waiting
}

/// Follows one Registry until nobody waits for it any more, and returns which that was.
async fn follow(context: Arc<Context>, source: ObjectRef<Guarded>) -> ObjectRef<Guarded> {
    let mut reader = Reader::default();
    let mut changes = context.replications.changes();
    while wanted(&context).contains(&source) {
        let Some(pause) = step(&context, &source, &mut reader, &mut changes).await else { continue };
        reader = Reader::default();
        tokio::time::sleep(pause).await;
    }
    source
}

/// How far a Registry's feed was read.
#[derive(Default)]
struct Reader {
    peer: Option<Peer>,
    /// Up to here for all that are known.
    head: Option<String>,
    /// Who was marked or has nothing before the head.
    known: HashSet<Key>,
}

/// UID of a Replication, target and cursor.
type Key = (String, String, String);

/// Whom to ask.
struct Peer {
    since: Instant,
    client: Client,
    address: SocketAddr,
    name: String,
}

/// Reads what there is, waiting for a moment; how long to pause where there is nothing to read from.
async fn step(
    context: &Context,
    source: &ObjectRef<Guarded>,
    reader: &mut Reader,
    changes: &mut watch::Receiver<()>,
) -> Option<Duration> {
    if reader.peer.as_ref().is_none_or(|peer| peer.since.elapsed() > RENEW) {
        reader.peer = peer(context, source).await;
    }
    let Reader { peer: Some(peer), head, known } = reader else { return Some(AWAY) };
    match advance(context, source, peer, (head, known), changes).await {
        Ok(()) => None,
        // Whoever waits compares in full, from a cursor that is known.
        Err(client::Error::Refused { status: StatusCode::GONE, .. }) => {
            *head = None;
            known.clear();
            None
        }
        Err(client::Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Some(NO_FEED),
        Err(error) => {
            tracing::debug!(%error, registry = source.name, "failed to read the feed");
            Some(AWAY)
        }
    }
}

async fn advance(
    context: &Context,
    source: &ObjectRef<Guarded>,
    peer: &Peer,
    (head, known): (&mut Option<String>, &mut HashSet<Key>),
    changes: &mut watch::Receiver<()>,
) -> Result<(), client::Error> {
    // Before anybody's cursor is read from: what comes after it is read by all.
    let from = match head.take() {
        Some(from) => from,
        None => peer.page(None, 0).await?.cursor,
    };
    changes.mark_unchanged();
    let wait = waiting(context, source);
    let all: HashSet<_> = wait.iter().map(key).collect();
    known.retain(|key| all.contains(key));
    let mut by_cursor = BTreeMap::<&str, Vec<&Waiting>>::new();
    for new in wait.iter().filter(|waiting| !known.contains(&key(waiting))) {
        by_cursor.entry(&new.cursor).or_default().push(new);
    }
    for (cursor, waiting) in by_cursor {
        catch_up(context, source, peer, cursor, &waiting).await?;
        known.extend(waiting.into_iter().map(key));
    }
    let page = tokio::select! {
        page = peer.page(Some(&from), WAIT_SECONDS) => page?,
        // Somebody else may wait now.
        _ = changes.changed() => {
            *head = Some(from);
            return Ok(());
        }
    };
    // As it is now: whose run began meanwhile does not wait any more, and may have another cursor when it does again.
    let wait = waiting(context, source);
    let wait = wait.iter().filter(|waiting| known.contains(&key(waiting))).collect();
    mark(context, source, wait, &page.entries);
    *head = Some(page.cursor);
    Ok(())
}

/// Reads everything after a cursor, for those who have it.
async fn catch_up(
    context: &Context,
    source: &ObjectRef<Guarded>,
    peer: &Peer,
    cursor: &str,
    waiting: &[&Waiting],
) -> Result<(), client::Error> {
    let (mut from, mut waiting) = (cursor.to_owned(), waiting.to_vec());
    while !waiting.is_empty() {
        let page = match peer.page(Some(&from), 0).await {
            Err(client::Error::Refused { status: StatusCode::GONE, .. }) => {
                for waiting in waiting {
                    set(context, waiting, None);
                }
                return Ok(());
            }
            page => page?,
        };
        waiting = mark(context, source, waiting, &page.entries);
        if page.entries.is_empty() {
            return Ok(());
        }
        from = page.cursor;
    }
    Ok(())
}

/// What of a Replication says what is to be followed; the same while only runs go on.
pub(crate) fn concern(guarded: &GuardedReplication) -> impl PartialEq + use<> {
    let targets = |replication: &Replication| {
        let status = replication.status.iter().flat_map(|status| &status.targets);
        let idle = status.filter(|target| target.job.is_none());
        idle.map(|target| (target.name.clone(), target.cursor.clone())).collect::<Vec<_>>()
    };
    (guarded.meta().generation, guarded.0.as_ref().map(targets).ok())
}

fn key(waiting: &Waiting) -> Key {
    (waiting.replication.uid().unwrap_or_default(), waiting.target.clone(), waiting.cursor.clone())
}

impl Peer {
    async fn page(&self, after: Option<&str>, wait: u64) -> Result<FeedPage, client::Error> {
        let query = after.map_or(String::new(), |cursor| {
            let cursor: String = form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
            format!("?after={cursor}&n={PAGE}&wait={wait}")
        });
        self.client.get(self.address, &self.name, &format!("/v1/feed{query}")).await
    }
}

/// The Registry's pod; a volume has one.
async fn peer(context: &Context, source: &ObjectRef<Guarded>) -> Option<Peer> {
    let found = context.stores.registries.get(source)?;
    let registry = found.0.as_ref().ok()?;
    let pod = names::with_suffix(registry, "0");
    let pod: Pod = context.applier.get(&names::namespace(registry), &pod).await.ok()??;
    let (address, client) = (replicas::address(&pod)?, context.channel().ok()?);
    Some(Peer { since: Instant::now(), client, address, name: names::channel(registry) })
}
