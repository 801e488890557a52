//! Whom logins are shown to, and what happens when they end on the way.

use std::time::Duration;

use base64::Engine as _;
use http::{StatusCode, header};
use rstest::rstest;
use tempfile::TempDir;

use crate::{
    image::{noise, sha256},
    proxy::{Asked, Fault, Proxy, redirect},
    server::Server,
    world::World,
};

const SECRET: &str = "correct horse battery staple";

/// A target that only `robot` may use, and the file with its password.
pub(crate) async fn guarded() -> (World, String, TempDir) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let files = tempfile::tempdir().unwrap();
    let policy = files.path().join("policy.yaml");
    let hash = sha256(SECRET.as_bytes());
    let text = format!("logins:\n- {{username: robot, secrets: [{}], role: Admin}}\n", hash.hex());
    std::fs::write(&policy, text).unwrap();
    let password = files.path().join("password");
    std::fs::write(&password, format!("{SECRET}\n")).unwrap();
    let source = Server::start(folders[0].path());
    let target = Server::with(folders[1].path(), |command| {
        command.arg("--policy").arg(&policy);
    });
    let world = World::of(source, target, folders).await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    (world, password.to_str().unwrap().to_owned(), files)
}

pub(crate) fn login(password: &str) -> [&str; 4] {
    ["--to-username", "robot", "--to-password-file", password]
}

#[tokio::test]
async fn a_login_gets_tokens_and_without_one_nobody_gets_in() {
    let (world, password, _files) = guarded().await;
    let ran = world.run(&login(&password)).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    let asked = world.to.take();
    let tokens: Vec<_> = asked.iter().filter(|asked| asked.path.starts_with("/token")).collect();
    assert!((1..=3).contains(&tokens.len()), "one for each kind of right: {tokens:#?}");
    let proofs = asked.iter().filter(|asked| !asked.path.starts_with("/token"));
    let proofs = proofs.filter_map(|asked| asked.headers.get(header::AUTHORIZATION));
    assert!(
        proofs.clone().count() > 5 && proofs.clone().all(|proof| proof.as_bytes().starts_with(b"Bearer "))
    );
    assert!(world.from.take().iter().all(|asked| !asked.headers.contains_key(header::AUTHORIZATION)));

    let ran = world.run(&[]).await;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert_eq!(ran.progress.problem.unwrap().reason, ::channel::replication::Reason::TargetUnauthorized);
}

#[tokio::test]
async fn a_token_that_ends_on_the_way_is_replaced() {
    let (world, password, _files) = guarded().await;
    let challenge =
        format!("Bearer realm=\"{}/token\",service=\"berth\",error=\"invalid_token\"", world.to.url());
    let expired = Fault::Answer(StatusCode::UNAUTHORIZED, vec![(header::WWW_AUTHENTICATE, challenge)]);
    for kind in ["HEAD blob", "POST upload", "PUT upload", "PUT manifest"] {
        world.to.fail(1, expired.clone(), move |asked| {
            asked.kind() == kind && asked.headers.contains_key(header::AUTHORIZATION)
        });
    }
    let ran = world.run(&login(&password)).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(ran.progress.done, 1);
    let asked = world.to.take();
    assert!(asked.iter().filter(|asked| asked.path.starts_with("/token")).count() > 3);
}

fn tokens(world: &World) -> Vec<Asked> {
    world.to.take().into_iter().filter(|asked| asked.kind() == "GET token").collect()
}

#[rstest]
#[case::too_many(StatusCode::TOO_MANY_REQUESTS)]
#[case::unavailable(StatusCode::SERVICE_UNAVAILABLE)]
#[tokio::test]
async fn who_gives_tokens_and_has_had_enough_is_left_alone(#[case] status: StatusCode) {
    let (world, password, _files) = guarded().await;
    let enough = |seconds: &str| Fault::Answer(status, vec![(header::RETRY_AFTER, seconds.to_owned())]);
    world.to.fail(1, enough("1"), |asked| asked.kind() == "GET token");
    let ran = world.run(&login(&password)).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    let asked = tokens(&world);
    // Whichever right it is for.
    let waited = asked[1].at - asked[0].at;
    assert!(waited >= Duration::from_secs(1), "{waited:?}");

    world.to.fail(usize::MAX, enough("3600"), |asked| asked.kind() == "GET token");
    let ran = world.run(&login(&password)).await;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert_eq!(tokens(&world).len(), 1, "nobody waits for an hour, or asks again before");
    let problem = ran.progress.problem.unwrap();
    assert!(problem.message.contains("busy for too long"), "{problem:?}");
}

#[tokio::test]
async fn a_login_is_never_sent_elsewhere() {
    let (world, password, _files) = guarded().await;
    let elsewhere = Proxy::before(world.target.address("registry")).await;
    let challenge = format!("Bearer realm=\"{}/token\",service=\"berth\"", elsewhere.url());
    let asks = Fault::Answer(StatusCode::UNAUTHORIZED, vec![(header::WWW_AUTHENTICATE, challenge)]);
    world.to.fail(usize::MAX, asks, |_| true);
    let ran = world.run(&login(&password)).await;
    assert_eq!(ran.code, 4, "{ran:#?}");
    let problem = ran.progress.problem.unwrap();
    assert!(problem.message.contains("not its own host"), "{problem:?}");
    assert!(elsewhere.asked().is_empty());
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("robot:{SECRET}"));
    assert!(!ran.log.contains(&encoded) && !ran.log.contains(SECRET));
}

#[tokio::test]
async fn redirects_are_followed_without_the_token() {
    let (world, password, _files) = guarded().await;
    assert_eq!(world.run(&login(&password)).await.code, 0);
    // The other way round now: what was the target is read from, and its blobs are elsewhere.
    let storage = Proxy::before(world.source.address("registry")).await;
    let large = sha256(&noise(1, 300_000));
    let fault = redirect(&format!("{}/v2/a/blobs/{large}", storage.url()));
    let end = large.to_string();
    world.to.fail(usize::MAX, fault, move |asked| asked.kind() == "GET blob" && asked.path.ends_with(&end));
    let root = tempfile::tempdir().unwrap();
    let third = Server::start(root.path());
    let mut command = crate::world::replicate();
    command.args([&world.to.url(), &format!("http://{}", third.address("registry")), "--repository", "a"]);
    command.args(["--from-username", "robot", "--from-password-file", &password]);
    let ran = crate::world::run(command).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    third.client().head(&format!("/v2/a/blobs/{large}")).await.expect(StatusCode::OK);
    let asked = storage.asked();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].headers.contains_key(header::AUTHORIZATION));
}
