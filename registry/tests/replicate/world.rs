//! Two registries, each behind a proxy, and the program that copies between them.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output, Stdio},
};

use ::channel::replication::Progress;
use bytes::Bytes;
use http::StatusCode;
use oci::{Digest, manifest};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::Client,
    image::{descriptor, image, noise, sha256},
    proxy::Proxy,
    server::Server,
};

pub(crate) struct World {
    pub(crate) source: Server,
    pub(crate) target: Server,
    /// In front of each.
    pub(crate) from: Proxy,
    pub(crate) to: Proxy,
    folders: [TempDir; 2],
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    /// The last line.
    pub(crate) progress: Progress,
    pub(crate) log: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With more arguments for the target.
    pub(crate) async fn with(arguments: impl FnOnce(&mut Command)) -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let source = Server::start(folders[0].path());
        let target = Server::with(folders[1].path(), arguments);
        Self::of(source, target, folders).await
    }

    pub(crate) async fn of(source: Server, target: Server, folders: [TempDir; 2]) -> Self {
        let from = Proxy::before(source.address("registry")).await;
        let to = Proxy::before(target.address("registry")).await;
        Self { source, target, from, to, folders }
    }

    /// Two that say that they are Berth's, each by its own id.
    pub(crate) async fn of_berths() -> Self {
        Self::that_are_berths(true).await
    }

    /// Two that say so, or of which nobody knows it.
    pub(crate) async fn that_are_berths(say_so: bool) -> Self {
        let world = Self::new().await;
        world.are_berths(say_so);
        world
    }

    pub(crate) fn are_berths(&self, say_so: bool) {
        for proxy in [&self.from, &self.to] {
            if say_so { proxy.is_honest() } else { proxy.is_foreign() }
        }
    }

    pub(crate) fn source_root(&self) -> &Path {
        self.folders[0].path()
    }

    pub(crate) fn target_root(&self) -> &Path {
        self.folders[1].path()
    }

    /// The program, with both ends and these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = replicate();
        command.args([self.from.url(), self.to.url()]).args(arguments);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments)).await
    }

    /// Runs, and everything has to be right.
    #[track_caller]
    pub(crate) fn copy(&self) -> impl Future<Output = Ran> {
        let running = self.run(&[]);
        async move {
            let ran = running.await;
            assert_eq!(ran.code, 0, "{ran:#?}");
            ran
        }
    }

    /// Whatever tags there are at the source, the target has them, and can be pulled whole.
    pub(crate) async fn is_equal(&self, repositories: &[&str]) {
        for repository in repositories {
            let tags = tags(&self.source.client(), repository).await;
            assert_eq!(tags, self::tags(&self.target.client(), repository).await, "{repository}");
            for tag in tags {
                same(&self.source.client(), &self.target.client(), repository, &tag).await;
            }
        }
    }
}

pub(crate) fn replicate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-registry"));
    command.env_clear().arg("replicate").stdin(Stdio::null());
    command
}

pub(crate) async fn run(mut command: Command) -> Ran {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    understand(&output)
}

pub(crate) fn understand(output: &Output) -> Ran {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = said.lines().last().unwrap_or_else(|| panic!("it said nothing: {log}"));
    Ran { code: output.status.code().unwrap(), progress: serde_json::from_str(last).unwrap(), log }
}

impl Ran {
    /// The one thing that failed.
    #[track_caller]
    pub(crate) fn failure(&self) -> (&str, &str) {
        assert_eq!(self.progress.failures.len(), 1, "{self:#?}");
        let (image, failure) = self.progress.failures.first_key_value().unwrap();
        (image, &failure.reason)
    }
}

pub(crate) async fn tags(client: &Client, repository: &str) -> Vec<String> {
    let answer = client.get(&format!("/v2/{repository}/tags/list?n=1000")).await;
    if answer.status == StatusCode::NOT_FOUND {
        return Vec::new();
    }
    let list: Value = answer.expect(StatusCode::OK).json();
    list["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

/// What a reference names at both ends: the same bytes of the same type, all that it needs, and what refers to it.
pub(crate) async fn same(source: &Client, target: &Client, repository: &str, reference: &str) {
    let (mut left, mut seen) = (vec![reference.to_owned()], BTreeSet::new());
    while let Some(reference) = left.pop() {
        if !seen.insert(reference.clone()) {
            continue;
        }
        let path = format!("/v2/{repository}/manifests/{reference}");
        let theirs = source.get(&path).await;
        if theirs.status == StatusCode::NOT_FOUND {
            // What build caches consist of.
            let path = format!("/v2/{repository}/blobs/{reference}");
            let theirs = source.get(&path).await.expect(StatusCode::OK);
            assert!(theirs.body == target.get(&path).await.expect(StatusCode::OK).body, "{path}");
            continue;
        }
        let theirs = theirs.expect(StatusCode::OK);
        let ours = target.get(&path).await.expect(StatusCode::OK);
        assert_eq!(theirs.body, ours.body, "{path}");
        assert_eq!(theirs.header("content-type"), ours.header("content-type"));
        let document: Value = theirs.json();
        let children = document["manifests"].as_array().cloned().unwrap_or_default();
        left.extend(children.iter().map(|child| child["digest"].as_str().unwrap().to_owned()));
        let layers = document["layers"].as_array().cloned().unwrap_or_default();
        for blob in layers.iter().chain(document.get("config")) {
            let path = format!("/v2/{repository}/blobs/{}", blob["digest"].as_str().unwrap());
            let theirs = source.get(&path).await;
            // Foreign layers are nowhere.
            if theirs.status != StatusCode::NOT_FOUND {
                let ours = target.get(&path).await.expect(StatusCode::OK);
                assert!(theirs.body == ours.body, "{path}");
            }
        }
        let digest = sha256(&theirs.body);
        let path = format!("/v2/{repository}/referrers/{digest}");
        let theirs: Value = source.get(&path).await.expect(StatusCode::OK).json();
        let ours: Value = target.get(&path).await.expect(StatusCode::OK).json();
        let digests = |list: &Value| {
            let mut all: Vec<_> =
                list["manifests"].as_array().unwrap().iter().map(|one| one["digest"].to_string()).collect();
            all.sort();
            all
        };
        assert_eq!(digests(&theirs), digests(&ours), "{path}");
        left.extend(digests(&theirs).iter().map(|digest| digest.trim_matches('"').to_owned()));
    }
}

impl Client {
    /// Pushes an image with a configuration, two layers and perhaps a subject; its manifest.
    pub(crate) async fn push_noise(
        &self,
        repository: &str,
        tag: Option<&str>,
        seed: u64,
        subject: Option<&Value>,
    ) -> Value {
        let config = Bytes::from(format!("{{\"seed\":{seed}}}"));
        let layers = [noise(seed, 300_000), noise(seed + 1_000_000, 20_000)];
        for content in layers.iter().chain([&config]) {
            self.push_blob(repository, content.clone()).await;
        }
        let mut document = image(&config, &[&layers[0], &layers[1]]);
        if let Some(subject) = subject {
            document["subject"] = subject.clone();
        }
        let reference =
            tag.map_or_else(|| sha256(document.to_string().as_bytes()).to_string(), str::to_owned);
        self.put_manifest(repository, &reference, &document).await.expect(StatusCode::CREATED);
        descriptor(manifest::IMAGE, document.to_string().as_bytes())
    }

    /// Pushes an index of these manifests.
    pub(crate) async fn push_index(
        &self,
        repository: &str,
        reference: Option<&str>,
        kind: &str,
        children: &[Value],
    ) -> Value {
        let document = json!({"schemaVersion": 2, "mediaType": kind, "manifests": children});
        let digest = sha256(document.to_string().as_bytes()).to_string();
        let reference = reference.unwrap_or(&digest);
        self.put_manifest(repository, reference, &document).await.expect(StatusCode::CREATED);
        descriptor(kind, document.to_string().as_bytes())
    }

    pub(crate) async fn digest_of(&self, repository: &str, tag: &str) -> Option<Digest> {
        let answer = self.head(&format!("/v2/{repository}/manifests/{tag}")).await;
        (answer.status == StatusCode::OK).then(|| answer.header("docker-content-digest").parse().unwrap())
    }
}

/// Says that this test goes no further, and why; fails where everything has to be tested.
pub(crate) fn skip(why: &str) {
    use std::io::Write as _;
    let all = std::env::var("BERTH_TEST_CLIENTS").is_ok_and(|wanted| wanted == "all");
    assert!(!all, "not tested, though BERTH_TEST_CLIENTS=all asks for it: {why}");
    let thread = std::thread::current();
    let sentence = format!("\nskipped: {}: {why}\n", thread.name().unwrap_or_default());
    std::io::stderr().write_all(sentence.as_bytes()).unwrap();
}
