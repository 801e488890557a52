//! Docker's token protocol: points 32 and 33.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Method, StatusCode};
use oci::ErrorCode;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    client::{Answer, Client},
    managed::{Managed, policy},
    policy_file::Standalone,
};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn token(answer: &Answer) -> String {
    answer.json::<Value>()["token"].as_str().unwrap().to_owned()
}

/// A client with a token for a scope.
pub(crate) async fn with_token(client: &Client, scope: &str) -> Client {
    let answer = client.get(&format!("/token?service=berth&scope={scope}")).await.expect(StatusCode::OK);
    client.clone().bearer(&token(&answer))
}

#[tokio::test]
async fn p32_a_client_finds_its_way_from_the_challenge_to_the_answer() {
    let standalone = Standalone::start();
    let anonymous = standalone.server.client();
    let ci = anonymous.clone().login("ci", "secret");
    ci.push_image("team/app", "v1", "layer").await;

    let path = "/v2/team/app/manifests/v1";
    let challenge = anonymous.get(path).await.expect(StatusCode::UNAUTHORIZED);
    let realm = format!("http://{}/token", anonymous.address());
    let expected = format!(r#"Bearer realm="{realm}",service="berth",scope="repository:team/app:pull""#);
    assert_eq!(challenge.header("www-authenticate"), expected);
    assert_eq!(challenge.headers.get_all("www-authenticate").iter().count(), 1, "docker needs it so");

    let answer = ci.get("/token?account=ci&service=berth&scope=repository:team/app:pull").await;
    let issued = answer.json::<Value>();
    assert_eq!(issued["token"], issued["access_token"]);
    assert_eq!((&issued["expires_in"], &issued["scope"]), (&json!(300), &json!("repository:team/app:pull")));
    assert_eq!(answer.header("cache-control"), "no-store");
    let puller = anonymous.clone().bearer(&token(&answer));
    puller.get(path).await.expect(StatusCode::OK);
    puller.get("/v2/").await.expect(StatusCode::OK);

    let refused = puller.post("/v2/team/app/blobs/uploads/", "").await;
    let refused = refused.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
    let challenge = refused.header("www-authenticate");
    assert!(challenge.ends_with(r#",scope="repository:team/app:pull,push",error="insufficient_scope""#));
    let pusher = with_token(&ci, "repository:team/app:pull,push").await;
    pusher.post("/v2/team/app/blobs/uploads/", "").await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn p32_what_exists_makes_no_difference_to_who_may_not_read() {
    let standalone = Standalone::start();
    let anonymous = standalone.server.client();
    let (ci, alice) = (anonymous.clone().login("ci", "secret"), anonymous.clone().login("alice", "secret"));
    let admin = anonymous.clone().login("admin", "secret");
    for name in ["hidden", "team/web"] {
        admin.push_image(name, "v1", "layer").await;
    }
    for name in ["hidden", "nothing"] {
        let path = format!("/v2/{name}/manifests/v1");
        let scope = format!("repository:{name}:pull");
        // Nobody, somebody without credentials, somebody with a token for something else, somebody without the right.
        anonymous.get(&path).await.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
        let refused = with_token(&anonymous, &scope).await.get(&path).await.expect(StatusCode::UNAUTHORIZED);
        assert!(refused.header("www-authenticate").contains(r#"error="insufficient_scope""#));
        let elsewhere = with_token(&ci, "repository:team/app:pull").await;
        elsewhere.get(&path).await.expect(StatusCode::UNAUTHORIZED);
        for client in [ci.clone(), alice.clone(), with_token(&ci, &scope).await] {
            let refused = client.get(&path).await.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
            let message = String::from_utf8_lossy(&refused.body).into_owned();
            assert!(message.contains("does not exist or access is denied"), "{message}");
        }
    }
    let public = with_token(&anonymous, "repository:team/web:pull").await;
    public.get("/v2/team/web/manifests/v1").await.expect(StatusCode::OK);
    public.get("/v2/team/web/manifests/v2").await.expect(StatusCode::NOT_FOUND);
    let catalog = with_token(&anonymous, "registry:catalog:*").await.get("/v2/_catalog").await;
    assert_eq!(catalog.expect(StatusCode::OK).body, r#"{"repositories":["team/web"]}"#);
}

#[tokio::test]
async fn forms_are_taken_and_beat_the_header() {
    let standalone = Standalone::start();
    let anonymous = standalone.server.client();
    let scope = "scope=repository%3Ateam%2Fapp%3Apull%2Cpush+repository%3Ateam%2Fweb%3Apull";
    let form =
        format!("grant_type=password&service=berth&client_id=test&{scope}&username=ci&password=secret");
    let wrong = anonymous.clone().login("node", "short-lived");
    for client in [&anonymous, &wrong] {
        let answer = client.send(Method::POST, "/token", &[FORM], form.clone()).await.expect(StatusCode::OK);
        let issued = anonymous.clone().bearer(answer.json::<Value>()["access_token"].as_str().unwrap());
        issued.post("/v2/team/app/blobs/uploads/", "").await.expect(StatusCode::ACCEPTED);
    }
    let by_header = anonymous.clone().login("ci", "secret");
    let answer = by_header.send(Method::POST, "/token", &[FORM], scope).await.expect(StatusCode::OK);
    let issued = anonymous.clone().bearer(&token(&answer));
    issued.post("/v2/team/app/blobs/uploads/", "").await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn bad_input_at_the_token_endpoint() {
    let standalone = Standalone::start();
    let anonymous = standalone.server.client();
    let post = async |body: String| anonymous.send(Method::POST, "/token", &[FORM], body).await;
    let refresh = post("grant_type=refresh_token&refresh_token=x".into()).await;
    refresh.expect_error(StatusCode::BAD_REQUEST, ErrorCode::Unsupported);
    post("x".repeat(1 << 20)).await.expect_error(StatusCode::BAD_REQUEST, ErrorCode::Unsupported);
    let wrong = post("grant_type=password&username=ci&password=wrong".into()).await;
    let wrong = wrong.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
    assert!(wrong.header("www-authenticate").starts_with("Basic realm="));
    let scopes = "&scope=repository:a/b/c/d/e/f:pull,push,delete".replace('a', &"a".repeat(200)).repeat(20);
    let scopes: String = (0..20).map(|n| scopes.replace("/b/", &format!("/b{n}/"))).collect();
    post(scopes).await.expect_error(StatusCode::BAD_REQUEST, ErrorCode::Unsupported);
    anonymous.get("/token?scope=%ff&scope=:::&scope=repository:..:pull").await.expect(StatusCode::OK);
    let answer = anonymous.delete("/token").await;
    let answer = answer.expect_error(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported);
    assert_eq!(answer.header("allow"), "GET, HEAD, POST");
    for value in ["Bearer", "Bearer x", "Bearer ..", "Basic", "Basic !", "Digest x", "\u{ff}"] {
        for path in ["/v2/", "/v2/team/web/tags/list"] {
            let answer = anonymous.send(Method::GET, path, &[("authorization", value)], "").await;
            answer.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
        }
    }
}

#[tokio::test]
async fn p33_the_realm_follows_the_host_that_the_client_used() {
    let standalone = Standalone::start();
    let client = standalone.server.client();
    for (headers, realm) in [
        (&[("x-forwarded-host", "r.example"), ("x-forwarded-proto", "https")][..], "https://r.example/token"),
        (&[("forwarded", "host=\"r.example:8443\";proto=https")][..], "https://r.example:8443/token"),
        (&[("x-forwarded-host", "bad\" host")][..], ""),
    ] {
        let answer = client.send(Method::GET, "/v2/", headers, "").await.expect(StatusCode::UNAUTHORIZED);
        let challenge = answer.header("www-authenticate");
        let expected = format!(r#"Bearer realm="{realm}""#);
        assert!(challenge.starts_with(if realm.is_empty() { "Basic " } else { &expected }), "{challenge}");
    }
}

#[tokio::test]
async fn tokens_survive_restarts_and_end_with_their_time_and_their_login() {
    let managed = Managed::new();
    let server = managed.start();
    managed.operator(&server).put(&policy()).await.unwrap();
    let reader = managed.client(&server).login("reader", "some");
    let issued = reader.get("/token?scope=repository:team/app:pull").await.expect(StatusCode::OK);
    let issued = token(&issued);
    server.kill();

    let server = managed.start();
    let client = managed.client(&server).bearer(&issued);
    client.get("/v2/team/app/tags/list").await.expect(StatusCode::NOT_FOUND);

    let key = server.read("token.key").unwrap();
    let (claims, signature) = issued.split_once('.').unwrap();
    assert_eq!(sign(&key, claims), signature, "or the next lines would test nothing");
    let mut expired: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    expired["expires"] = json!(1_700_000_000);
    let expired = BASE64_URL_SAFE_NO_PAD.encode(expired.to_string());
    let expired = format!("{expired}.{}", sign(&key, &expired));

    let mut revoked = policy();
    revoked.logins.truncate(1);
    managed.operator(&server).put(&revoked).await.unwrap();
    for client in [client.clone(), client.bearer(&expired)] {
        let refused = client.get("/v2/team/app/tags/list").await;
        let refused = refused.expect_error(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
        let challenge = refused.header("www-authenticate");
        assert!(challenge.ends_with(r#",scope="repository:team/app:pull",error="invalid_token""#));
    }
}

fn sign(key: &[u8], claims: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(b"berth token 1\0");
    mac.update(claims.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

#[tokio::test]
async fn without_a_policy_there_are_no_tokens() {
    let root = tempfile::tempdir().unwrap();
    let server = crate::server::Server::start(root.path());
    server.client().get("/token").await.expect(StatusCode::NOT_FOUND);
    assert_eq!(server.read("token.key"), None);
}

#[tokio::test]
async fn secrets_are_never_logged() {
    let standalone = Standalone::start();
    let anonymous = standalone.server.client();
    for password in ["secret", "wrong-guess"] {
        anonymous.clone().login("ci", password).get("/v2/?password=in-a-query").await;
        let form = format!("grant_type=password&username=ci&password={password}");
        anonymous.send(Method::POST, "/token", &[FORM], form).await;
    }
    let issued = with_token(&anonymous.clone().login("ci", "secret"), "repository:team/app:pull").await;
    let last = issued.get("/v2/").await.expect(StatusCode::OK).header("x-request-id").to_owned();
    standalone.server.logged(|line| line["request"] == last);
    let log = standalone.server.log();
    for secret in ["secret", "wrong-guess", "in-a-query", "Y2k6c2VjcmV0", "eyJ", "$2b$"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

/// containerd 1.6 waits for ever where it can't send the manifest that is refused.
#[tokio::test]
async fn what_is_refused_is_read_to_its_end_first() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let standalone = Standalone::start();
    let address = standalone.server.address("registry");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "PUT /v2/hidden/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), stream.read(&mut answer)).await;
    assert!(early.is_err(), "answered before the body was there");
    stream.write_all(b"67890").await.unwrap();
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}
