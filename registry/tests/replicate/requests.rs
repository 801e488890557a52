//! Each kind of request may fail that a copy makes, whether both ends say that they are Berth's or nobody knows it: other
//! things are asked then.

use std::collections::BTreeSet;

use http::{StatusCode, header};
use rstest::rstest;

use crate::{
    copying::{ALL, fill},
    image::{noise, sha256},
    logins::{guarded, login},
    proxy::{Asked, Broken, Fault, Proxy},
    world::World,
};

/// All that a first copy asks, in the order of the alphabet: tag by tag, or a state at once where both are Berth's.
pub(crate) const SOURCE: [&str; 8] = [
    "GET base",
    "GET blob",
    "GET catalog",
    "GET manifest",
    "GET referrers",
    "GET tags",
    "HEAD blob",
    "HEAD manifest",
];
pub(crate) const TARGET: [&str; 7] =
    ["GET base", "GET referrers", "HEAD blob", "HEAD manifest", "POST upload", "PUT manifest", "PUT upload"];
const BERTH_SOURCE: [&str; 7] =
    ["GET base", "GET blob", "GET catalog", "GET manifest", "GET referrers", "GET state", "HEAD blob"];
const BERTH_TARGET: [&str; 8] = [
    "GET base",
    "GET referrers",
    "GET state",
    "HEAD blob",
    "HEAD manifest",
    "POST upload",
    "PUT manifest",
    "PUT upload",
];
/// What an upload that failed leads to.
const AFTER_UPLOADS: [&str; 2] = ["DELETE upload", "GET upload"];

/// What may happen to any request, one after the other.
pub(crate) fn all_faults() -> [Fault; 4] {
    let error = Fault::status(StatusCode::INTERNAL_SERVER_ERROR);
    [error, Fault::too_many("0"), Fault::Reset, Fault::Forget]
}

/// Breaks the first requests of each kind, each by the next fault.
pub(crate) fn break_all(
    proxy: &Proxy,
    kinds: &[&'static str],
    faults: &[Fault],
) -> Vec<(&'static str, Broken)> {
    let all = kinds.iter().flat_map(|&kind| faults.iter().map(move |fault| (kind, fault.clone())));
    all.map(|(kind, fault)| (kind, proxy.fail(1, fault, move |asked| asked.kind() == kind))).collect()
}

/// All were broken. Where the run ended well, each of them was asked once more.
pub(crate) fn were_broken(kinds: &[(&'static str, Broken)]) {
    for (kind, broken) in kinds {
        assert_eq!(broken.left(), 0, "{kind} was not asked often enough");
    }
}

pub(crate) fn kinds(proxy: &Proxy) -> Vec<String> {
    let kinds: BTreeSet<_> = proxy.asked().iter().map(Asked::kind).collect();
    kinds.into_iter().filter(|kind| !AFTER_UPLOADS.contains(&kind.as_str())).collect()
}

#[rstest]
#[tokio::test]
async fn each_kind_of_request_may_fail(
    #[values(false, true)] berths: bool,
    #[values(
        Fault::status(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::status(StatusCode::SERVICE_UNAVAILABLE),
        Fault::too_many("0"),
        Fault::Reset,
        Fault::Forget
    )]
    fault: Fault,
) {
    let world = World::that_are_berths(berths).await;
    let (at_source, at_target): (&[_], &[_]) =
        if berths { (&BERTH_SOURCE, &BERTH_TARGET) } else { (&SOURCE, &TARGET) };
    fill(&world.source.client()).await;
    let twice = [fault.clone(), fault];
    let broken =
        [break_all(&world.from, at_source, &twice), break_all(&world.to, at_target, &twice)].concat();
    world.copy().await;
    world.is_equal(&ALL).await;
    were_broken(&broken);
    assert_eq!(kinds(&world.from), at_source);
    assert_eq!(kinds(&world.to), at_target);
}

/// After a cut, for who asks for fallback tags, with a login, and of an upload that is given up.
#[rstest]
#[tokio::test]
async fn rare_requests_may_fail(
    #[values(false, true)] berths: bool,
    #[values(
        Fault::status(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::too_many("0"),
        Fault::Reset,
        Fault::Forget
    )]
    fault: Fault,
) {
    let (world, password, _files) = guarded().await;
    world.are_berths(berths);
    let client = world.source.client();
    let subject = client.push_noise("a", Some("v2"), 2, None).await;
    client.push_noise("a", None, 3, Some(&subject)).await;
    let [cut, damaged] = [1, 2].map(|seed| sha256(&noise(seed, 300_000)).to_string());
    let cut = world.to.fail(1, Fault::CutRequest(1000), move |asked| {
        asked.kind() == "PUT upload"
            && asked.path.ends_with(&cut)
            && asked.headers.contains_key(header::AUTHORIZATION)
    });
    let damaged = world
        .from
        .fail(1, Fault::Damage, move |asked| asked.kind() == "GET blob" && asked.path.ends_with(&damaged));
    world.to.fail(usize::MAX, Fault::status(StatusCode::NOT_FOUND), |asked| asked.kind() == "GET referrers");
    let rare = ["GET upload", "DELETE upload", "GET manifest", "GET token"];
    let broken = break_all(&world.to, &rare, &[fault.clone(), fault]);
    let ran = world.run(&login(&password)).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    let pushed = |asked: &Asked| asked.kind() == "PUT manifest" && asked.status == Some(StatusCode::CREATED);
    assert_eq!(world.to.asked().into_iter().filter(pushed).count(), 3);
    assert_eq!((cut.left(), damaged.left()), (0, 0));
    were_broken(&broken);
}

/// What a first copy has no need for: deletions, and the feed.
#[rstest]
#[case::error(Fault::status(StatusCode::INTERNAL_SERVER_ERROR))]
#[case::too_many(Fault::too_many("0"))]
#[case::reset(Fault::Reset)]
#[case::forgotten(Fault::Forget)]
#[tokio::test]
async fn what_only_berths_are_asked_may_fail(#[case] fault: Fault) {
    let world = World::of_berths().await;
    let client = world.source.client();
    client.push_noise("a", Some("v1"), 1, None).await;
    client.push_noise("a", Some("v2"), 2, None).await;
    world.copy().await;
    client.delete("/v2/a/manifests/v2").await.expect(StatusCode::ACCEPTED);
    let twice = [fault.clone(), fault];
    let mut broken = break_all(&world.from, &["GET state", "GET feed"], &twice);
    broken.extend(break_all(&world.to, &["GET state", "DELETE manifest"], &twice));
    let ran = world.run(&["--propagate-deletions", "--follow-seconds", "1"]).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    world.is_equal(&["a"]).await;
    were_broken(&broken);
}
