//! The registry of the CNCF at either end, Debian's 2.8 and version 3: without a referrers API, without resumable chunks, and with types in its
//! answers that one has to ask for.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use http::StatusCode;
use rstest::rstest;
use serde_json::Value;

use crate::{
    client::Client,
    copying::{ALL, TAGS, fill},
    proxy::{Fault, Proxy},
    server::Server,
    world::{replicate, run, skip, tags},
};

/// Programs that registry/tests/clients.sh brings, below the names that it gives them.
const DEBIAN: &str = "docker-registry";
const VERSION_3: &str = "distribution";

struct Distribution {
    child: Child,
    address: SocketAddr,
}

impl Distribution {
    /// None, and that is said, where it is not installed.
    fn start(program: &str, folder: &Path) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            skip(&format!(
                "{program} is missing: registry/tests/clients.sh brings it, as root on Debian or Ubuntu"
            ));
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '{address}'}}\nlog: {{level: error}}\n\
             validation: {{manifests: {{urls: {{allow: ['^https://']}}}}}}\n",
            folder.join("data").display()
        );
        std::fs::write(folder.join("config.yml"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(folder.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        // Version 3 would tell somebody what it does.
        command.env("OTEL_TRACES_EXPORTER", "none");
        let child = command.spawn().unwrap();
        while TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        Some(Self { child, address })
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn copy(from: &str, to: &str, more: &[&str]) -> u64 {
    let mut command = replicate();
    command.args([from, to]).args(more);
    let ran = run(command).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    ran.progress.done
}

#[rstest]
#[case::debian(DEBIAN, None)]
// It takes no index of plain blobs.
#[case::version_3(VERSION_3, Some("cache"))]
#[tokio::test]
async fn there_and_back_again(#[case] program: &str, #[case] refused: Option<&str>) {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let Some(middleman) = Distribution::start(program, folders[0].path()) else { return };
    let [source, back] = [1, 2].map(|n| Server::start(folders[n].path()));
    fill(&source.client()).await;
    let but: Vec<_> = refused.iter().flat_map(|tag| ["--exclude-tag", tag]).collect();
    let some = TAGS - refused.iter().len() as u64;
    let url = |address: SocketAddr| format!("http://{address}");
    let middle = Proxy::before(middleman.address).await;
    middle.fail(1, Fault::CutRequest(100_000), |asked| asked.kind() == "PUT upload");
    assert_eq!(copy(&url(source.address("registry")), &middle.url(), &but).await, some);
    assert_eq!(copy(&url(source.address("registry")), &middle.url(), &but).await, 0, "nothing is done twice");
    // Its signatures are below the fallback tag, which is no image of its own.
    let index = source.client().digest_of("team/app", "v1").await.unwrap();
    let path = format!("/v2/team/app/manifests/{}", index.fallback_tag());
    let accept = [("accept", oci::manifest::INDEX)];
    let fallback = Client::new(middleman.address).send(http::Method::GET, &path, &accept, "").await;
    let fallback: Value = fallback.expect(StatusCode::OK).json();
    assert_eq!(fallback["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(copy(&middle.url(), &url(back.address("registry")), &but).await, some);
    for repository in ALL {
        let mut all = tags(&source.client(), repository).await;
        all.retain(|tag| Some(tag.as_str()) != refused);
        assert_eq!(all, tags(&back.client(), repository).await);
        for tag in all {
            let digest = source.client().digest_of(repository, &tag).await.unwrap();
            assert_eq!(back.client().digest_of(repository, &tag).await, Some(digest.clone()));
            let path = format!("/v2/{repository}/referrers/{digest}");
            let [theirs, ours]: [Value; 2] =
                [source.client().get(&path).await.json(), back.client().get(&path).await.json()];
            assert_eq!(theirs["manifests"], ours["manifests"], "{path}");
        }
    }
    back.client()
        .head(&format!("/v2/team/app/manifests/{}", index.fallback_tag()))
        .await
        .expect(StatusCode::NOT_FOUND);
}

/// It deletes by digest only, and with an image all its tags.
#[tokio::test]
async fn a_registry_that_deletes_no_single_tags_deletes_images() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let Some(debian) = Distribution::start(DEBIAN, folders[0].path()) else { return };
    let source = Server::start(folders[1].path());
    let client = source.client();
    // One alone; two of one image that both go, and two of which one stays.
    for (tag, seed) in [("alone", 1), ("both", 2), ("too", 2), ("one", 3), ("other", 3), ("moves", 4)] {
        client.push_noise("a", Some(tag), seed, None).await;
    }
    let url = |address: SocketAddr| format!("http://{address}");
    let (from, to) = (url(source.address("registry")), url(debian.address));
    assert_eq!(copy(&from, &to, &[]).await, 6);
    let propagate = async || {
        let mut command = replicate();
        command.args([&from, &to, "--propagate-deletions"]);
        run(command).await
    };
    let delete = async |tag: &str| {
        client.delete(&format!("/v2/a/manifests/{tag}")).await.expect(StatusCode::ACCEPTED);
    };
    for tag in ["alone", "both", "too"] {
        delete(tag).await;
    }
    client.push_noise("a", Some("moves"), 5, None).await;
    let ran = propagate().await;
    assert_eq!((ran.code, ran.progress.done, ran.progress.deleted), (0, 1, 3), "{ran:#?}");
    let there = async || {
        let mut there = tags(&Client::new(debian.address), "a").await;
        there.sort();
        there
    };
    assert_eq!(there().await, ["moves", "one", "other"]);
    delete("one").await;
    let ran = propagate().await;
    assert_eq!((ran.code, ran.progress.deleted, ran.progress.failed), (5, 0, 0), "{ran:#?}");
    let problem = ran.progress.problem.unwrap();
    assert_eq!(problem.reason, ::channel::replication::Reason::DeletionsStopped);
    assert!(problem.message.contains("`other` names the same image as `one` in a"), "{problem:?}");
    assert_eq!(there().await, ["moves", "one", "other"]);
    delete("other").await;
    let ran = propagate().await;
    assert_eq!((ran.code, ran.progress.deleted), (0, 2), "{ran:#?}");
    assert_eq!(there().await, ["moves"]);
}
