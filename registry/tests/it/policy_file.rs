//! Access under a policy file: hot-reloaded, refused whole when broken, people with passwords, points 14 and 31.

use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use oci::ErrorCode;
use tempfile::TempDir;

use crate::{
    image::sha256,
    server::{Server, berth_registry},
};

/// `secret`, hashed as a robot's and as a person's.
const POLICY: &str = r"
logins:
- username: ci
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
- username: admin
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
  role: Admin
htpasswd: |
  # alice:secret
  alice:HASH
repositories:
- path: team/*
  access:
  - {user: ci, role: Writer}
  - {user: alice, role: Reader}
- path: team/web
  visibility: Public
- path: drop
  access:
  - {user: ci, actions: [content/write]}
  - {user: alice, actions: [content/delete]}
";

pub(crate) struct Standalone {
    pub(crate) folder: TempDir,
    pub(crate) server: Server,
}

impl Standalone {
    pub(crate) fn start() -> Self {
        Self::under(&policy())
    }

    /// Under another policy than the usual one.
    pub(crate) fn under(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), policy);
        let server = Self::server(folder.path());
        Self { folder, server }
    }

    pub(crate) fn server(folder: &Path) -> Server {
        Server::with(&folder.join("root"), |command| {
            command.arg("--policy").arg(file(folder));
        })
    }

    pub(crate) fn write(&self, policy: &str) {
        write(self.folder.path(), policy);
    }
}

pub(crate) fn policy() -> String {
    POLICY.replace("HASH", &bcrypt::hash("secret", 4).unwrap())
}

fn file(folder: &Path) -> PathBuf {
    folder.join("policy.yaml")
}

fn write(folder: &Path, policy: &str) {
    std::fs::write(file(folder), policy).unwrap();
}

#[tokio::test]
async fn robots_people_and_everybody_get_what_the_policy_says() {
    let standalone = Standalone::start();
    let anonymous = standalone.server.client();
    let login = |username: &str| standalone.server.client().login(username, "secret");
    login("admin").push_image("team/web", "v1", "layer").await;
    login("ci").push_image("team/app", "v1", "layer").await;

    anonymous.get("/v2/team/web/manifests/v1").await.expect(StatusCode::OK);
    anonymous.get("/v2/team/web/tags/list").await.expect(StatusCode::OK);
    anonymous.get("/v2/").await.expect(StatusCode::UNAUTHORIZED);
    for path in ["/v2/team/app/manifests/v1", "/v2/team/none/manifests/v1", "/v2/else/tags/list"] {
        anonymous.get(path).await.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
    }
    login("alice").get("/v2/").await.expect(StatusCode::OK);
    login("alice").get("/v2/team/app/manifests/v1").await.expect(StatusCode::OK);
    login("alice").get("/v2/team/none/manifests/v1").await.expect(StatusCode::NOT_FOUND);
    let refused = login("alice").post("/v2/team/app/blobs/uploads/", "").await;
    refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    let wrong = standalone.server.client().login("alice", "Secret");
    wrong.get("/v2/team/web/tags/list").await.expect(StatusCode::UNAUTHORIZED);
    // The most specific path decides alone: as far as it goes, ci is nobody there.
    let refused = login("ci").post("/v2/team/web/blobs/uploads/", "").await;
    refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    let refused = login("ci").post("/v2/undeclared/blobs/uploads/", "").await;
    refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
}

#[tokio::test]
async fn p31_the_catalog_lists_only_what_the_caller_may_read() {
    let standalone = Standalone::start();
    let login = |username: &str| standalone.server.client().login(username, "secret");
    for name in ["a/hidden", "team/app", "team/web", "drop", "z"] {
        login("admin").push_image(name, "v1", name).await;
    }
    let listed = async |username: &str| {
        let answer = login(username).get("/v2/_catalog").await.expect(StatusCode::OK);
        String::from_utf8(answer.body.to_vec()).unwrap()
    };
    assert_eq!(listed("admin").await, r#"{"repositories":["a/hidden","drop","team/app","team/web","z"]}"#);
    assert_eq!(listed("alice").await, r#"{"repositories":["team/app","team/web"]}"#);
    assert_eq!(listed("ci").await, r#"{"repositories":["team/app","team/web"]}"#);
    let page = login("alice").get("/v2/_catalog?n=1").await;
    assert_eq!(page.body, r#"{"repositories":["team/app"]}"#);
    assert!(page.header("link").contains("last=team%2Fapp"));
    standalone.server.client().get("/v2/_catalog").await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p31_pages_of_the_catalog_go_past_what_is_shut() {
    let more = "
- path: a/b/*
  access: [{user: alice, role: Reader}]
- path: a/b/shut/*
- path: a/b/shut/open
  access: [{user: alice, role: Reader}]
- path: a-b
  access: [{user: alice, role: Reader}]
- path: team/shut
- path: z
  access: [{user: alice, role: Reader}]
";
    let standalone = Standalone::under(&(policy() + more));
    let login = |username: &str| standalone.server.client().login(username, "secret");
    let seen =
        ["a-b", "a/b/c", "a/b/c/d", "a/b/shut", "a/b/shut/open", "team/a", "team/shut/a", "team/web", "z"];
    for name in seen.into_iter().chain(["a", "a/b", "a/b/shut/a", "b", "team", "team/shut", "z/a"]) {
        login("admin").push_image(name, "v1", name).await;
    }
    let alice = login("alice");
    for n in 1..=10 {
        let (mut all, mut path) = (Vec::new(), format!("/v2/_catalog?n={n}"));
        loop {
            let answer = alice.get(&path).await.expect(StatusCode::OK);
            let page: serde_json::Value = answer.json();
            all.extend(
                page["repositories"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()),
            );
            let Some(link) = answer.headers.get("link") else { break };
            path = link.to_str().unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
        }
        assert_eq!(all, seen, "n={n}");
    }
    for (last, first) in [
        ("a/b/shut/a", r#"["a/b/shut/open"]"#),
        ("a/b0", r#"["team/a"]"#),
        ("a/bb/../..", r#"["team/a"]"#),
        ("../../a", r#"["a-b"]"#),
        ("a/b/", r#"["a/b/c"]"#),
        ("team", r#"["team/a"]"#),
        ("team/web", r#"["z"]"#),
        ("z", "[]"),
        ("~", "[]"),
    ] {
        let page = alice.get(&format!("/v2/_catalog?n=1&last={last}")).await;
        assert_eq!(page.body, format!(r#"{{"repositories":{first}}}"#), "after {last}");
    }
    // Everybody who asks for it sees what is public.
    let anonymous = standalone.server.client();
    let with_token = crate::tokens::with_token(&anonymous, "registry:catalog:*").await;
    assert_eq!(with_token.get("/v2/_catalog").await.body, r#"{"repositories":["team/web"]}"#);
}

#[tokio::test]
async fn p14_a_mount_from_where_one_may_not_read_looks_like_one_from_nowhere() {
    let standalone = Standalone::start();
    let login = |username: &str| standalone.server.client().login(username, "secret");
    let blob = login("admin").push_blob("hidden", "content").await;
    let missing = sha256(b"never pushed");
    for (digest, from) in [
        (&blob, "&from=hidden"),
        (&missing, "&from=hidden"),
        (&blob, "&from=none"),
        (&blob, ""),
        (&missing, ""),
    ] {
        let path = format!("/v2/team/app/blobs/uploads/?mount={digest}{from}");
        let answer = login("ci").post(&path, "").await.expect(StatusCode::ACCEPTED);
        assert!(answer.header("location").starts_with("/v2/team/app/blobs/uploads/"));
        assert!(!answer.headers.contains_key("docker-content-digest"));
    }
    login("admin").push_blob("team/web", "content").await;
    for from in ["&from=team/web", ""] {
        let path = format!("/v2/team/app/blobs/uploads/?mount={blob}{from}");
        login("ci").post(&path, "").await.expect(StatusCode::CREATED);
    }
}

#[tokio::test]
async fn who_may_change_but_not_read_never_learns_what_is_there() {
    let standalone = Standalone::start();
    let login = |username: &str| standalone.server.client().login(username, "secret");
    let digest = login("ci").push_blob("drop", "content").await;
    login("ci").get(&format!("/v2/drop/blobs/{digest}")).await.expect(StatusCode::FORBIDDEN);
    for path in [format!("/v2/drop/blobs/{}", sha256(b"other")), "/v2/drop/manifests/none".to_owned()] {
        let answer = login("alice").delete(&path).await;
        answer.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
        let answer = login("admin").delete(&path).await;
        answer.expect(StatusCode::NOT_FOUND);
    }
    login("alice").delete(&format!("/v2/drop/blobs/{digest}")).await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_changed_policy_decides_within_seconds_and_a_broken_one_never() {
    let standalone = Standalone::start();
    let alice = standalone.server.client().login("alice", "secret");
    alice.get("/v2/").await.expect(StatusCode::OK);
    standalone.write("logins: []\nquotas: []\n");
    let line = standalone.server.logged(|line| line["message"] == "the former policy stays");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("unknown field `quotas`") && error.contains("line 2"), "{error}");
    alice.get("/v2/").await.expect(StatusCode::OK);

    standalone.write("{}");
    standalone.server.logged_by_each(|line| line["message"] == "a new policy decides" && line["users"] == 0);
    alice.get("/v2/").await.expect(StatusCode::UNAUTHORIZED);
}

#[test]
fn a_broken_policy_at_the_start_is_said_and_nothing_is_served() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "repositories:\n- path: Team\n");
    let mut command = berth_registry();
    command.arg("--root").arg(folder.path().join("root")).args(["--listen", "127.0.0.1:0", "--policy"]);
    let output = command.arg(file(folder.path())).output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("policy.yaml") && message.contains("path `Team` can't be used"), "{message}");
}

#[tokio::test]
async fn p34_guessing_is_slowed() {
    let standalone = Standalone::start();
    let wrong = standalone.server.client().login("alice", "guess");
    let mut answer = wrong.get("/v2/").await.expect(StatusCode::UNAUTHORIZED);
    for _ in 0..30 {
        if answer.status != StatusCode::UNAUTHORIZED {
            break;
        }
        answer = wrong.send(Method::GET, "/token", &[], "").await;
    }
    let answer = answer.expect_error(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds));
    standalone.server.client().login("ci", "secret").get("/v2/").await.expect(StatusCode::OK);
}
