//! What an end refuses, and what is said of it: a word that tells a person what to do.

use ::channel::replication::Reason;
use tempfile::TempDir;

use crate::{
    image::sha256,
    server::Server,
    world::{World, replicate, run},
};

const SECRET: &str = "correct horse battery staple";

/// A target under this policy, where `robot` may do what it says, and the file with its password.
async fn under(policy: &str) -> (World, String, TempDir) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("policy.yaml");
    let hash = sha256(SECRET.as_bytes());
    let text = format!("logins:\n- {{username: robot, secrets: [{}]}}\n{policy}", hash.hex());
    std::fs::write(&path, text).unwrap();
    let password = files.path().join("password");
    std::fs::write(&password, SECRET).unwrap();
    let target = Server::with(folders[1].path(), |command| {
        command.arg("--policy").arg(&path);
    });
    let world = World::of(Server::start(folders[0].path()), target, folders).await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    (world, password.to_str().unwrap().to_owned(), files)
}

fn login(password: &str) -> [&str; 4] {
    ["--to-username", "robot", "--to-password-file", password]
}

#[tokio::test]
async fn a_full_quota_is_a_full_target() {
    let policy = "repositories:\n- path: a\n  quota: 100000\n  access:\n  - {user: robot, role: Writer}\n";
    let (world, password, _files) = under(policy).await;
    let ran = world.run(&login(&password)).await;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert_eq!(ran.progress.problem.as_ref().unwrap().reason, Reason::TargetFull);
    assert!(ran.failure().1.contains("quota"), "{ran:#?}");
}

#[tokio::test]
async fn a_tag_that_may_not_move_is_the_failure_of_one_image() {
    let policy = "repositories:\n- path: a\n  access:\n  - {user: robot, role: Writer}\n  tags: {mutability: Immutable}\n";
    let (world, password, _files) = under(policy).await;
    assert_eq!(world.run(&login(&password)).await.code, 0);
    world.source.client().push_noise("a", Some("v1"), 2, None).await;
    // Nothing else is done, and the login is right all the same.
    let ran = world.run(&login(&password)).await;
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert_eq!(ran.progress.problem.as_ref().unwrap().reason, Reason::ImagesFailed);
    let (image, reason) = ran.failure();
    assert!(image == "a:v1" && reason.contains("immutable"), "{ran:#?}");
}

#[tokio::test]
async fn who_may_not_write_there_is_not_let_in() {
    let policy = "repositories:\n- path: a\n  access:\n  - {user: robot, role: Reader}\n";
    let (world, password, files) = under(policy).await;
    let ran = world.run(&login(&password)).await;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert_eq!(ran.progress.problem.unwrap().reason, Reason::TargetUnauthorized);
    let wrong = files.path().join("wrong");
    std::fs::write(&wrong, "something else").unwrap();
    let ran = world.run(&login(wrong.to_str().unwrap())).await;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert_eq!(ran.progress.problem.unwrap().reason, Reason::TargetUnauthorized);
}

#[tokio::test]
async fn a_host_that_nobody_has_is_said() {
    let world = World::new().await;
    let nobody = "https://no.such.invalid";
    for (ends, code) in [([nobody, &world.to.url()], 3), ([&world.from.url(), nobody], 4)] {
        let mut command = replicate();
        command.args(ends);
        let ran = run(command).await;
        assert_eq!(ran.code, code, "{ran:#?}");
        let problem = ran.progress.problem.unwrap();
        assert_eq!(problem.reason, Reason::UnknownHost);
        assert!(problem.message.contains("no.such.invalid"), "{problem:?}");
    }
}

/// What was the target is read from.
#[tokio::test]
async fn a_login_may_be_in_a_file_of_docker() {
    use base64::Engine as _;
    let policy = "repositories:\n- path: a\n  access:\n  - {user: robot, role: Writer}\n";
    let (world, password, files) = under(policy).await;
    assert_eq!(world.run(&login(&password)).await.code, 0);
    let config = files.path().join("config.json");
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("robot:{SECRET}"));
    let text = serde_json::json!({"auths": {world.to.address.to_string(): {"auth": auth}}});
    std::fs::write(&config, text.to_string()).unwrap();
    let root = tempfile::tempdir().unwrap();
    let third = Server::start(root.path());
    let copy = |config: &std::path::Path| {
        let mut command = replicate();
        command.args([
            &world.to.url(),
            &format!("http://{}", third.address("registry")),
            "--repository",
            "a",
        ]);
        command.arg("--from-docker-config").arg(config);
        command
    };
    let ran = run(copy(&config)).await;
    assert_eq!((ran.code, ran.progress.done), (0, 1), "{ran:#?}");
    std::fs::write(&config, "{\"auths\": {}}").unwrap();
    let ran = run(copy(&config)).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert_eq!(ran.progress.problem.unwrap().reason, Reason::SourceUnauthorized);
}
