//! buildah, which keeps images unpacked and packs them anew for each push; podman pushes and pulls by the same code.

use http::StatusCode;
use oci::manifest;
use serde_json::Value;

use super::Program;
use crate::{image::sha256, layout::Layout, policy_file::Standalone};

/// buildah with a storage of its own, which needs no file system of a special kind.
fn buildah(standalone: &Standalone, storage: &str) -> Option<Program> {
    let folder = standalone.folder.path().join(storage);
    let [root, run] = ["root", "run"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let buildah = Program::find_for_root("buildah")?;
    Some(buildah.with(&["--root", &root, "--runroot", &run, "--storage-driver", "vfs"]))
}

/// The only image in its storage, by the digest of its configuration.
fn image(buildah: &Program) -> String {
    buildah.line(&["images", "--no-trunc", "--quiet"])
}

#[tokio::test]
async fn buildah_logs_in_pushes_and_pulls() {
    let standalone = Standalone::start();
    let Some(here) = buildah(&standalone, "here") else { return };
    let folder = standalone.folder.path();
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    std::fs::write(file("trust.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let (trust, auth, digest) = (file("trust.json"), file("auth.json"), file("digest"));
    let trust = ["--signature-policy", &trust, "--tls-verify=false"];
    let auth = ["--authfile", &auth];
    let registry = format!("localhost:{}", standalone.server.address("registry").port());
    let tag = format!("docker://{registry}/team/app:v1");

    Layout::image(&folder.join("image"), "v1");
    // It makes a name of the path, for which that of a temporary folder won't do.
    let here = here.within(folder);
    here.run(&[&["pull"], &trust[..], &["oci:image"]].concat());
    let pushed = image(&here);
    let login = ["login", "--tls-verify=false", "--username", "ci", "--password"];
    here.fail(&[&login[..], &["wrong"], &auth, &[&registry]].concat());
    here.run(&[&login[..], &["secret"], &auth, &[&registry]].concat());
    here.run(&[&["push"], &trust[..], &auth, &["--digestfile", &digest, &pushed, &tag]].concat());

    let digest = std::fs::read_to_string(digest).unwrap();
    let alice = standalone.server.client().login("alice", "secret");
    let stored = alice.get("/v2/team/app/manifests/v1").await.expect(StatusCode::OK);
    assert_eq!(sha256(&stored.body).as_str(), digest);
    assert_eq!(stored.json::<Value>()["layers"].as_array().unwrap().len(), 3);

    let by_digest = format!("docker://{registry}/team/app@{digest}");
    for (storage, reference) in [("by-tag", &tag), ("by-digest", &by_digest)] {
        let there = buildah(&standalone, storage).unwrap();
        there.run(&[&["pull"], &trust[..], &["--creds", "alice:secret", reference]].concat());
        // Of the same configuration, which names the layers by their content.
        assert_eq!(image(&there), pushed);
    }
    let refused = [&["push"], &trust[..], &["--creds", "alice:secret", &pushed, &tag]].concat();
    let said = here.fail(&refused);
    assert!(said.contains("does not exist or access is denied"), "{said}");
}

#[tokio::test]
async fn buildah_pushes_an_index_with_its_images() {
    let standalone = Standalone::start();
    let Some(buildah) = buildah(&standalone, "here") else { return };
    let folder = standalone.folder.path();
    let trust = folder.join("trust.json");
    std::fs::write(&trust, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let trust = ["--signature-policy", trust.to_str().unwrap(), "--tls-verify=false"];
    let registry = format!("localhost:{}", standalone.server.address("registry").port());
    for architecture in ["amd64", "arm64"] {
        let container =
            buildah.line(&["from", "--signature-policy", trust[1], "--arch", architecture, "scratch"]);
        buildah.run(&["commit", "--signature-policy", trust[1], "--manifest", "all", &container]);
    }
    let to = format!("docker://{registry}/team/app:v1");
    let push = ["manifest", "push", "--all", "--creds", "ci:secret"];
    buildah.run(&[&push[..], &trust, &["all", &to]].concat());
    let alice = standalone.server.client().login("alice", "secret");
    let index = alice.get("/v2/team/app/manifests/v1").await.expect(StatusCode::OK);
    assert_eq!(index.header("content-type"), manifest::INDEX);
    let index: Value = index.json();
    let children = index["manifests"].as_array().unwrap();
    assert_eq!(children.len(), 2);
    for child in children {
        let path = format!("/v2/team/app/manifests/{}", child["digest"].as_str().unwrap());
        alice.get(&path).await.expect(StatusCode::OK);
    }
}
