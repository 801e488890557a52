//! Stamps, recorded deletions and the state of a repository, by which registries compare themselves.

use channel::{
    feed::{StateEntry, StatePage},
    policy::{Policy, Repository, Role},
};
use http::{Method, StatusCode};
use oci::{Digest, ErrorCode, manifest};
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    image::{image, sha256},
    managed::{Managed, login, policy},
    server::Server,
};

pub(crate) const LONG_AGO: &str = "2020-01-02T03:04:05.000006Z";

/// The header of a push or delete that keeps a stamp.
pub(crate) fn origin(time: &str) -> String {
    format!("elsewhere:5000; time={time}")
}

impl Client {
    /// Pushes a manifest whose content is there.
    pub(crate) async fn put_with_origin(&self, name: &str, tag: &str, config: &str, origin: &str) -> Answer {
        let headers = [("content-type", manifest::IMAGE), ("berth-origin", origin)];
        let document = image(config.as_bytes(), &[]).to_string();
        self.put(&format!("/v2/{name}/manifests/{tag}"), &headers, document).await
    }

    pub(crate) async fn delete_with_origin(&self, name: &str, reference: &str, origin: &str) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send(Method::DELETE, &path, &[("berth-origin", origin)], "").await
    }

    pub(crate) async fn state(&self, name: &str) -> Vec<StateEntry> {
        let answer = self.get(&format!("/v2/{name}/_berth/replication/state")).await.expect(StatusCode::OK);
        answer.json::<StatePage>().entries
    }
}

pub(crate) fn digest_of(config: &str) -> Digest {
    crate::image::sha256(image(config.as_bytes(), &[]).to_string().as_bytes())
}

#[tokio::test]
async fn a_push_keeps_the_stamp_that_it_brings_and_the_later_one_wins() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    for config in ["one", "two"] {
        client.push_blob("a", config).await;
    }
    let old = origin(LONG_AGO);
    client.put_with_origin("a", "v1", "one", &old).await.expect(StatusCode::CREATED);
    let [entry] = client.state("a").await.try_into().unwrap();
    assert_eq!((entry.stamp.time.as_str(), entry.stamp.origin.as_str()), (LONG_AGO, "elsewhere:5000"));
    assert_eq!(
        (entry.name.as_str(), entry.digest, entry.deleted),
        ("v1", digest_of("one").to_string(), false)
    );
    client.put_manifest("a", "v1", &image(b"two", &[])).await.expect(StatusCode::CREATED);
    let [entry] = client.state("a").await.try_into().unwrap();
    let id = client.get("/v2/").await.header("berth-registry").to_owned();
    assert_eq!(entry.stamp.origin, id, "it was set here");
    assert!(entry.stamp.time.as_str() > LONG_AGO);
    let refused = client.put_with_origin("a", "v1", "one", &old).await;
    let refused = refused.expect_error(StatusCode::PRECONDITION_FAILED, ErrorCode::Denied);
    assert!(String::from_utf8_lossy(&refused.body).contains(&entry.stamp.time));
    assert_eq!(client.state("a").await, std::slice::from_ref(&entry));
    let refused = client.delete_with_origin("a", "v1", &old).await;
    refused.expect_error(StatusCode::PRECONDITION_FAILED, ErrorCode::Denied);
    let refused = client.delete_with_origin("a", digest_of("two").as_str(), &old).await;
    refused.expect_error(StatusCode::PRECONDITION_FAILED, ErrorCode::Denied);
    assert_eq!(client.state("a").await, [entry]);
    for wrong in ["", "a", "a b; time=2020-01-02T03:04:05Z", "a; time=now", "a; time=9000-01-01T00:00:00Z"] {
        let refused = client.put_with_origin("a", "v1", "one", wrong).await;
        refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::Unsupported);
        let refused = client.delete_with_origin("a", "v1", wrong).await;
        refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::Unsupported);
    }
}

#[tokio::test]
async fn deletions_are_recorded_also_after_kill_9() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "one").await;
    let old = origin(LONG_AGO);
    for tag in ["v1", "v2", "v3"] {
        client.put_with_origin("a", tag, "one", &old).await.expect(StatusCode::CREATED);
    }
    client.delete_with_origin("a", "v1", &origin("2020-01-03T00:00:00Z")).await.expect(StatusCode::ACCEPTED);
    client.delete("/v2/a/manifests/v2").await.expect(StatusCode::ACCEPTED);
    let names = |state: &[StateEntry]| {
        state.iter().map(|entry| (entry.name.clone(), entry.deleted)).collect::<Vec<_>>()
    };
    let tag = |name: &str, deleted| (name.to_owned(), deleted);
    let state = client.state("a").await;
    assert_eq!(names(&state), [tag("v1", true), tag("v2", true), tag("v3", false)]);
    assert_eq!(state[0].stamp.time, "2020-01-03T00:00:00.000000Z");
    let refused = client.put_with_origin("a", "v2", "one", &old).await;
    refused.expect_error(StatusCode::PRECONDITION_FAILED, ErrorCode::Denied);
    server.kill();

    let server = Server::start(root.path());
    let client = server.client();
    assert_eq!(client.state("a").await, state);
    client
        .put_with_origin("a", "v1", "one", &origin("2020-01-04T00:00:00Z"))
        .await
        .expect(StatusCode::CREATED);
    assert_eq!(names(&client.state("a").await)[0], tag("v1", false));
    let digest = digest_of("one").to_string();
    client.delete(&format!("/v2/a/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
    let all = [tag(&digest, true), tag("v1", true), tag("v2", true), tag("v3", true)];
    assert_eq!(names(&client.state("a").await), all, "also where nothing is left");
    client.get("/v2/a/tags/list?n=5").await.expect(StatusCode::OK);
    // Pages are those of lists.
    let path = "/v2/a/_berth/replication/state";
    let page = client.get(&format!("{path}?n=2&x=y")).await.expect(StatusCode::OK);
    assert_eq!(page.header("link"), format!("<{path}?n=2&x=y&last=v1>; rel=\"next\""));
    let page = client.get(&format!("{path}?n=2&last=v1")).await.expect(StatusCode::OK);
    assert_eq!(names(&page.json::<StatePage>().entries), all[2..]);
    assert!(!page.headers.contains_key("link"));
    client.get(&format!("{path}?n=x")).await.expect_error(StatusCode::BAD_REQUEST, ErrorCode::Unsupported);
    let unknown = client.get("/v2/b/_berth/replication/state").await;
    unknown.expect_error(StatusCode::NOT_FOUND, ErrorCode::NameUnknown);
}

#[tokio::test]
async fn who_may_not_read_a_repository_learns_nothing_of_its_state() {
    let managed = Managed::new();
    let server = managed.start();
    let private = Repository { path: "private".into(), ..Repository::default() };
    let logins = vec![login("admin", "all", Role::Admin)];
    let stranger = channel::policy::Login { role: None, ..login("stranger", "other", Role::Reader) };
    let logins = [logins, vec![stranger]].concat();
    managed.operator(&server).put(&Policy { repositories: vec![private], logins, ..policy() }).await.unwrap();
    let admin = managed.client(&server).login("admin", "all");
    let id = admin.push_image("private", "v1", "layer").await;
    assert_eq!(admin.state("private").await[0].digest, id.to_string());
    let stranger = managed.client(&server).login("stranger", "other");
    let mut answers = Vec::new();
    for name in ["private", "nothing"] {
        let answer = stranger.get(&format!("/v2/{name}/_berth/replication/state")).await;
        let answer = answer.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
        answers.push(String::from_utf8_lossy(&answer.body).replace(name, ""));
        let nobody = managed.client(&server).get(&format!("/v2/{name}/_berth/replication/state")).await;
        nobody.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn what_was_emptied_is_listed_apart_from_what_holds_images() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let manifest = image(b"{}", &[]);
    let names = ["a", "a/b", "kept", "refilled"];
    for name in names {
        client.push_blob(name, "{}").await;
        client.put_manifest(name, "v1", &manifest).await.expect(StatusCode::CREATED);
        client.delete(&format!("/v2/{name}/manifests/v1")).await.expect(StatusCode::ACCEPTED);
    }
    client.push_blob("never-filled", "{}").await;
    let list = async |parameter: &str| {
        let answer = client.get(&format!("/v2/_catalog?{parameter}")).await.expect(StatusCode::OK);
        (answer.json::<Value>()["repositories"].clone(), answer.headers.get("link").cloned())
    };
    let all = |names: &[&str]| (json!(names), None);
    assert_eq!(list("emptied=true").await, all(&[]), "the images are still there");
    for name in ["a", "a/b", "refilled"] {
        let digest = sha256(manifest.to_string().as_bytes());
        client.delete(&format!("/v2/{name}/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
    }
    client.put_manifest("refilled", "v1", &manifest).await.expect(StatusCode::CREATED);
    assert_eq!(list("emptied=true").await, all(&["a", "a/b"]));
    let (page, link) = list("emptied=true&n=1").await;
    assert_eq!(
        (page, link.unwrap()),
        (json!(["a"]), "</v2/_catalog?emptied=true&n=1&last=a>; rel=\"next\"".parse().unwrap())
    );
    assert_eq!(list("emptied=true&n=1&last=a").await, all(&["a/b"]));
    for parameter in ["emptied=false", ""] {
        assert_eq!(list(parameter).await, all(&["kept", "refilled"]));
    }
    let refused = client.get("/v2/_catalog?emptied=yes").await.expect(StatusCode::BAD_REQUEST);
    let refused = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(refused.contains("must be true or false"), "{refused}");
}
