//! crane, of the library that many tools in Go are made with.

use std::path::Path;

use super::Program;
use crate::{
    layout::{Layout, blob},
    policy_file::Standalone,
};

/// crane, logged in as one of the policy's users; as nobody where the name is empty.
fn crane(standalone: &Standalone, username: &str, password: &str) -> Option<Program> {
    let crane = Program::find("crane")?;
    let home = standalone.folder.path().join(format!("home-{username}-{password}"));
    std::fs::create_dir_all(&home).unwrap();
    let crane = crane.env("DOCKER_CONFIG", &home);
    if !username.is_empty() {
        crane.run(&["auth", "login", "--username", username, "--password", password, &address(standalone)]);
    }
    Some(crane)
}

fn address(standalone: &Standalone) -> String {
    format!("localhost:{}", standalone.server.address("registry").port())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn crane_pushes_pulls_and_mounts_with_tokens() {
    let standalone = Standalone::start();
    let Some(ci) = crane(&standalone, "ci", "secret") else { return };
    let folder = standalone.folder.path();
    let layout = Layout::image(&folder.join("image"), "v1");
    let registry = address(&standalone);
    let tag = format!("{registry}/team/app:v1");
    let digest = format!("{registry}/team/app@{}", layout.digest);
    let pushed = ci.line(&["push", path(&layout.folder), &tag]);
    assert_eq!(pushed, digest);

    let alice = crane(&standalone, "alice", "secret").unwrap();
    assert_eq!(alice.line(&["digest", &tag]), layout.digest.as_str());
    for (number, reference) in [&tag, &digest].into_iter().enumerate() {
        assert_eq!(alice.run(&["manifest", reference]), layout.top);
        // Pulls everything and compares layers with what the configuration says of them.
        alice.run(&["validate", "--remote", reference]);
        let back = folder.join(format!("back-{number}"));
        alice.run(&["pull", "--format", "oci", reference, path(&back)]);
        assert_eq!(std::fs::read(blob(&back, &layout.digest)).unwrap(), layout.top);
        for part in layout.images.values().flatten() {
            let there = std::fs::read(blob(&layout.folder, part)).unwrap();
            assert_eq!(std::fs::read(blob(&back, part)).unwrap(), there);
        }
    }

    let copy = format!("{registry}/team/copy:v1");
    ci.run(&["copy", &tag, &copy]);
    ci.run(&["tag", &copy, "v2"]);
    assert_eq!(ci.line(&["ls", &format!("{registry}/team/copy")]), "v1\nv2");
    let log = standalone.server.log();
    assert!(log.contains(r#""path":"/token""#), "works with tokens");
    let mounted = r#""method":"POST","path":"/v2/team/copy/blobs/uploads/","#;
    assert!(log.lines().any(|line| line.contains(mounted) && line.contains(r#""status":201"#)), "{log}");

    alice.fail(&["tag", &tag, "mine"]);
    ci.fail(&["delete", &format!("{copy}@{}", layout.digest)]);
    crane(&standalone, "admin", "secret").unwrap().run(&["delete", &copy]);
    for refused in [crane(&standalone, "", ""), crane(&standalone, "ci", "wrong")] {
        let said = refused.unwrap().fail(&["manifest", &tag]);
        assert!(said.contains("UNAUTHORIZED"), "{said}");
    }
}

#[tokio::test]
async fn crane_takes_a_platform_of_an_index() {
    let standalone = Standalone::start();
    let Some(ci) = crane(&standalone, "ci", "secret") else { return };
    let layout = Layout::index(&standalone.folder.path().join("image"), "v1");
    let tag = format!("{}/team/app:v1", address(&standalone));
    ci.run(&["push", path(&layout.folder), &tag]);
    assert_eq!(ci.line(&["digest", &tag]), layout.digest.as_str());
    for (architecture, parts) in &layout.images {
        let platform = format!("linux/{architecture}");
        assert_eq!(ci.line(&["digest", "--platform", &platform, &tag]), parts[0].as_str());
        ci.run(&["validate", "--platform", &platform, "--remote", &tag]);
    }
}
