//! `berth-registry gc` and `check`, beside a running server and without one.

use std::{
    path::Path,
    process::{Command, Output},
};

use http::StatusCode;
use oci::ErrorCode;
use serde_json::Value;

use crate::{
    image::{image, sha256},
    server::Server,
};

fn run(root: &Path, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-registry"));
    let output = command.env_clear().args(arguments).arg("--root").arg(root).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

#[tokio::test]
async fn gc_goes_through_the_server_and_says_what_goes() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let kept = client.push_image("a", "v1", "kept").await;
    let unused = client.push_blob("a", "never used").await;
    let (output, text) = run(root.path(), &["gc"]);
    assert!(output.status.success() && text == "removed 0 in all, 0 bytes\n", "all is young: {output:?}");
    for _ in 0..2 {
        let (output, text) = run(root.path(), &["gc", "--dry-run", "--grace-seconds", "0"]);
        assert!(output.status.success(), "{output:?}");
        let hex = unused.hex();
        assert!(
            text.contains(&format!("would remove blob repositories/a/_blobs/sha256/{hex}, 0 bytes\n")),
            "{text}"
        );
        assert!(text.contains(&format!("would remove content blobs/sha256/{}/{hex}, 10 bytes\n", &hex[..2])));
        assert!(text.ends_with("would remove 2 in all, 10 bytes\n"), "{text}");
    }
    client.get(&format!("/v2/a/blobs/{unused}")).await.expect(StatusCode::OK);
    let (_, text) = run(root.path(), &["gc", "--grace-seconds", "0", "--json"]);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["collected"]["kind"], "blob");
    assert_eq!(events[1]["collected"]["bytes"], 10);
    assert_eq!(events[2]["done"]["bytes"], 10);
    client.get(&format!("/v2/a/blobs/{unused}")).await.expect(StatusCode::NOT_FOUND);
    client.get(&format!("/v2/a/manifests/{kept}")).await.expect(StatusCode::OK);
    client.get(&format!("/v2/a/blobs/{}", sha256(b"kept"))).await.expect(StatusCode::OK);
    client.push_blob("a", "never used").await;
    client.get(&format!("/v2/a/blobs/{unused}")).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn gc_and_check_work_without_a_server() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    server.client().push_image("a", "v1", "kept").await;
    server.client().push_blob("a", "never used").await;
    server.kill();
    let (output, text) = run(root.path(), &["gc", "--grace-seconds", "0"]);
    assert!(output.status.success() && text.ends_with("removed 2 in all, 10 bytes\n"), "{output:?}");
    let (output, text) = run(root.path(), &["check"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text, "0 problems, of which 0 are damage that is left\n");
}

#[tokio::test]
async fn a_server_collects_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--gc-interval-seconds", "1", "--gc-grace-seconds", "0"]);
    });
    let client = server.client();
    client.push_blob("a", "never used").await;
    server.logged(|event| event["message"] == "collection ended" && event["collected"] != 0);
    client.get(&format!("/v2/a/blobs/{}", sha256(b"never used"))).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn p12_abandoned_uploads_expire() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let (abandoned, used) = (client.start_upload("a").await, client.start_upload("a").await);
    for session in [&abandoned, &used] {
        client.patch(session, &[], "content").await.expect(StatusCode::ACCEPTED);
    }
    let id = abandoned.rsplit('/').next().unwrap();
    let data = std::fs::File::open(root.path().join("uploads").join(id).join("data")).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(30 * 86400);
    data.set_modified(long_ago).unwrap();
    let (output, text) = run(root.path(), &["gc"]);
    assert!(output.status.success() && text.contains("upload"), "{output:?}");
    for gone in [client.get(&abandoned).await, client.patch(&abandoned, &[], "more").await] {
        gone.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown);
    }
    client.patch(&used, &[], "more").await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn check_finds_damage_and_repair_heals_it_beside_the_server() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_image("a", "v1", "layer").await;
    let layer = sha256(b"layer");
    let content = root.path().join(format!("blobs/sha256/{}/{}", &layer.hex()[..2], layer.hex()));
    std::fs::write(content, "LAYER").unwrap();
    std::fs::write(root.path().join("repositories/a/_tags/broken"), "nonsense").unwrap();
    let (output, text) = run(root.path(), &["check"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text.contains("Content is damaged") && text.contains("(moved to quarantine)"), "{text}");
    assert!(text.contains("This tag does not hold a digest."), "{text}");
    client.get(&format!("/v2/a/blobs/{layer}")).await.expect(StatusCode::NOT_FOUND);
    let (output, _) = run(root.path(), &["check", "--repair"]);
    assert_eq!(output.status.code(), Some(3), "only a push brings content back");
    client.get("/v2/a/manifests/broken").await.expect(StatusCode::NOT_FOUND);
    client.push_blob("a", "layer").await;
    let (output, text) = run(root.path(), &["check", "--json"]);
    assert!(output.status.success(), "{text}");
    let done: Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(done["done"]["problems"], 0);
}

#[test]
fn what_is_no_root_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    for command in ["gc", "check"] {
        let (output, _) = run(root.path(), &[command]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("is no root of a registry"), "{output:?}");
    }
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_check_does_not_mind_what_sparse_manifests_lack() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--allow-sparse", "all"]);
    });
    let client = server.client();
    client.push_blob("a", "{}").await;
    client.push_blob("secret", "layer").await;
    client.put_manifest("a", "v1", &image(b"{}", &[b"layer", b"later"])).await.expect(StatusCode::CREATED);
    let (output, text) = run(root.path(), &["check", "--repair"]);
    assert!(output.status.success() && !text.contains("needs"), "{output:?}");
    // Nor does a repair give a repository what another one has.
    client.get(&format!("/v2/a/blobs/{}", sha256(b"layer"))).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_socket_is_reached_however_long_the_path_is() {
    let root = tempfile::tempdir().unwrap();
    let long = root.path().join("a".repeat(150));
    let server = Server::start(&long);
    let (output, _) = run(&long, &["gc"]);
    assert!(output.status.success(), "{output:?}");
    drop(server);
}

#[tokio::test]
async fn a_server_finds_damage_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::start(root.path());
    let damaged = server.client().push_blob("a", "damaged").await;
    // In order, or the journal would bring back what is right.
    server.terminate();
    assert!(server.wait().success());
    let hex = damaged.hex();
    std::fs::write(root.path().join(format!("blobs/sha256/{}/{hex}", &hex[..2])), "DAMAGED").unwrap();
    let server = Server::with(root.path(), |command| {
        command.args(["--scrub-interval-seconds", "1", "--health-listen", "127.0.0.1:0"]);
    });
    server.logged(|line| {
        line["path"].as_str().is_some_and(|path| path.contains(hex)) && line["done"] == "moved to quarantine"
    });
    server.logged(|line| line["message"] == "scrub ended" && line["problems"] == 1);
    server.client().get(&format!("/v2/a/blobs/{damaged}")).await.expect(StatusCode::NOT_FOUND);
    // The next one finds nothing; that there was one is kept.
    server.logged(|line| line["message"] == "scrub ended" && line["problems"] == 0);
    assert!(root.path().join("scrubbed").exists());
    let metrics = server.health().get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("berth_registry_scrubs_total"), "{metrics}");
}
