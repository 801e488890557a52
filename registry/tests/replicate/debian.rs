//! The registry of the CNCF at either end, Debian's 2.8 and version 3: without a referrers API, without resumable chunks,
//! and with types in its answers that one has to ask for.

use std::{process::Stdio, time::Duration};

use http::{Method, StatusCode, header};
use rstest::rstest;
use serde_json::Value;

use crate::{
    crash::{finished, sent_again},
    distribution::{Chain, DEBIAN, VERSION_3, Way},
    image::{noise, sha256},
    proxy::{Asked, Fault},
    requests::{SOURCE, TARGET, all_faults, break_all, kinds, were_broken},
    world::{run, tags},
};

#[rstest]
#[tokio::test]
async fn there_and_back_again(#[values(DEBIAN, VERSION_3)] program: &str) {
    let Some(chain) = Chain::new(program, Way::Into).await else { return };
    let large = sha256(&noise(1, 300_000)).to_string();
    let of_large = move |asked: &Asked| asked.kind() == "PUT upload" && asked.path.ends_with(&large);
    let cut = chain.to.fail(1, Fault::CutRequest(100_000), of_large.clone());
    assert_eq!(chain.copy(&[]).await.progress.done, chain.images());
    assert_eq!(cut.left(), 0);
    let puts: Vec<_> = chain.to.asked().into_iter().filter(of_large).collect();
    let sent: Vec<u64> = puts
        .iter()
        .map(|put| put.headers[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap())
        .collect();
    // Debian's has nothing of what was cut.
    let least = if program == DEBIAN { 300_000 } else { 200_000 };
    assert!(sent.len() == 2 && sent[0] == 300_000 && (least..=300_000).contains(&sent[1]), "{sent:?}");
    assert_eq!(chain.copy(&[]).await.progress.done, 0, "nothing is done twice");
    // Its signatures are below the fallback tag, which is no image of its own.
    let index = chain.first.client().digest_of("team/app", "v1").await.unwrap();
    let path = format!("/v2/team/app/manifests/{}", index.fallback_tag());
    let accept = [("accept", oci::manifest::INDEX)];
    let fallback = chain.middle.client().send(Method::GET, &path, &accept, "").await;
    let fallback: Value = fallback.expect(StatusCode::OK).json();
    assert_eq!(fallback["manifests"].as_array().unwrap().len(), 1);
    chain.is_equal().await;
    chain.last.client().head(&path).await.expect(StatusCode::NOT_FOUND);
}

#[rstest]
#[tokio::test]
async fn each_kind_of_request_may_fail(
    #[values(DEBIAN, VERSION_3)] program: &str,
    #[values(Way::Into, Way::OutOf)] way: Way,
) {
    let Some(chain) = Chain::new(program, way).await else { return };
    let (mut at_source, mut at_target) = (SOURCE.to_vec(), TARGET.to_vec());
    if way == Way::Into {
        // The list of referrers below the fallback tag.
        at_target.insert(1, "GET manifest");
    }
    if program == VERSION_3 {
        // It takes no index of plain blobs.
        at_source.retain(|kind| *kind != "HEAD blob");
    }
    let faults = all_faults();
    let broken =
        [break_all(&chain.from, &at_source, &faults), break_all(&chain.to, &at_target, &faults)].concat();
    chain.copy(&[]).await;
    chain.is_equal().await;
    were_broken(&broken);
    assert_eq!(kinds(&chain.from), at_source);
    assert_eq!(kinds(&chain.to), at_target);
}

#[rstest]
#[tokio::test]
async fn what_was_finished_before_kill_9_is_not_sent_again(
    #[values(DEBIAN, VERSION_3)] program: &str,
    #[values(Way::Into, Way::OutOf)] way: Way,
) {
    let Some(chain) = Chain::new(program, way).await else { return };
    for more in [1, 4, 7] {
        let (before, sent) = (finished(&chain.to), chain.to.asked().len());
        let mut child = chain.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while finished(&chain.to).len() < before.len() + more {
            assert!(child.try_wait().unwrap().is_none(), "there was more to send");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(sent_again(&chain.to, sent, &before), Vec::<String>::new());
    }
    let (before, sent) = (finished(&chain.to), chain.to.asked().len());
    chain.copy(&[]).await;
    assert_eq!(sent_again(&chain.to, sent, &before), Vec::<String>::new());
    chain.is_equal().await;
}

/// The manifest of a signature is there, and the list below the fallback tag could not be set.
#[rstest]
#[tokio::test]
async fn what_is_there_and_not_listed_is_listed_later(#[values(DEBIAN, VERSION_3)] program: &str) {
    let Some(chain) = Chain::new(program, Way::Into).await else { return };
    let lists = |asked: &Asked| asked.kind() == "PUT manifest" && asked.path.contains("/manifests/sha256-");
    let broken = chain.to.fail(1, Fault::status(StatusCode::FORBIDDEN), lists);
    chain.copy(&[]).await;
    assert_eq!(broken.left(), 0);
    chain.is_equal().await;
}

/// Debian's deletes by digest only, and with an image all its tags.
#[tokio::test]
async fn a_registry_that_deletes_no_single_tags_deletes_images() {
    let Some(chain) = Chain::new(DEBIAN, Way::Into).await else { return };
    let client = chain.first.client();
    // One alone; two of one image that both go, and two of which one stays.
    for (tag, seed) in [("alone", 1), ("both", 2), ("too", 2), ("one", 3), ("other", 3), ("moves", 4)] {
        client.push_noise("a", Some(tag), seed, None).await;
    }
    chain.from.is_honest();
    assert_eq!(chain.copy(&[]).await.progress.done, chain.images() + 6);
    let propagate = async || run(chain.command(&["--propagate-deletions"])).await;
    let delete = async |tag: &str| {
        client.delete(&format!("/v2/a/manifests/{tag}")).await.expect(StatusCode::ACCEPTED);
    };
    for tag in ["alone", "both", "too"] {
        delete(tag).await;
    }
    client.push_noise("a", Some("moves"), 5, None).await;
    let broken: Vec<_> = all_faults()
        .into_iter()
        .flat_map(|fault| {
            let deletions = |by_digest, fault| {
                let picks = move |asked: &Asked| {
                    asked.kind() == "DELETE manifest" && asked.path.contains("/sha256:") == by_digest
                };
                ("DELETE manifest", chain.to.fail(1, fault, picks))
            };
            [deletions(false, fault.clone()), deletions(true, fault)]
        })
        .collect();
    let ran = propagate().await;
    assert_eq!((ran.code, ran.progress.done, ran.progress.deleted), (0, 1, 3), "{ran:#?}");
    were_broken(&broken);
    let there = async || {
        let mut there = tags(&chain.middle.client(), "a").await;
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

#[tokio::test]
async fn version_3_deletes_single_tags() {
    let Some(chain) = Chain::new(VERSION_3, Way::Into).await else { return };
    let client = chain.first.client();
    for tag in ["one", "other"] {
        client.push_noise("a", Some(tag), 1, None).await;
    }
    chain.from.is_honest();
    chain.copy(&[]).await;
    client.delete("/v2/a/manifests/one").await.expect(StatusCode::ACCEPTED);
    let broken = break_all(&chain.to, &["DELETE manifest"], &all_faults());
    let ran = chain.copy(&["--propagate-deletions"]).await;
    // The answer to the one that it did is lost, and the next one says that nothing is there.
    assert_eq!((ran.progress.done, ran.progress.deleted), (0, 0), "{ran:#?}");
    were_broken(&broken);
    assert_eq!(tags(&chain.middle.client(), "a").await, ["other"]);
    chain.is_equal().await;
}

/// It does not say what was deleted: what it lists no more goes.
#[rstest]
#[tokio::test]
async fn what_it_lists_no_more_goes(#[values(DEBIAN, VERSION_3)] program: &str) {
    let Some(chain) = Chain::new(program, Way::OutOf).await else { return };
    chain.to.is_honest();
    chain.copy(&[]).await;
    // One of two tags, and all that a repository has.
    for (repository, tag) in [("team/app", "plain"), ("docker", "latest")] {
        let digest = chain.first.client().digest_of(repository, tag).await.unwrap();
        for client in [chain.first.client(), chain.middle.client()] {
            client.delete(&format!("/v2/{repository}/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
        }
    }
    let mut broken = break_all(&chain.from, &["GET catalog", "GET tags"], &all_faults());
    broken.extend(break_all(&chain.to, &["GET catalog", "GET state", "DELETE manifest"], &all_faults()));
    let ran = chain.copy(&["--propagate-deletions"]).await;
    // The answer to the first deletion is lost, and the next one says that nothing is there.
    assert_eq!((ran.progress.done, ran.progress.deleted), (0, 1), "{ran:#?}");
    were_broken(&broken);
    chain.is_equal().await;
}
