//! A real client: skopeo pushes an image and pulls it back.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::json;

use crate::{
    image::{descriptor, image, noise, sha256},
    managed::{Managed, policy},
    policy_file::Standalone,
    server::Server,
};

fn skopeo(arguments: &[&str]) -> Output {
    let output = Command::new("skopeo").args(arguments).output();
    let output = output
        .expect("this test needs skopeo: install it, on Debian or Ubuntu with `apt-get install skopeo`");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// An image in the layout that clients exchange.
fn write_layout(folder: &Path) -> Vec<u8> {
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    let config = config.to_string().into_bytes();
    let layers = [noise(1, 1_000_000), noise(2, 10)];
    let manifest = image(&config, &[&layers[0], &layers[1]]).to_string().into_bytes();
    std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    for content in [&config[..], &layers[0], &layers[1], &manifest] {
        std::fs::write(folder.join("blobs/sha256").join(sha256(content).hex()), content).unwrap();
    }
    let mut entry = descriptor(oci::manifest::IMAGE, &manifest);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    std::fs::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string())
        .unwrap();
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    manifest
}

#[tokio::test]
async fn skopeo_pushes_and_pulls() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("root"));
    let manifest = write_layout(&folder.path().join("image"));
    let local = format!("oci:{}:v1", folder.path().join("image").display());
    let remote = format!("docker://{}/team/app:v1", server.address("registry"));
    // Or it would compress the layers, and the manifest would be another one.
    skopeo(&["copy", "--preserve-digests", "--dest-tls-verify=false", &local, &remote]);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &remote]).stdout;
    assert_eq!(raw, manifest);
    let back = format!("oci:{}:v1", folder.path().join("back").display());
    skopeo(&["copy", "--preserve-digests", "--src-tls-verify=false", &remote, &back]);
    let digest = sha256(&manifest);
    let pulled = std::fs::read(folder.path().join("back/blobs/sha256").join(digest.hex())).unwrap();
    assert_eq!(pulled, manifest);
    // A second copy to another repository mounts what is there, or pushes it again; both must work.
    let other = format!("docker://{}/other/app:v1", server.address("registry"));
    skopeo(&["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &remote, &other]);
    skopeo(&["delete", "--tls-verify=false", &other]);
}

#[tokio::test]
async fn skopeo_pushes_as_admin_and_pulls_as_reader_over_tls() {
    let managed = Managed::new();
    let server = managed.start();
    managed.operator(&server).put(&policy()).await.unwrap();
    let folder = managed.folder.path();
    let manifest = write_layout(&folder.join("image"));
    let trusted = folder.join("trusted");
    std::fs::create_dir(&trusted).unwrap();
    std::fs::write(trusted.join("ca.crt"), &managed.serving.pem).unwrap();
    let trusted = trusted.to_str().unwrap();
    let local = format!("oci:{}:v1", folder.join("image").display());
    let remote = format!("docker://localhost:{}/team/app:v1", server.address("registry").port());

    let push = ["copy", "--preserve-digests", "--dest-cert-dir", trusted, "--dest-creds"];
    skopeo(&[&push[..], &["admin:all", &local, &remote]].concat());
    let raw = skopeo(&["inspect", "--raw", "--cert-dir", trusted, "--creds", "reader:some", &remote]);
    assert_eq!(raw.stdout, manifest);
    let other = format!("{remote}-new");
    for refused in ["reader:some", "admin:wrong"] {
        let arguments = [&push[..], &[refused, &local, &other]].concat();
        let output = Command::new("skopeo").args(arguments).output().unwrap();
        assert!(!output.status.success(), "{refused} could push");
    }
}

#[tokio::test]
async fn skopeo_logs_in_and_works_with_tokens() {
    let standalone = Standalone::start();
    let folder = standalone.folder.path();
    let manifest = write_layout(&folder.join("image"));
    let local = format!("oci:{}:v1", folder.join("image").display());
    let registry = format!("localhost:{}", standalone.server.address("registry").port());
    let auth = folder.join("auth.json");
    let auth = ["--authfile", auth.to_str().unwrap()];
    let insecure = "--tls-verify=false";

    let login = |password| {
        let credentials = ["--username", "ci", "--password", password, insecure, registry.as_str()];
        Command::new("skopeo").arg("login").args(auth).args(credentials).output().unwrap()
    };
    assert!(!login("wrong").status.success());
    assert!(login("secret").status.success());

    let image = format!("docker://{registry}/team/app:v1");
    skopeo(
        &[&["copy", "--preserve-digests", "--dest-tls-verify=false"], &auth[..], &[&local, &image]].concat(),
    );
    // What is there already is mounted from the repository that skopeo has seen it in.
    let other = format!("docker://{registry}/team/other:v1");
    let both = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&[&both[..], &auth[..], &[&image, &other]].concat());
    let public = format!("docker://{registry}/team/web:v1");
    let admin = ["copy", "--dest-tls-verify=false", "--preserve-digests", "--dest-creds", "admin:secret"];
    skopeo(&[&admin[..], &[&local, &public]].concat());
    let raw = skopeo(&["inspect", "--raw", "--no-creds", insecure, &public]).stdout;
    assert_eq!(raw, manifest, "without credentials");
    let raw = skopeo(&["inspect", "--raw", "--creds", "alice:secret", insecure, &image]).stdout;
    assert_eq!(raw, manifest, "with a password");
    skopeo(&["delete", "--creds", "admin:secret", insecure, &other]);

    let denied =
        [&["copy", "--dest-tls-verify=false", "--dest-creds", "alice:secret"][..], &[&local, &image]];
    for arguments in [denied.concat(), vec!["inspect", "--raw", "--no-creds", insecure, &image]] {
        let output = Command::new("skopeo").args(&arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?} worked");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("does not exist or access is denied"), "{said}");
    }
    let paths = ["GET /token", "GET /v2/", "POST /v2/team/app/blobs/uploads/"];
    let log = standalone.server.log();
    for path in paths {
        let (method, path) = path.split_once(' ').unwrap();
        assert!(log.contains(&format!(r#""method":"{method}","path":"{path}""#)), "{path}");
    }
}
