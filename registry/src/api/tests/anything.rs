//! Whatever a client sends, it is never the server's fault: no 5xx, an error in the specification's format, and nothing of
//! what was refused lies on the disk, whoever was asking.

use std::{collections::BTreeMap, path::Path, sync::LazyLock};

use base64::Engine as _;
use channel::policy::{Access as Entry, Login, Policy, Repository, Role, SecretHash, Visibility};
use http::Method;
use oci::ErrorList;
use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

use super::*;

/// Runs of some requests, each on a registry of its own.
const RUNS: u32 = 96;

#[derive(Clone, Debug)]
struct Sent {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

static DIGEST: LazyLock<Digest> = LazyLock::new(|| sha256("layer"));
static IMAGE: LazyLock<String> = LazyLock::new(|| push().pop().unwrap().2);

/// Something that makes sense in some place, or nothing that does.
fn word() -> impl Strategy<Value = String> {
    let sensible = [
        "",
        "0",
        "1",
        "-1",
        "9999999999999999",
        "99999999999999999999",
        "a",
        "a/b",
        "v1",
        "sha512",
        "sha256:0",
        "..",
        "%2e%2e%2f",
    ];
    prop_oneof![
        4 => select(sensible.to_vec()).prop_map(str::to_owned),
        2 => Just(DIGEST.to_string()),
        1 => Just(DIGEST.to_string().replace(':', "-")),
        1 => Just("00000000-0000-4000-8000-000000000000".to_owned()),
        1 => "[ -~]{0,40}".prop_map(|text| text.replace([' ', '"', '<', '>', '`', '{', '}', '\\', '^', '|', '#'], "%20")),
        1 => "[a-z]{1,300}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    let known = prop_oneof![
        (word(), word()).prop_map(|(name, tag)| format!("/v2/{name}/manifests/{tag}")),
        (word(), word()).prop_map(|(name, digest)| format!("/v2/{name}/blobs/{digest}")),
        (word(), word()).prop_map(|(name, digest)| format!("/v2/{name}/referrers/{digest}")),
        (word(), word()).prop_map(|(name, id)| format!("/v2/{name}/blobs/uploads/{id}")),
        word().prop_map(|name| format!("/v2/{name}/blobs/uploads/")),
        word().prop_map(|name| format!("/v2/{name}/tags/list")),
        word().prop_map(|name| format!("/v2/{name}/_berth/replication/state")),
        select(&["/v2/", "/v2/_catalog", "/v2/_berth/replication/feed", "/token"][..])
            .prop_map(str::to_owned),
        vec(word(), 0..5).prop_map(|words| format!("/v2/{}", words.join("/"))),
    ];
    // Where the last session is, if there is one.
    prop_oneof![4 => known, 1 => Just("SESSION".to_owned())]
}

fn query() -> impl Strategy<Value = String> {
    let names = [
        "digest",
        "mount",
        "from",
        "tag",
        "n",
        "last",
        "artifactType",
        "digest-algorithm",
        "after",
        "wait",
        "scope",
    ];
    vec((select(names.to_vec()), word()), 0..3).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    })
}

fn header() -> impl Strategy<Value = (&'static str, String)> {
    let names = [
        "content-type",
        "content-length",
        "content-range",
        "range",
        "if-none-match",
        "if-range",
        "authorization",
        "berth-origin",
        "expect",
        "x-forwarded-host",
        "forwarded",
    ];
    let values = [
        "0-4",
        "5-9",
        "0-0",
        "bytes=0-1",
        "bytes=9-",
        "*",
        "Basic Og==",
        "Bearer a.b.c",
        "x; time=y",
        manifest::INDEX,
    ];
    (
        select(names.to_vec()),
        prop_oneof![word(), select(values.to_vec()).prop_map(str::to_owned), "[ -~]{0,30}"],
    )
}

fn sent() -> impl Strategy<Value = Sent> {
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "ANYTHING"];
    let body = prop_oneof![
        3 => Just(String::new()),
        3 => Just("layer".to_owned()),
        2 => Just(IMAGE.clone()),
        1 => Just("{\"schemaVersion\":2,\"layers\":[{}]}".to_owned()),
        1 => ".{0,60}",
    ];
    let parts = (select(methods.to_vec()), path(), query(), vec(header(), 0..3), body);
    parts.prop_map(|(method, path, query, headers, body)| {
        let separator = if query.is_empty() { "" } else { "?" };
        Sent { method, path: format!("{path}{separator}{query}"), headers, body }
    })
}

/// What lies there but for what the next upload is made of, and how long files are.
fn lies(root: &Path, below: &str, found: &mut BTreeMap<String, u64>) {
    let Ok(entries) = std::fs::read_dir(root.join(below)) else { return };
    for entry in entries.flatten() {
        let name = format!("{below}/{}", entry.file_name().to_string_lossy());
        if !name.starts_with("tmp/spare-") {
            lies(root, &name, found);
            let metadata = entry.metadata().unwrap();
            found.insert(name, if metadata.is_file() { metadata.len() } else { 0 });
        }
    }
}

/// All but the journal, which says what is in the others.
fn all(registry: &Registry) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for below in ["uploads", "tmp", "repositories", "blobs", "holders", "deleting", "quarantine", "feed"] {
        lies(registry.root.path(), below, &mut found);
    }
    found
}

/// `writer` has all that is pushed here, `reader` sees it, and `stranger` gets no further than that there is a login;
/// everybody sees what is below `open`.
fn policy() -> Policy {
    let logins = ["writer", "reader", "stranger", "admin"].map(|name| Login {
        username: name.into(),
        secrets: vec![SecretHash::of(b"secret")],
        ends: Vec::new(),
        role: (name == "admin").then_some(Role::Admin),
    });
    let entry = |user: &str, role| Entry { user: user.into(), role: Some(role), actions: Vec::new() };
    let named = Repository {
        path: "a".into(),
        access: vec![entry("writer", Role::Writer), entry("reader", Role::Reader)],
        ..Repository::default()
    };
    let open = Repository { path: "a/*".into(), visibility: Visibility::Public, ..Repository::default() };
    Policy { logins: logins.to_vec(), repositories: vec![named, open], ..Policy::default() }
}

/// A header that says who asks, if anybody is to be told.
fn login(name: &str) -> Option<(&'static str, String)> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:secret"));
    (!name.is_empty()).then(|| ("authorization", format!("Basic {encoded}")))
}

async fn check(registry: &Registry, sent: &Sent, session: &mut String) -> Result<(), TestCaseError> {
    let method = Method::from_bytes(sent.method.as_bytes()).unwrap();
    let mut request = Request::builder().method(method.clone()).uri(sent.path.replace("SESSION", session));
    for (name, value) in &sent.headers {
        request = request.header(*name, value);
    }
    // hyper lets nothing in that is none.
    let Ok(request) = request.body(Body::from(sent.body.clone())) else { return Ok(()) };
    let is_ours = request.uri().path().starts_with("/v2") || request.uri().path() == tokens::PATH;
    let before = all(registry);
    let (parts, body) = registry.answer(request).await.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    prop_assert!(!parts.status.is_server_error(), "{}: {:?}", parts.status, body);
    if let Some(location) =
        parts.headers.get(header::LOCATION).filter(|_| parts.status == StatusCode::ACCEPTED)
    {
        location.to_str().unwrap().clone_into(session);
    }
    if parts.status.is_client_error() {
        let new: Vec<_> =
            all(registry).into_iter().filter(|(name, length)| before.get(name) != Some(length)).collect();
        prop_assert!(new.is_empty(), "{} left {new:?}", parts.status);
        if is_ours && method != Method::HEAD {
            let list: ErrorList = serde_json::from_slice(&body).unwrap();
            prop_assert!(!list.errors.is_empty());
            prop_assert!(list.errors.iter().all(|error| !error.message.is_empty()), "{list:?}");
            prop_assert!(list.errors.iter().all(|error| error.code != oci::ErrorCode::Unknown), "{list:?}");
        }
    }
    Ok(())
}

fn run(registries: impl Fn() -> Registry, who: impl Strategy<Value = &'static str>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let config = ProptestConfig { cases: RUNS, failure_persistence: None, ..ProptestConfig::default() };
    let sent = (sent(), who).prop_map(|(mut sent, who)| {
        // Some bring a header of their own.
        if !sent.headers.iter().any(|(name, _)| *name == "authorization") {
            sent.headers.extend(login(who));
        }
        sent
    });
    let run = |all: Vec<Sent>| {
        runtime.block_on(async {
            let registry = registries();
            for (method, path, content, place) in push() {
                let headers =
                    login("admin").into_iter().chain([("content-type", manifest::IMAGE.to_owned())]);
                let mut request = Request::builder().method(method).uri(path);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let pushed = registry.answer(request.body(Body::from(content)).unwrap()).await;
                prop_assert_eq!(pushed.status(), StatusCode::CREATED, "{}", place);
            }
            let mut session = "/v2/a/blobs/uploads/none".to_owned();
            for sent in &all {
                check(&registry, sent, &mut session).await?;
            }
            Ok(())
        })
    };
    TestRunner::new(config).run(&vec(sent, 1..20), run).unwrap();
}

#[test]
fn p35_nothing_that_a_client_sends_is_the_servers_fault() {
    run(Registry::new, Just(""));
}

#[test]
fn p35_nor_is_it_under_a_policy_whoever_asks() {
    let who = ["", "admin", "writer", "writer", "reader", "stranger", "nobody"];
    run(|| Registry::under(&policy()), select(who.to_vec()));
}
