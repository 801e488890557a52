//! ServiceAccounts log in with tokens of their own, which the cluster checks; nodes read what is visible to the cluster.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use oci::ErrorCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::Client,
    kubernetes::{AUDIENCE, CI, Kubernetes, NODE, Says, token, token_of},
    server::Server,
};

/// The administrator's secret is `secret`.
const POLICY: &str = r"
serviceAccounts:
  audience: berth.dev/apps/demo
  nodes: system:serviceaccount:berth-system:node
logins:
- username: admin
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
  role: Admin
repositories:
- path: team/*
  access:
  - {user: 'system:serviceaccount:apps:ci', role: Writer}
  - {user: 'system:serviceaccounts:apps', role: Reader}
- path: shared/*
  visibility: Cluster
  access:
  - {user: 'system:serviceaccount:berth-system:node', role: Admin}
- path: open
  visibility: Public
";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const UNKNOWN_TO_RULES: &str = "system:serviceaccount:else:any";

struct Cluster {
    kubernetes: Kubernetes,
    server: Server,
    _folder: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let kubernetes = Kubernetes::start().await;
        let (server, folder) = serve(Some(&kubernetes));
        Self { kubernetes, server, _folder: folder }
    }

    fn admin(&self) -> Client {
        self.server.client().login("admin", "secret")
    }

    fn account(&self, token: &str) -> Client {
        self.server.client().login("serviceaccount", token)
    }
}

fn serve(kubernetes: Option<&Kubernetes>) -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let server = Server::with(&folder.path().join("root"), |command| {
        command.arg("--policy").arg(policy);
        if let Some(kubernetes) = kubernetes {
            kubernetes.arguments(command);
        }
    });
    (server, folder)
}

#[tokio::test]
async fn a_right_token_pushes_and_is_asked_about_once() {
    let cluster = Cluster::start().await;
    let ci = cluster.account(&token_of(CI));
    ci.push_image("team/app", "v1", "layer").await;
    ci.get("/v2/team/app/manifests/v1").await.expect(StatusCode::OK);
    ci.delete("/v2/team/app/manifests/v1").await.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    assert_eq!(cluster.kubernetes.asked(), 1);
    let id = ci.get("/v2/").await.expect(StatusCode::OK).header("x-request-id").to_owned();
    assert_eq!(cluster.server.logged(|line| line["request"] == id)["login"], CI);
    // The token with which the registry asks is read again.
    cluster.kubernetes.rotate("another");
    let again = cluster.account(&token(CI, AUDIENCE, 1800, Says::Right));
    again.get("/v2/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn accounts_are_named_by_groups_and_known_where_nothing_names_them() {
    let cluster = Cluster::start().await;
    cluster.admin().push_image("team/app", "v1", "layer").await;
    let member = cluster.account(&token_of("system:serviceaccount:apps:other"));
    member.get("/v2/team/app/manifests/v1").await.expect(StatusCode::OK);
    let refused = member.post("/v2/team/app/blobs/uploads/", "").await;
    refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    let foreign = cluster.account(&token_of(UNKNOWN_TO_RULES));
    foreign.get("/v2/").await.expect(StatusCode::OK);
    // Groups that the answer names count for nothing, nor does visibility to nodes.
    for path in ["/v2/team/app/manifests/v1", "/v2/team/none/manifests/v1", "/v2/shared/app/manifests/v1"] {
        foreign.get(path).await.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    }
}

#[tokio::test]
async fn wrong_tokens_are_refused_and_only_those_for_us_are_shown_to_the_cluster() {
    let cluster = Cluster::start().await;
    for (secret, asked) in [
        (token(CI, "berth.dev/apps/other", 3600, Says::Right), 0),
        (token(CI, AUDIENCE, -1, Says::Right), 0),
        (token("system:node:one", AUDIENCE, 3600, Says::Right), 0),
        (token(CI, AUDIENCE, 3600, Says::NotAuthenticated), 1),
        (token(CI, AUDIENCE, 3600, Says::ForOthers), 2),
        (token(CI, AUDIENCE, 3600, Says::APerson), 3),
    ] {
        // A name of its own, or so many attempts would be slowed.
        let client = cluster.server.client().login(&asked.to_string(), &secret);
        for path in ["/v2/", "/v2/team/app/tags/list", "/token"] {
            let refused = client.get(path).await;
            let refused = refused.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
            assert!(refused.headers.contains_key("www-authenticate"));
        }
        assert_eq!(cluster.kubernetes.asked(), asked, "{secret}");
    }
    let under_a_login = cluster.server.client().login("admin", &token_of(CI));
    under_a_login.get("/v2/").await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn while_the_cluster_is_away_nothing_is_right_or_wrong() {
    let mut cluster = Cluster::start().await;
    cluster.admin().push_image("open", "v1", "layer").await;
    let known = cluster.account(&token_of("system:serviceaccount:apps:known"));
    known.get("/v2/").await.expect(StatusCode::OK);
    cluster.kubernetes.go_away().await;
    known.get("/v2/").await.expect(StatusCode::OK);
    for secret in [token_of(CI), token(CI, AUDIENCE, 3600, Says::NotAuthenticated)] {
        for path in ["/v2/", "/v2/team/app/tags/list", "/token"] {
            let answer = cluster.account(&secret).get(path).await;
            let answer = answer.expect_error(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown);
            assert_eq!(answer.header("retry-after"), "5");
        }
    }
    // A node has other ways to go on, at once.
    let node = cluster.account(&token_of(NODE));
    let refused = node.get("/v2/shared/app/manifests/v1").await.expect(StatusCode::UNAUTHORIZED);
    assert!(refused.header("www-authenticate").starts_with("Bearer realm="));
    node.get("/v2/open/manifests/v1").await.expect(StatusCode::OK);
    cluster.admin().get("/v2/").await.expect(StatusCode::OK);
    cluster.kubernetes.come_back().await;
    cluster.kubernetes.forbid();
    Kubernetes::is_forgotten().await;
    cluster.account(&token_of(CI)).get("/v2/").await.expect(StatusCode::SERVICE_UNAVAILABLE);
    let wanted = |line: &Value| {
        line["error"].as_str().is_some_and(|error| error.contains("lacks the right to create TokenReviews"))
    };
    cluster.server.logged(wanted);
    cluster.kubernetes.rotate("allowed again");
    Kubernetes::is_forgotten().await;
    cluster.account(&token_of(CI)).get("/v2/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_node_reads_what_the_cluster_may_and_is_nobody_elsewhere() {
    let cluster = Cluster::start().await;
    for repository in ["shared/app", "team/app", "open"] {
        cluster.admin().push_image(repository, "v1", "layer").await;
    }
    let blob = cluster.admin().push_blob("shared/app", "layer").await;
    let node = cluster.server.client().login("node", &token_of(NODE));
    for path in [
        "/v2/",
        "/v2/shared/app/manifests/v1?ns=demo.apps.svc:5000",
        // By a registry that this one stands in for.
        "/v2/shared/app/manifests/v1?ns=other.apps.svc:5000",
        &format!("/v2/shared/app/blobs/{blob}"),
        "/v2/shared/app/tags/list",
        "/v2/open/manifests/v1",
    ] {
        node.get(path).await.expect(StatusCode::OK);
    }
    node.get("/v2/shared/none/manifests/v1").await.expect(StatusCode::NOT_FOUND);
    let anonymous = cluster.server.client();
    anonymous.get("/v2/shared/app/manifests/v1").await.expect(StatusCode::UNAUTHORIZED);
    for (method, path) in [
        (Method::HEAD, "/v2/team/app/manifests/v1"),
        (Method::GET, "/v2/team/app/manifests/v1"),
        (Method::GET, "/v2/team/none/manifests/v1"),
        (Method::GET, "/v2/_catalog"),
        (Method::POST, "/v2/shared/app/blobs/uploads/"),
        (Method::PUT, "/v2/shared/app/manifests/v2"),
        (Method::DELETE, "/v2/shared/app/manifests/v1"),
    ] {
        let (as_node, as_nobody) = (
            node.send(method.clone(), path, &[], "").await,
            anonymous.send(method.clone(), path, &[], "").await,
        );
        assert_eq!(as_node.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(as_node.body, as_nobody.body);
        assert_eq!(as_node.header("www-authenticate"), as_nobody.header("www-authenticate"));
    }
}

/// What containerd does: the node's credential first, then the pod's pull secret in a form, with the former in the header.
#[tokio::test]
async fn after_a_nodes_refusal_the_pods_own_secret_counts() {
    let cluster = Cluster::start().await;
    cluster.admin().push_image("team/app", "v1", "layer").await;
    let node = cluster.server.client().login("node", &token_of(NODE));
    node.get("/v2/team/app/manifests/v1").await.expect(StatusCode::UNAUTHORIZED);
    let form = "grant_type=password&username=admin&password=secret&scope=repository%3Ateam%2Fapp%3Apull";
    let issued = node.send(Method::POST, "/token", &[FORM], form).await.expect(StatusCode::OK);
    let puller = cluster.server.client().bearer(issued.json::<Value>()["token"].as_str().unwrap());
    puller.get("/v2/team/app/manifests/v1").await.expect(StatusCode::OK);
    let issued = node.get("/token?scope=repository:team/app:pull").await.expect(StatusCode::OK);
    let without_secret = cluster.server.client().bearer(issued.json::<Value>()["token"].as_str().unwrap());
    without_secret.get("/v2/team/app/manifests/v1").await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_account_gets_a_bearer_token_that_ends_with_its_own() {
    let cluster = Cluster::start().await;
    let scope = "repository:team/app:pull,push";
    let bearer = |answer: &crate::client::Answer| {
        cluster.server.client().bearer(answer.json::<Value>()["token"].as_str().unwrap())
    };
    // Tokens may be large.
    let large =
        token(&format!("system:serviceaccount:apps:{}", "x".repeat(200)), AUDIENCE, 3600, Says::Right);
    let large = large.replacen("eyJ", &format!("{}eyJ", "a".repeat(15_000)), 1);
    let form = format!("grant_type=password&username=x&password={large}&scope={scope}");
    let issued = cluster.server.client().send(Method::POST, "/token", &[FORM], form).await;
    let reader = bearer(&issued.expect(StatusCode::OK));
    reader.post("/v2/team/app/blobs/uploads/", "").await.expect(StatusCode::FORBIDDEN);

    let ci = cluster.account(&token(CI, AUDIENCE, 3600, Says::Right));
    let issued = ci.get(&format!("/token?scope={scope}")).await.expect(StatusCode::OK);
    assert_eq!(issued.json::<Value>()["expires_in"], 300);
    let pusher = bearer(&issued);
    pusher.push_image("team/app", "v1", "layer").await;
    pusher.get("/v2/team/other/manifests/v1").await.expect(StatusCode::UNAUTHORIZED);

    let short = cluster.account(&token(CI, AUDIENCE, 8, Says::Right));
    let issued = short.get(&format!("/token?scope={scope}")).await.expect(StatusCode::OK);
    let puller = bearer(&issued);
    let mut answer = puller.get("/v2/team/app/manifests/v1").await.expect(StatusCode::OK);
    let started = Instant::now();
    while answer.status == StatusCode::OK {
        assert!(started.elapsed() < Duration::from_secs(60), "it outlives what it was got with");
        tokio::time::sleep(Duration::from_millis(200)).await;
        answer = puller.get("/v2/team/app/manifests/v1").await;
    }
    let refused = answer.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
    assert!(refused.header("www-authenticate").contains(r#"error="invalid_token""#));
    short.get("/v2/").await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_a_cluster_to_ask_tokens_are_refused_and_the_log_says_why() {
    let (server, _folder) = serve(None);
    let message = |line: &Value, part: &str| line["message"].as_str().is_some_and(|text| text.contains(part));
    server.logged(|line| message(line, "start with --kubernetes"));
    for name in [CI, NODE] {
        let refused = server.client().login("serviceaccount", &token_of(name)).get("/v2/").await;
        refused.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
    }
    server.logged(|line| message(line, "a ServiceAccount's token was refused"));
    server.client().login("admin", "secret").get("/v2/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn tokens_are_never_logged() {
    let mut cluster = Cluster::start().await;
    let right = token_of(CI);
    let wrong = token(CI, AUDIENCE, 3600, Says::NotAuthenticated);
    cluster.account(&right).get("/token").await.expect(StatusCode::OK);
    cluster.account(&wrong).get("/v2/").await.expect(StatusCode::UNAUTHORIZED);
    cluster.kubernetes.forbid();
    cluster.account(&token_of(UNKNOWN_TO_RULES)).get("/v2/").await.expect(StatusCode::SERVICE_UNAVAILABLE);
    cluster.kubernetes.go_away().await;
    let last = cluster.account(&token_of("system:serviceaccount:apps:last")).get("/v2/").await;
    let id = last.expect(StatusCode::SERVICE_UNAVAILABLE).header("x-request-id").to_owned();
    cluster.server.logged(|line| line["message"] == "request" && line["request"] == id);
    let log = cluster.server.log();
    for secret in ["eyJ", "the pod's own", &right[20..60]] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
