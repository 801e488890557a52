//! Whatever breaks on the way, the run ends with everything equal; and what is wrong at the source stays there.

use std::time::Duration;

use http::{StatusCode, header};
use oci::manifest::INDEX;
use rstest::rstest;

use crate::{
    copying::{ALL, fill},
    image::{noise, sha256},
    proxy::{Asked, Fault},
    world::World,
};

/// Whoever asks: all wait.
#[tokio::test]
async fn a_registry_that_has_had_enough_is_left_alone() {
    let world = World::new().await;
    fill(&world.source.client()).await;
    world.to.fail(1, Fault::too_many("1"), |asked| asked.kind() == "HEAD blob");
    world.copy().await;
    world.is_equal(&ALL).await;
    let asked = world.to.asked();
    let at = asked.iter().position(|asked| asked.status == Some(StatusCode::TOO_MANY_REQUESTS)).unwrap();
    // What was on its way when the answer came arrives all the same.
    let early = asked[at].at + Duration::from_millis(700);
    let next = asked[at..].iter().find(|asked| asked.at > early).unwrap();
    assert!(next.at - asked[at].at >= Duration::from_secs(1), "{:?}", next.at - asked[at].at);
}

#[rstest]
#[case::that_we_verify(false)]
#[case::that_the_target_verifies(true)]
#[tokio::test]
async fn a_cut_download_goes_on_where_it_was(#[case] verifies: bool) {
    let world = World::that_are_berths(verifies).await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    let large = sha256(&noise(1, 300_000)).to_string();
    let of_large = move |asked: &Asked| asked.kind() == "GET blob" && asked.path.ends_with(&large);
    let picks = of_large.clone();
    world.from.fail(1, Fault::CutAnswer(100_000), picks);
    let ran = world.copy().await;
    world.is_equal(&["a"]).await;
    let asked: Vec<_> = world.from.asked().into_iter().filter(of_large).collect();
    assert_eq!(asked.len(), 2);
    // What was still on its way when the connection broke is asked for again.
    let range = asked[1].headers[header::RANGE].to_str().unwrap();
    let first: u64 = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!(first > 0 && first <= 100_000, "{range}");
    assert!(ran.progress.bytes_moved < 330_000, "nothing was sent twice: {ran:#?}");
}

#[rstest]
#[case::that_we_verify(false)]
#[case::that_the_target_verifies(true)]
#[tokio::test]
async fn a_cut_upload_goes_on_where_it_was(#[case] verifies: bool) {
    let world = World::that_are_berths(verifies).await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    let large = sha256(&noise(1, 300_000)).to_string();
    let of_large = move |asked: &Asked| asked.kind() == "PUT upload" && asked.path.ends_with(&large);
    world.to.fail(1, Fault::CutRequest(200_000), of_large.clone());
    world.copy().await;
    world.is_equal(&["a"]).await;
    let asked: Vec<_> = world.to.asked().into_iter().filter(of_large).collect();
    assert_eq!(asked.len(), 2);
    let range = asked[1].headers[header::CONTENT_RANGE].to_str().unwrap();
    let first: u64 = range.split('-').next().unwrap().parse().unwrap();
    assert!(first > 0 && first <= 200_000 && range.ends_with("-299999"), "{range}");
    assert_eq!(asked[1].headers[header::CONTENT_LENGTH], (300_000 - first).to_string());
}

#[rstest]
#[case::that_we_verify(false)]
#[case::that_the_target_verifies(true)]
#[tokio::test]
async fn an_upload_that_is_lost_begins_again(#[case] verifies: bool) {
    let world = World::that_are_berths(verifies).await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    world.to.fail(1, Fault::CutRequest(1000), |asked| asked.kind() == "PUT upload");
    world.to.fail(1, Fault::status(StatusCode::NOT_FOUND), |asked| asked.kind() == "GET upload");
    world.copy().await;
    world.is_equal(&["a"]).await;
}

#[rstest]
#[case::that_we_verify(false)]
#[case::that_the_target_verifies(true)]
#[tokio::test]
async fn a_registry_without_ranges_is_read_from_the_beginning(#[case] verifies: bool) {
    let world = World::that_are_berths(verifies).await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    let of_large = |asked: &Asked| asked.kind() == "GET blob";
    world.from.fail(3, Fault::CutAnswer(10_000), of_large);
    world.from.without("range");
    world.copy().await;
    world.is_equal(&["a"]).await;
}

#[rstest]
#[case::that_we_verify(false)]
#[case::that_the_target_verifies(true)]
#[tokio::test]
async fn a_damaged_blob_never_arrives_and_is_named(#[case] verifies: bool) {
    let world = World::that_are_berths(verifies).await;
    let client = world.source.client();
    client.push_noise("a", Some("bad"), 1, None).await;
    client.push_noise("a", Some("good"), 2, None).await;
    let damaged = sha256(&noise(1, 300_000));
    let path = damaged.to_string();
    world.from.fail(usize::MAX, Fault::Damage, move |asked| {
        asked.kind() == "GET blob" && asked.path.ends_with(&path)
    });
    let ran = world.run(&[]).await;
    assert_eq!(ran.code, 1);
    let (image, reason) = ran.failure();
    assert_eq!(image, "a:bad");
    assert!(reason.contains(damaged.as_str()) && reason.contains("damaged at the source"), "{reason}");
    assert_eq!((ran.progress.done, ran.progress.failed), (1, 1), "it keeps no other image");
    let target = world.target.client();
    target.head(&format!("/v2/a/blobs/{damaged}")).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(target.digest_of("a", "bad").await, None);
    assert!(target.digest_of("a", "good").await.is_some());
    let finished = world.to.asked().into_iter().filter(|asked| {
        let refused = verifies && asked.status == Some(StatusCode::BAD_REQUEST);
        let ended = asked.status.is_some() && !refused;
        asked.kind() == "PUT upload" && asked.path.ends_with(damaged.as_str()) && ended
    });
    assert_eq!(finished.count(), 0, "no upload of it came to an end");
    assert!(world.to.asked().iter().any(|asked| asked.kind() == "DELETE upload"), "they were given up");
    let uploads = || std::fs::read_dir(world.target_root().join("uploads")).unwrap();
    let left: Vec<_> = uploads().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The one that a tag names, or one within it.
#[rstest]
#[tokio::test]
async fn a_damaged_manifest_never_arrives_and_is_named(
    #[values(false, true)] berths: bool,
    #[values(false, true)] within: bool,
) {
    let world = World::that_are_berths(berths).await;
    let client = world.source.client();
    let child = client.push_noise("a", None, 1, None).await;
    let index = client.push_index("a", Some("bad"), INDEX, std::slice::from_ref(&child)).await;
    client.push_noise("a", Some("good"), 2, None).await;
    let damaged = if within { child } else { index }["digest"].as_str().unwrap().to_owned();
    let path = format!("/v2/a/manifests/{damaged}");
    let picks = path.clone();
    world.from.fail(usize::MAX, Fault::Damage, move |asked| asked.method == "GET" && asked.path == picks);
    let ran = world.run(&[]).await;
    assert_eq!(ran.code, 1, "{ran:#?}");
    let (image, reason) = ran.failure();
    assert_eq!(image, "a:bad");
    assert!(reason.contains(&damaged) && reason.contains("the manifest is damaged there"), "{reason}");
    assert_eq!((ran.progress.done, ran.progress.failed), (1, 1), "it keeps no other image");
    let put = |asked: &Asked| asked.method == "PUT" && (asked.path == path || asked.path.ends_with("/bad"));
    assert!(!world.to.asked().iter().any(put), "it was never offered");
    world.target.client().head(&path).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(world.target.client().digest_of("a", "bad").await, None);
}

#[tokio::test]
async fn what_is_damaged_on_the_way_is_sent_again() {
    let world = World::of_berths().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    world.to.fail(1, Fault::DamageRequest, |asked| asked.kind() == "PUT upload");
    world.copy().await;
    world.is_equal(&["a"]).await;
}

#[tokio::test]
async fn who_is_not_there_is_said() {
    let world = World::new().await;
    let mut command = crate::world::replicate();
    command.args(["http://127.0.0.1:1", &world.to.url()]);
    let ran = crate::world::run(command).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    let problem = ran.progress.problem.unwrap();
    assert_eq!(problem.reason, ::channel::replication::Reason::SourceUnreachable);
    assert!(problem.message.contains("127.0.0.1:1"));
    let mut command = crate::world::replicate();
    command.args([&world.from.url(), "http://127.0.0.1:1"]);
    assert_eq!(crate::world::run(command).await.code, 4);
}

#[rstest]
#[case::not_found(Fault::status(StatusCode::NOT_FOUND))]
#[case::not_allowed(Fault::status(StatusCode::METHOD_NOT_ALLOWED))]
#[case::ignored(Fault::NoQuery)]
#[tokio::test]
async fn a_registry_without_mounts_gets_everything_itself(#[case] fault: Fault) {
    let world = World::new().await;
    fill(&world.source.client()).await;
    world.to.fail(usize::MAX, fault, |asked| asked.path.contains("?mount="));
    world.copy().await;
    world.is_equal(&ALL).await;
    assert!(world.to.asked().iter().any(|asked| asked.path.contains("?mount=")));
}

/// Harbor says so of a tag that may not move.
#[tokio::test]
async fn a_precondition_that_nobody_named_is_a_refusal() {
    let world = World::new().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    let refused = Fault::status(StatusCode::PRECONDITION_FAILED);
    world.to.fail(usize::MAX, refused, |asked| asked.kind() == "PUT manifest");
    let ran = world.run(&[]).await;
    assert_eq!(ran.code, 1, "{ran:#?}");
    let (image, reason) = ran.failure();
    assert!(image == "a:v1" && reason.contains("412"), "{reason}");
}

/// A page that the one before it names, and that is not there.
#[rstest]
#[case::of_tags(None, "/v2/a/tags/list?next")]
#[case::of_a_state(Some("11111111-1111-1111-1111-111111111111"), "/v2/a/_berth/replication/state?next")]
#[tokio::test]
async fn a_list_that_is_cut_is_not_taken_for_all(
    #[case] berth: Option<&'static str>,
    #[case] next: &'static str,
) {
    let world = World::new().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    if let Some(id) = berth {
        world.from.say("berth-registry", id);
    }
    world.from.say("link", Box::leak(format!("<{next}>; rel=\"next\"").into_boxed_str()));
    world.from.fail(usize::MAX, Fault::status(StatusCode::NOT_FOUND), |asked| asked.path.ends_with("?next"));
    let ran = world.run(&["--repository", "a"]).await;
    assert_eq!(ran.code, 1, "{ran:#?}");
    let (name, reason) = ran.failure();
    assert!(name == "a" && reason.contains(next.split('?').next().unwrap()), "{reason}");
}
