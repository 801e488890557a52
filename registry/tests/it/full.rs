//! A disk that is really full: point 34.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use http::{Method, StatusCode};
use oci::ErrorCode;
use serde_json::{Value, json};

use crate::{
    image::{image, noise, sha256},
    policy_file::Standalone,
    programs::{is_root, skip},
    server::{Server, berth_registry},
};

/// Runs what follows with a small file system mounted over the folder `$1`.
const ON_A_SMALL_DISK: &str = r#"mount -t tmpfs -o size=4m none "$1" && shift && exec "$@""#;

/// In a namespace of mounts, which the superuser has for the asking. Others are that in a namespace of users, where
/// the machine allows it.
fn small_disk(root: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", ON_A_SMALL_DISK, "sh"]).arg(root);
    command
}

#[tokio::test]
async fn p34_a_full_disk_refuses_writes_with_a_sentence_and_goes_on_reading() {
    let root = tempfile::tempdir().unwrap();
    if !small_disk(root.path()).arg("true").status().is_ok_and(|status| status.success()) {
        return skip("a small file system can't be mounted: be root, or allow namespaces of users");
    }
    let program = berth_registry();
    let mut command = small_disk(root.path());
    command.arg(program.get_program()).args(program.get_args());
    let server = Server::launch(command, root.path());
    let client = server.client();
    client.push_image("a", "v1", "layer").await;

    // Far more than there is room for, in one request: the client reads why all the same.
    // What even an empty disk could not hold is a mistake of its own.
    for (size, status, code) in [
        (4_100_000, StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unknown),
        (20_000_000, StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid),
    ] {
        let large = noise(35, size);
        let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(&large));
        client.post(&path, large).await.expect_error(status, code);
    }

    let session = client.start_upload("a").await;
    let piece = noise(34, 100_000);
    let mut pieces = 0;
    let refused = loop {
        let answer = client.patch(&session, &[], piece.clone()).await;
        if answer.status != StatusCode::ACCEPTED {
            break answer;
        }
        pieces += 1;
        assert!(pieces < 100, "the disk is not small");
    };
    let refused = refused.expect_error(StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unknown);
    assert!(String::from_utf8_lossy(&refused.body).contains("storage is full"));
    // What was refused left nothing, so that a little room is there again; that is filled too.
    let received: u64 = client.get(&session).await.header("range").trim_start_matches("0-").parse().unwrap();
    assert_eq!(received + 1, pieces * 100_000);
    while client.patch(&session, &[], piece.slice(..1000)).await.status == StatusCode::ACCEPTED {}

    client.post("/v2/b/blobs/uploads/", "").await.expect(StatusCode::INSUFFICIENT_STORAGE);
    let manifest = image(b"{\"of\":\"layer\"}", &[b"layer", b"layer"]);
    client.put_manifest("a", "v2", &manifest).await.expect(StatusCode::INSUFFICIENT_STORAGE);
    client.get("/v2/a/manifests/v2").await.expect(StatusCode::NOT_FOUND);
    client.get("/v2/a/manifests/v1").await.expect(StatusCode::OK);

    client.send(Method::DELETE, &session, &[], "").await.expect(StatusCode::NO_CONTENT);
    client.put_manifest("a", "v2", &manifest).await.expect(StatusCode::CREATED);
    client.push_image("b", "v1", "another").await;
}

/// A small file system over a folder, also while no server runs on it.
struct SmallDisk {
    holder: Child,
    root: PathBuf,
}

impl SmallDisk {
    fn new(root: &Path) -> Self {
        let mut command = small_disk(root);
        command.args(["sh", "-c", "echo mounted && exec sleep 1000"]).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        Self { holder, root: root.to_owned() }
    }

    /// Where it is for who is outside.
    fn at(&self, path: &str) -> PathBuf {
        let root = self.root.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(root).join(path)
    }

    fn serve(&self) -> Server {
        let mut command = Command::new("nsenter");
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--mount").args(["--target", &self.holder.id().to_string()]);
        let program = berth_registry();
        command.arg(program.get_program()).args(program.get_args());
        command.args(["--health-listen", "127.0.0.1:0"]);
        Server::launch(command, &self.root)
    }

    /// Takes all the room that there is.
    fn fill(&self, path: &str) {
        let mut file = std::fs::File::create(self.at(path)).unwrap();
        while file.write_all(&[7; 1000]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}

#[tokio::test]
async fn p34_a_start_on_a_full_disk_serves_what_is_there_and_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    if !small_disk(root.path()).arg("true").status().is_ok_and(|status| status.success()) {
        return skip("a small file system can't be mounted: be root, or allow namespaces of users");
    }
    let disk = SmallDisk::new(root.path());
    let server = disk.serve();
    for tag in ["v1", "v2"] {
        server.client().push_image("a", tag, tag).await;
    }
    server.kill();
    // As a failure of the power may leave it: what is in the journal is nowhere else.
    std::fs::remove_file(disk.at("repositories/a/_tags/v2")).unwrap();
    // A start empties this, which would make room.
    std::fs::remove_dir_all(disk.at("tmp")).unwrap();
    std::fs::create_dir(disk.at("tmp")).unwrap();
    disk.fill("quarantine/filler");

    let server = disk.serve();
    let client = server.client();
    client.get("/v2/a/manifests/v1").await.expect(StatusCode::OK);
    client.get(&format!("/v2/a/blobs/{}", sha256(b"v2"))).await.expect(StatusCode::OK);
    client.get("/v2/a/manifests/v2").await.expect(StatusCode::NOT_FOUND);
    let tags =
        async || client.get("/v2/a/tags/list").await.expect(StatusCode::OK).json::<Value>()["tags"].clone();
    assert_eq!(tags().await, json!(["v1"]));
    let full = (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unknown);
    client.delete("/v2/a/manifests/v1").await.expect_error(full.0, full.1);
    client.post("/v2/a/blobs/uploads/", "").await.expect_error(full.0, full.1);
    let is_read_only = async || {
        let metrics = server.health().get("/metrics").await.expect(StatusCode::OK).body;
        // The help of it begins with the same.
        String::from_utf8_lossy(&metrics).contains("\nberth_registry_read_only 1\n")
    };
    assert!(is_read_only().await);
    server.health().get("/readyz").await.expect(StatusCode::OK);

    // No start is needed once there is room.
    std::fs::remove_file(disk.at("quarantine/filler")).unwrap();
    server.logged(|event| {
        event["message"].as_str().is_some_and(|message| message.starts_with("there is room again"))
    });
    assert!(!is_read_only().await);
    assert_eq!(tags().await, json!(["v1", "v2"]));
    for tag in ["v1", "v2"] {
        client.get(&format!("/v2/a/manifests/{tag}")).await.expect(StatusCode::OK);
    }
    client.push_image("a", "v3", "v3").await;
    client.delete("/v2/a/manifests/v1").await.expect(StatusCode::ACCEPTED);
    server.kill();

    let server = disk.serve();
    for tag in ["v2", "v3"] {
        server.client().get(&format!("/v2/a/manifests/{tag}")).await.expect(StatusCode::OK);
    }
    server.client().get("/v2/a/manifests/v1").await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn p34_the_disks_reserve_stays_free_and_everything_else_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (manifest, session) = {
        let server = Server::start(root.path());
        let client = server.client();
        (client.push_image("a", "v1", "layer").await, client.start_upload("a").await)
    };
    let server = Server::with(root.path(), |command| {
        command.args(["--disk-reserve", "1000000Ti"]);
    });
    let client = server.client();
    let full = (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unknown);
    let refused = client.post("/v2/a/blobs/uploads/", "").await.expect_error(full.0, full.1);
    assert!(String::from_utf8_lossy(&refused.body).contains("storage is full"));
    let large = noise(34, 3_000_000);
    let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(&large));
    client.post(&path, large.clone()).await.expect_error(full.0, full.1);
    client.patch(&session, &[], large).await.expect_error(full.0, full.1);
    client.patch(&session, &[], "a little").await.expect_error(full.0, full.1);
    let another = image(b"{\"of\":\"layer\"}", &[b"layer", b"layer"]);
    client.put_manifest("a", "v2", &another).await.expect_error(full.0, full.1);

    assert_eq!(client.get(&session).await.header("range"), "0-0");
    client.send(Method::DELETE, &session, &[], "").await.expect(StatusCode::NO_CONTENT);
    client.get("/v2/a/manifests/v1").await.expect(StatusCode::OK);
    client.get(&format!("/v2/a/blobs/{}", sha256(b"layer"))).await.expect(StatusCode::OK);
    client.delete(&format!("/v2/a/manifests/{manifest}")).await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn uploads_under_way_hold_no_more_than_the_quota() {
    let standalone = Standalone::under(
        r"
logins:
- username: ci
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
  role: Admin
repositories:
- path: team/*
  quota: 1000000
- path: team/own
",
    );
    let ci = standalone.server.client().login("ci", "secret");
    let piece = noise(36, 600_000);
    let first = ci.start_upload("team/a").await;
    ci.patch(&first, &[], piece.clone()).await.expect(StatusCode::ACCEPTED);
    let second = ci.start_upload("team/b").await;
    let refused = ci.patch(&second, &[], piece.clone()).await;
    let refused = refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    assert!(String::from_utf8_lossy(&refused.body).contains("finish or cancel some"));
    assert_eq!(ci.get(&second).await.header("range"), "0-0", "nothing of it was kept");
    for beside in ["team/own", "other"] {
        let session = ci.start_upload(beside).await;
        ci.patch(&session, &[], piece.clone()).await.expect(StatusCode::ACCEPTED);
    }
    ci.delete(&first).await.expect(StatusCode::NO_CONTENT);
    ci.patch(&second, &[], piece.clone()).await.expect(StatusCode::ACCEPTED);

    // What nobody goes on with makes room.
    let uploads = standalone.folder.path().join("root/uploads");
    let data = std::fs::File::open(uploads.join(second.rsplit('/').next().unwrap()).join("data")).unwrap();
    data.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(1000)).unwrap();
    ci.push_blob("team/a", piece).await;
    ci.get(&second).await.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown);
}
