//! Access under a policy that comes through the channel, over TLS: points 14, 31 and 32.

use channel::policy::ReplicaStatus;
use http::{Method, StatusCode};
use oci::ErrorCode;

use crate::{
    client::Client,
    image::image,
    managed::{Managed, NAME, Operator, policy},
    pki::Authority,
    server::Server,
};

#[tokio::test]
async fn nobody_gets_in_before_there_is_a_policy_and_then_it_decides_over_restarts() {
    let managed = Managed::new();
    let server = managed.start();
    let not_ready = server.health().get("/readyz").await.expect(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(not_ready.body, "waiting for a policy\n");
    let admin = managed.client(&server).login("admin", "all");
    admin.get("/v2/").await.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
    let operator = managed.operator(&server);
    assert_eq!(operator.status().await.policy_revision, None);

    let status = operator.put(&policy()).await.unwrap();
    assert_eq!(status.policy_revision, Some(policy().revision()));
    assert!(status.used_bytes <= status.total_bytes);
    assert_eq!(status.total_bytes > 0, Server::has_a_size());
    assert_eq!(status.repositories, Some(0));
    server.health().get("/readyz").await.expect(StatusCode::OK);
    admin.get("/v2/").await.expect(StatusCode::OK);
    admin.push_image("team/app", "v1", "layer").await;
    // Another replica may have taken the push: then this one counts it a little later.
    while operator.status().await.repositories != Some(1) {}
    server.kill();

    let server = managed.start();
    server.health().get("/readyz").await.expect(StatusCode::OK);
    assert_eq!(managed.operator(&server).status().await.policy_revision, Some(policy().revision()));
    let reader = managed.client(&server).login("reader", "some");
    reader.get("/v2/team/app/manifests/v1").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn an_invalid_policy_is_refused_whole_with_a_sentence() {
    let managed = Managed::new();
    let server = managed.start();
    let operator = managed.operator(&server);
    operator.put(&policy()).await.unwrap();
    for (broken, why) in [
        (serde_json::json!({"logins": [], "quotas": []}), "quotas"),
        (serde_json::json!({"repositories": [{"path": "Team/*"}]}), "path `Team/*`"),
    ] {
        let refused =
            operator.client.put::<_, ReplicaStatus>(operator.address, NAME, "/v1/policy", &broken).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("400") && refused.contains(why), "{refused}");
    }
    assert_eq!(operator.status().await.policy_revision, Some(policy().revision()));
    managed.client(&server).login("admin", "all").get("/v2/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_login_that_can_not_be_used_does_not_keep_another_in() {
    let managed = Managed::new();
    let server = managed.start();
    let operator = managed.operator(&server);
    operator.put(&policy()).await.unwrap();
    let leaked = managed.client(&server).login("admin", "all");
    leaked.get("/v2/").await.expect(StatusCode::OK);
    let mut revoking = policy();
    revoking.logins[0].username = "a:b".into();
    let status = operator.put(&revoking).await.unwrap();
    assert_eq!(status.policy_revision, Some(revoking.revision()));
    assert!(status.left_out.len() == 1 && status.left_out[0].contains("`a:b`"), "{status:?}");
    leaked.get("/v2/").await.expect(StatusCode::UNAUTHORIZED);
    managed.client(&server).login("reader", "some").get("/v2/").await.expect(StatusCode::OK);
    server.kill();
    let server = managed.start();
    assert_eq!(managed.operator(&server).status().await.left_out, status.left_out);
    managed.client(&server).login("reader", "some").get("/v2/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_login_that_is_taken_away_stops_working_at_once() {
    let managed = Managed::new();
    let server = managed.start();
    let operator = managed.operator(&server);
    operator.put(&policy()).await.unwrap();
    let reader = managed.client(&server).login("reader", "some");
    reader.get("/v2/").await.expect(StatusCode::OK);
    let mut without = policy();
    without.logins.truncate(1);
    operator.put(&without).await.unwrap();
    reader.get("/v2/").await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn only_the_operator_reaches_the_channel() {
    let managed = Managed::new();
    let server = managed.start();
    let stranger = Authority::new();
    let stranger =
        Operator::new(&stranger.sign(&["operator"]), &managed.channel.pem, &server.addresses("channel"));
    assert!(stranger.put(&policy()).await.is_err());
    let anonymous = Client::new(server.address("channel")).over_tls(managed.channel.trusted());
    assert!(anonymous.try_send(Method::GET, "/v1/status", &[], "").await.is_err());
    assert_eq!(managed.operator(&server).status().await.policy_revision, None);
}

#[tokio::test]
async fn p32_who_may_do_what() {
    let managed = Managed::new();
    let server = managed.start();
    managed.operator(&server).put(&policy()).await.unwrap();
    let admin = managed.client(&server).login("admin", "all");
    let reader = managed.client(&server).login("reader", "some");
    let digest = admin.push_image("team/app", "v1", "layer").await;
    let blob = admin.push_blob("team/app", "layer").await;

    // Whether something is there or not makes no difference to who may not read.
    for client in [managed.client(&server), managed.client(&server).login("reader", "wrong")] {
        for path in [
            "/v2/",
            "/v2/_catalog",
            "/v2/team/app/tags/list",
            "/v2/nothing/tags/list",
            "/v2/team/app/manifests/v1",
            "/v2/NOT A NAME/tags/list",
        ] {
            let path = path.replace(' ', "%20");
            let answer = client.get(&path).await;
            let answer = answer.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
            let realm = format!(r#"Bearer realm="https://{}/token""#, server.address("registry"));
            assert!(answer.header("www-authenticate").starts_with(&realm));
        }
    }
    for path in [
        "/v2/".to_owned(),
        "/v2/team/app/tags/list".to_owned(),
        "/v2/team/app/manifests/v1".to_owned(),
        format!("/v2/team/app/blobs/{blob}"),
        format!("/v2/team/app/referrers/{digest}"),
    ] {
        reader.get(&path).await.expect(StatusCode::OK);
        reader.head(&path).await.expect(StatusCode::OK);
    }
    assert_eq!(reader.get("/v2/_catalog").await.body, r#"{"repositories":["team/app"]}"#);
    reader.get("/v2/nothing/tags/list").await.expect(StatusCode::NOT_FOUND);
    for (method, path) in [
        (Method::POST, "/v2/team/app/blobs/uploads/".to_owned()),
        (Method::POST, format!("/v2/other/blobs/uploads/?mount={blob}&from=team/app")),
        (Method::PUT, "/v2/team/app/manifests/v2".to_owned()),
        (Method::DELETE, "/v2/team/app/manifests/v1".to_owned()),
        (Method::DELETE, format!("/v2/team/app/blobs/{blob}")),
    ] {
        let body = if method == Method::PUT { image(b"{}", &[]).to_string() } else { String::new() };
        let answer = reader.send(method, &path, &[], body).await;
        let answer = answer.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
        assert!(String::from_utf8_lossy(&answer.body).contains("does not exist or access is denied"));
    }
    assert_eq!(server.stored("uploads"), 0);
    admin.delete("/v2/team/app/manifests/v1").await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn the_log_names_who_was_right_and_nobody_else() {
    let managed = Managed::new();
    let server = managed.start();
    managed.operator(&server).put(&policy()).await.unwrap();
    let client = || managed.client(&server);
    let login_of = |answer: crate::client::Answer| {
        let id = answer.header("x-request-id").to_owned();
        server.logged(|line| line["message"] == "request" && line["request"] == id)["login"].clone()
    };
    let reader = client().login("reader", "some");
    assert_eq!(login_of(reader.get("/v2/").await), "reader");
    assert_eq!(login_of(reader.delete("/v2/a/manifests/v1").await.expect(StatusCode::FORBIDDEN)), "reader");
    let issued = reader.get("/token?scope=repository:a:pull").await.expect(StatusCode::OK);
    let token = issued.json::<serde_json::Value>()["token"].as_str().unwrap().to_owned();
    assert_eq!(login_of(issued), "reader");
    assert_eq!(login_of(client().bearer(&token).get("/v2/").await.expect(StatusCode::OK)), "reader");

    for (username, secret) in [("reader", "hunter2"), ("hunter2", "reader")] {
        let wrong = client().login(username, secret);
        for path in ["/v2/", "/token"] {
            let refused = wrong.get(path).await.expect(StatusCode::UNAUTHORIZED);
            assert_eq!(login_of(refused), serde_json::Value::Null);
        }
    }
    assert_eq!(login_of(client().bearer("no.token").get("/v2/").await), serde_json::Value::Null);
    assert_eq!(login_of(client().get("/v2/").await), serde_json::Value::Null);
    assert!(!server.log().contains("hunter2"));
}
