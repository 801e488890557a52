//! skopeo, which copies images without unpacking them.

use super::Program;
use crate::{
    layout::{Layout, blob},
    managed::{Managed, policy},
    policy_file::Standalone,
    server::Server,
};

#[tokio::test]
async fn skopeo_pushes_and_pulls() {
    let Some(skopeo) = Program::find("skopeo") else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("root"));
    let layout = Layout::image(&folder.path().join("image"), "v1");
    let local = layout.reference();
    let remote = format!("docker://{}/team/app:v1", server.address("registry"));
    // Or it would compress the layers, and the manifest would be another one.
    skopeo.run(&["copy", "--preserve-digests", "--dest-tls-verify=false", &local, &remote]);
    assert_eq!(skopeo.run(&["inspect", "--raw", "--tls-verify=false", &remote]), layout.top);
    let back = folder.path().join("back");
    let to = format!("oci:{}:v1", back.display());
    skopeo.run(&["copy", "--preserve-digests", "--src-tls-verify=false", &remote, &to]);
    assert_eq!(std::fs::read(blob(&back, &layout.digest)).unwrap(), layout.top);
    for part in layout.images.values().flatten() {
        assert_eq!(
            std::fs::read(blob(&back, part)).unwrap(),
            std::fs::read(blob(&layout.folder, part)).unwrap()
        );
    }
    // A second copy to another repository mounts what is there, or pushes it again; both must work.
    let other = format!("docker://{}/other/app:v1", server.address("registry"));
    skopeo.run(&["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &remote, &other]);
    skopeo.run(&["delete", "--tls-verify=false", &other]);
}

#[tokio::test]
async fn skopeo_pushes_as_admin_and_pulls_as_reader_over_tls() {
    let Some(skopeo) = Program::find("skopeo") else { return };
    let managed = Managed::new();
    let server = managed.start();
    managed.operator(&server).put(&policy()).await.unwrap();
    let folder = managed.folder.path();
    let layout = Layout::image(&folder.join("image"), "v1");
    let trusted = folder.join("trusted");
    std::fs::create_dir(&trusted).unwrap();
    std::fs::write(trusted.join("ca.crt"), &managed.serving.pem).unwrap();
    let trusted = trusted.to_str().unwrap();
    let local = layout.reference();
    let remote = format!("docker://localhost:{}/team/app:v1", server.address("registry").port());

    let push = ["copy", "--preserve-digests", "--dest-cert-dir", trusted, "--dest-creds"];
    skopeo.run(&[&push[..], &["admin:all", &local, &remote]].concat());
    let raw = skopeo.run(&["inspect", "--raw", "--cert-dir", trusted, "--creds", "reader:some", &remote]);
    assert_eq!(raw, layout.top);
    let other = format!("{remote}-new");
    for refused in ["reader:some", "admin:wrong"] {
        skopeo.fail(&[&push[..], &[refused, &local, &other]].concat());
    }
}

#[tokio::test]
async fn skopeo_logs_in_and_works_with_tokens() {
    let Some(skopeo) = Program::find("skopeo") else { return };
    let standalone = Standalone::start();
    let folder = standalone.folder.path();
    let layout = Layout::image(&folder.join("image"), "v1");
    let local = layout.reference();
    let registry = format!("localhost:{}", standalone.server.address("registry").port());
    let auth = folder.join("auth.json");
    let auth = ["--authfile", auth.to_str().unwrap()];
    let insecure = "--tls-verify=false";

    let login = |password| {
        let credentials = ["--username", "ci", "--password", password, insecure, registry.as_str()];
        [&["login"], &auth[..], &credentials].concat()
    };
    skopeo.fail(&login("wrong"));
    skopeo.run(&login("secret"));

    let image = format!("docker://{registry}/team/app:v1");
    skopeo.run(
        &[&["copy", "--preserve-digests", "--dest-tls-verify=false"], &auth[..], &[&local, &image]].concat(),
    );
    // What is there already is mounted from the repository that skopeo has seen it in.
    let other = format!("docker://{registry}/team/other:v1");
    let both = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo.run(&[&both[..], &auth[..], &[&image, &other]].concat());
    let public = format!("docker://{registry}/team/web:v1");
    let admin = ["copy", "--dest-tls-verify=false", "--preserve-digests", "--dest-creds", "admin:secret"];
    skopeo.run(&[&admin[..], &[&local, &public]].concat());
    let raw = skopeo.run(&["inspect", "--raw", "--no-creds", insecure, &public]);
    assert_eq!(raw, layout.top, "without credentials");
    let raw = skopeo.run(&["inspect", "--raw", "--creds", "alice:secret", insecure, &image]);
    assert_eq!(raw, layout.top, "with a password");
    skopeo.run(&["delete", "--creds", "admin:secret", insecure, &other]);

    let denied =
        [&["copy", "--dest-tls-verify=false", "--dest-creds", "alice:secret"][..], &[&local, &image]];
    for arguments in [denied.concat(), vec!["inspect", "--raw", "--no-creds", insecure, &image]] {
        let said = skopeo.fail(&arguments);
        assert!(said.contains("does not exist or access is denied"), "{said}");
    }
    let paths = ["GET /token", "GET /v2/", "POST /v2/team/app/blobs/uploads/"];
    let log = standalone.server.log();
    for path in paths {
        let (method, path) = path.split_once(' ').unwrap();
        assert!(log.contains(&format!(r#""method":"{method}","path":"{path}""#)), "{path}");
    }
}
