//! The feed of pushes and deletions.

use std::time::{Duration, Instant};

use channel::{
    feed::{Entry, FeedPage, Kind},
    policy::{Login, Policy, Repository, Role},
};
use http::StatusCode;
use oci::{ErrorCode, manifest};

use crate::{
    client::Client,
    image::{descriptor, image, sha256},
    managed::{Managed, NAME, login, policy},
    server::Server,
    state::{LONG_AGO, digest_of, origin},
    tokens::with_token,
};

const FEED: &str = "/v2/_berth/replication/feed";

impl Client {
    /// Entries after a cursor, with more parameters.
    pub(crate) async fn feed(&self, after: &str, more: &str) -> FeedPage {
        self.get(&format!("{FEED}?after={after}{more}")).await.expect(StatusCode::OK).json()
    }

    /// The present cursor.
    pub(crate) async fn cursor(&self) -> String {
        let page: FeedPage = self.get(FEED).await.expect(StatusCode::OK).json();
        assert_eq!(page.entries, []);
        page.cursor
    }
}

/// Waits until a request is under way.
async fn somebody_waits(server: &Server) {
    while !String::from_utf8_lossy(&server.health().get("/metrics").await.body)
        .contains("requests_in_flight 1\n")
    {}
}

fn told(entry: &Entry) -> (Kind, &str, Option<&str>, &str) {
    (entry.kind, &entry.repository, entry.tag.as_deref(), &entry.digest)
}

#[tokio::test]
async fn pushes_and_deletions_come_in_their_order_with_their_stamps() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let begin = client.cursor().await;
    let one = client.push_image("a/b", "v1", "one").await.to_string();
    client.push_image("a/b", "v1", "one").await;
    client.push_blob("a/b", "two").await;
    client.put_with_origin("a/b", "v2", "two", &origin(LONG_AGO)).await.expect(StatusCode::CREATED);
    let mut signature = image(b"two", &[]);
    signature["subject"] = descriptor(manifest::IMAGE, image(b"two", &[]).to_string().as_bytes());
    let signed = sha256(signature.to_string().as_bytes()).to_string();
    client.put_manifest("a/b", &signed, &signature).await.expect(StatusCode::CREATED);
    client.put_manifest("a/b", &signed, &signature).await.expect(StatusCode::CREATED);
    client.delete("/v2/a/b/manifests/v1").await.expect(StatusCode::ACCEPTED);
    let two = digest_of("two").to_string();
    client
        .delete_with_origin("a/b", &two, &origin("2020-02-01T00:00:00Z"))
        .await
        .expect(StatusCode::ACCEPTED);
    let page = client.feed(&begin, "").await;
    let expected = [
        (Kind::Push, "a/b", Some("v1"), one.as_str()),
        (Kind::Push, "a/b", Some("v2"), two.as_str()),
        (Kind::Push, "a/b", None, signed.as_str()),
        (Kind::Delete, "a/b", Some("v1"), one.as_str()),
        (Kind::Delete, "a/b", Some("v2"), two.as_str()),
        (Kind::Delete, "a/b", None, two.as_str()),
    ];
    assert_eq!(page.entries.iter().map(told).collect::<Vec<_>>(), expected);
    assert_eq!(page.entries[1].stamp.time, LONG_AGO);
    assert_eq!(page.entries[1].stamp.origin, "elsewhere:5000");
    assert_eq!(page.entries[2].subject.as_ref(), Some(&two));
    assert_eq!(page.entries[5].stamp.time, "2020-02-01T00:00:00.000000Z");
    let id = client.get(FEED).await.header("berth-registry").to_owned();
    assert_eq!(page.entries[0].stamp.origin, id);
    // Pages go on where the former one ended.
    let mut all = Vec::new();
    let mut cursor = begin;
    while all.len() < expected.len() {
        let page = client.feed(&cursor, "&n=4").await;
        assert!((1..=4).contains(&page.entries.len()));
        all.extend(page.entries);
        cursor = page.cursor;
    }
    assert_eq!(all, page.entries);
    assert_eq!(client.feed(&cursor, "").await.entries, []);
    for wrong in ["&wait=61", "&wait=-1", "&wait=x", "&n=x"] {
        let refused = client.get(&format!("{FEED}?after={cursor}{wrong}")).await;
        refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::Unsupported);
    }
    for unknown in ["", "x", &"0".repeat(48)] {
        let gone = client.get(&format!("{FEED}?after={unknown}")).await;
        gone.expect_error(StatusCode::GONE, ErrorCode::Unsupported);
    }
}

#[tokio::test]
async fn who_waits_hears_of_it_at_once_and_the_end_of_the_server_is_no_wait() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::with(root.path(), |command| {
        command.args(["--health-listen", "127.0.0.1:0"]);
    });
    let client = server.client();
    client.push_image("a", "v0", "one").await;
    let cursor = client.cursor().await;
    let (page, digest) = tokio::join!(client.feed(&cursor, "&wait=60"), client.push_image("a", "v1", "one"));
    assert_eq!(
        page.entries.iter().map(told).collect::<Vec<_>>(),
        [(Kind::Push, "a", Some("v1"), digest.as_str())]
    );
    let start = Instant::now();
    assert_eq!(client.feed(&page.cursor, "&wait=1").await.entries, []);
    assert!(start.elapsed() >= Duration::from_secs(1), "it waits as long as it may");
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.feed(&page.cursor, "&wait=60").await }
    });
    somebody_waits(&server).await;
    server.terminate();
    assert_eq!(waiting.await.unwrap().entries, []);
    assert!(server.wait().success());
}

#[tokio::test]
async fn a_cursor_outlives_restarts_and_kill_9_and_nothing_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let begin = server.client().cursor().await;
    server.client().push_image("a", "v1", "one").await;
    server.kill();
    let mut server = Server::start(root.path());
    server.client().push_image("a", "v2", "one").await;
    let page = server.client().feed(&begin, "").await;
    assert_eq!(
        page.entries.iter().map(|entry| entry.tag.as_deref().unwrap()).collect::<Vec<_>>(),
        ["v1", "v2"]
    );
    server.terminate();
    assert!(server.wait().success());
    assert_eq!(std::fs::read_to_string(root.path().join("feed/boot")).unwrap(), "clean");
    let server = Server::start(root.path());
    assert_eq!(server.client().feed(&begin, "").await.entries, page.entries);
    assert_eq!(server.client().feed(&page.cursor, "").await.entries, []);
    server.client().push_image("a", "v3", "one").await;
    server.kill();
    // As after a power failure.
    std::fs::write(root.path().join("feed/boot"), "another run of the machine").unwrap();
    let server = Server::start(root.path());
    let gone = server.client().get(&format!("{FEED}?after={begin}")).await;
    gone.expect_error(StatusCode::GONE, ErrorCode::Unsupported);
    let cursor = server.client().cursor().await;
    server.client().push_image("a", "v4", "one").await;
    assert_eq!(server.client().feed(&cursor, "").await.entries.len(), 1);
}

#[tokio::test]
async fn everybody_sees_what_they_may_read_and_the_operator_all() {
    let managed = Managed::new();
    let server = managed.start();
    let operator = managed.operator(&server);
    let rule = |path: &str, user: &str| Repository {
        path: path.into(),
        access: serde_json::from_value(serde_json::json!([{"user": user, "role": "Reader"}])).unwrap(),
        ..Repository::default()
    };
    let ordinary = |name: &str| Login { role: None, ..login(name, "secret", Role::Reader) };
    let logins = vec![login("admin", "all", Role::Admin), ordinary("one"), ordinary("other")];
    let repositories = vec![rule("one/*", "one"), rule("other/*", "other")];
    operator.put(&Policy { logins: logins.clone(), repositories, ..policy() }).await.unwrap();
    let client = |name| managed.client(&server).login(name, if name == "admin" { "all" } else { "secret" });
    let one = client("one");
    let begin = one.cursor().await;
    client("admin").push_image("other/app", "v1", "layer").await;
    assert_eq!(one.feed(&begin, "").await.entries, []);
    assert_eq!(client("other").feed(&begin, "").await.entries.len(), 1);
    // What others may see ends no wait.
    let (page, ()) = tokio::join!(one.feed(&begin, "&wait=60"), async {
        client("admin").push_image("other/app", "v2", "layer").await;
        client("admin").push_image("one/app", "v1", "layer").await;
    });
    assert_eq!(page.entries.iter().map(|entry| &*entry.repository).collect::<Vec<_>>(), ["one/app"]);
    let all: FeedPage = operator
        .client
        .get(operator.address, NAME, &format!("/v1/feed?after={begin}&n=5&wait=5"))
        .await
        .unwrap();
    assert_eq!(all.entries.len(), 3);
    let present: FeedPage = operator.client.get(operator.address, NAME, "/v1/feed").await.unwrap();
    assert_eq!(present.entries, []);
    let gone = operator.client.get::<FeedPage>(operator.address, NAME, "/v1/feed?after=x").await.unwrap_err();
    assert!(gone.to_string().contains("410"), "{gone}");
    let anonymous = managed.client(&server);
    let with_token = with_token(&anonymous, "registry:catalog:*").await;
    with_token.get("/v2/_catalog").await.expect(StatusCode::OK);
    for nobody in [anonymous, with_token] {
        let refused = nobody.get(FEED).await;
        assert!(refused.header("www-authenticate").contains("registry:catalog:*"));
        refused.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
    }
    // A policy that comes ends the wait: what comes then is decided anew.
    let cursor = one.cursor().await;
    let (page, ()) = tokio::join!(one.feed(&cursor, "&wait=60"), async {
        somebody_waits(&server).await;
        let status = operator.put(&Policy { logins: logins.clone(), ..policy() }).await.unwrap();
        assert!(status.policy_revision.is_some());
    });
    assert_eq!(page.entries, []);
    client("admin").push_image("one/app", "v2", "layer").await;
    assert_eq!(one.feed(&page.cursor, "").await.entries, []);
}
