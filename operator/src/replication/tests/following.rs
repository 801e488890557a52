//! Pushes reach Replications through the feed of the source, also those of a time when nobody listened.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use channel::{
    feed::FeedPage,
    tls::{Files, Reloading, TlsListener},
};
use futures::StreamExt as _;

use super::*;
use crate::{authority::Usage, names, replication::follower};

/// Nobody else listens on these loopback addresses.
const SOURCES: [&str; 4] = ["127.82.69.81", "127.82.69.82", "127.82.69.83", "127.82.69.84"];

/// A feed whose cursors are numbers of entries.
#[derive(Default)]
struct Feed {
    entries: Vec<Entry>,
    /// Cursors before this one are not known any more.
    oldest: usize,
    asked: usize,
}

type Shared = Arc<Mutex<Feed>>;

async fn page(
    State(feed): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<FeedPage>, StatusCode> {
    let asked_at = Instant::now();
    loop {
        let page = look(&feed, &query)?;
        // Like a registry it waits for the first entry, though not for long.
        let patient =
            query.get("wait").is_some_and(|wait| wait != "0") && asked_at.elapsed() < Duration::from_secs(1);
        if !page.entries.is_empty() || !patient {
            return Ok(Json(page));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn look(feed: &Shared, query: &HashMap<String, String>) -> Result<FeedPage, StatusCode> {
    let mut feed = feed.lock().unwrap();
    feed.asked += 1;
    let end = feed.entries.len();
    let after = query.get("after").map_or(end, |after| after.parse().unwrap());
    if after < feed.oldest {
        return Err(StatusCode::GONE);
    }
    let n = query.get("n").map_or(end, |n| n.parse().unwrap());
    let entries: Vec<_> = feed.entries.iter().skip(after).take(n).cloned().collect();
    Ok(FeedPage { cursor: (after + entries.len()).to_string(), entries })
}

/// Serves a feed as the pod of the Registry `demo`.
async fn serve(world: &World, address: &str) -> Shared {
    let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (registry, authority) = (testing::registry("demo"), &world.context.secrets.channel);
    let tomorrow = ::time::OffsetDateTime::now_utc() + ::time::Duration::days(1);
    let pair = authority.issue(&[names::channel(&registry)], Usage::Server, tomorrow).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).unwrap();
        folder.path().join(name)
    };
    let (cert, key) = (file("tls.crt", &pair.cert), file("tls.key", &pair.key));
    let client_ca = Some(file("ca.crt", authority.cert()));
    let certificate = Reloading::load(Files { cert, key, client_ca }).unwrap();
    let tcp = tokio::net::TcpListener::bind((address, 8082)).await.unwrap();
    let feed = Shared::default();
    let router = Router::new().route("/v1/feed", get(page)).with_state(Arc::clone(&feed));
    tokio::spawn(async move { axum::serve(TlsListener::new(tcp, certificate), router).await });
    let metadata = json!({"name": "demo-0", "namespace": "apps", "labels": names::labels(&registry)});
    world.api.put(
        "/api/v1/namespaces/apps/pods/demo-0",
        json!({"metadata": metadata, "status": {"podIP": address}}),
    );
    feed
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} does not come to be");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs what follows feeds as long as the test.
async fn with_follower(world: &mut World, test: impl AsyncFnOnce(&mut World)) {
    let context = Arc::clone(&world.context);
    tokio::select! {
        () = follower::run(context) => panic!("it ended"),
        () = test(world) => {}
    }
}

/// Its target is the same up to a cursor.
async fn equal_up_to(spec: &Value, cursor: &str) -> World {
    let mut world = world(spec);
    world.come_to_rest().await;
    world.end("there", "Complete", &equal(cursor));
    world.come_to_rest().await;
    assert_eq!(world.jobs(), []);
    world
}

/// Waits for the follower's word and acts upon it.
async fn told(world: &mut World) {
    let patience = Duration::from_secs(20);
    let reference = tokio::time::timeout(patience, world.replication_refs.next()).await.unwrap().unwrap();
    assert_eq!(reference.name, "mirror");
    world.look().await;
}

#[tokio::test]
async fn many_pushes_are_one_run_that_goes_on_from_the_cursor_and_those_after_its_end_are_another() {
    let mut world = equal_up_to(&json!({"filters": {"repositories": ["team/*"]}}), "0").await;
    let feed = serve(&world, SOURCES[0]).await;
    let push = |repository: &str, kind| feed.lock().unwrap().entries.push(entry(repository, kind));
    with_follower(&mut world, async |world| {
        push("other/app", Kind::Push);
        push("team/app", Kind::Delete);
        for _ in 0..300 {
            push("team/app", Kind::Push);
        }
        told(world).await;
        assert_eq!(world.plan("there").follow.unwrap().cursor.as_deref(), Some("0"));
        assert_eq!(world.jobs().len(), 1);
        assert!(world.replication_refs.try_recv().is_err());

        // Its run has them all; what comes after its end is not lost, though nobody listened just then.
        world.end("there", "Complete", &equal("302"));
        push("team/app", Kind::Push);
        world.look().await;
        world.context.replications.changed();
        told(world).await;
        assert_eq!(world.plan("there").follow.unwrap().cursor.as_deref(), Some("302"));
        world.end("there", "Complete", &equal("303"));
        world.come_to_rest().await;
        world.context.replications.changed();
        let asked = feed.lock().unwrap().asked;
        until("another look at the feed", || feed.lock().unwrap().asked > asked + 3).await;
        assert!(world.replication_refs.try_recv().is_err());
    })
    .await;
}

#[tokio::test]
async fn pushes_from_before_a_restart_are_found() {
    let mut world = equal_up_to(&json!({}), "0").await.restarted();
    let feed = serve(&world, SOURCES[1]).await;
    feed.lock().unwrap().entries.push(entry("team/app", Kind::Push));
    with_follower(&mut world, async |world| {
        told(world).await;
        assert_eq!(world.plan("there").follow.unwrap().cursor.as_deref(), Some("0"));
        let since = world.target("there").behind_since;
        assert_eq!(since.as_deref(), Some("2026-01-01T00:00:00.000001Z"));
    })
    .await;
}

#[tokio::test]
async fn a_cursor_that_is_not_known_any_more_begins_a_run() {
    let mut world = equal_up_to(&json!({}), "0").await;
    let feed = serve(&world, SOURCES[2]).await;
    feed.lock().unwrap().entries = vec![entry("team/app", Kind::Push); 5];
    feed.lock().unwrap().oldest = 3;
    with_follower(&mut world, async |world| told(world).await).await;
    assert_eq!(world.jobs().len(), 1);
}

#[tokio::test]
async fn nobody_asks_a_registry_of_which_nobody_waits_for_pushes() {
    let mut world = equal_up_to(&json!({}), "0").await;
    let feed = serve(&world, SOURCES[3]).await;
    world.edit_spec(|spec| spec["suspend"] = json!(true));
    let asked = || feed.lock().unwrap().asked;
    with_follower(&mut world, async |world| {
        // Another Registry's feed would be asked by now: the follower has seen what is wanted, twice.
        for _ in 0..2 {
            world.context.replications.changed();
            tokio::task::yield_now().await;
        }
        assert_eq!(asked(), 0);
        world.edit_spec(|spec| spec["suspend"] = json!(false));
        world.context.replications.changed();
        until("the feed asked", || asked() > 0).await;
    })
    .await;
}

#[tokio::test]
async fn only_a_source_that_is_there_is_followed_and_only_from_a_cursor() {
    let followed = |world: &World| !follower::wanted(&world.context).is_empty();
    let mut new = world(&json!({}));
    new.come_to_rest().await;
    assert!(!followed(&new));
    let mut world = equal_up_to(&json!({}), "0").await;
    assert!(followed(&world));
    world.api.remove(REGISTRY);
    world.watch();
    assert!(!followed(&world));
}

#[test]
fn who_is_followed_is_another_question_only_where_a_run_begins_or_ends() {
    let with = |job: Option<&str>, cursor: &str, done: i64| {
        let mut replication = testing::replication("apps", &json!({}));
        let target = json!({"name": "there", "job": job, "cursor": cursor, "images": {"total": 9, "done": done, "skipped": 0, "failed": 0, "deleted": 0}});
        replication.status = Some(serde_json::from_value(json!({"targets": [target]})).unwrap());
        kube::core::DeserializeGuard(Ok(replication))
    };
    let same = |one, other| follower::concern(&one) == follower::concern(&other);
    assert!(same(with(Some("a"), "c1", 1), with(Some("a"), "c2", 2)));
    assert!(!same(with(Some("a"), "c1", 1), with(None, "c1", 1)));
    assert!(!same(with(None, "c1", 1), with(None, "c2", 1)));
    assert!(same(with(None, "c1", 1), with(None, "c1", 2)));
}
