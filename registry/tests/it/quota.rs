//! Quotas: distinct blobs and manifests of a path, counted once each.

use http::StatusCode;
use oci::{Digest, ErrorCode, ErrorList};

use crate::{
    client::{Answer, Client},
    image::{image, noise, sha256},
    policy_file::Standalone,
};

/// `secret`, hashed.
const POLICY: &str = r"
logins:
- username: ci
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
  role: Admin
repositories:
- path: team/*
  quota: 10000
- path: team/own
";

fn is_over(answer: Answer, used: usize, more: usize) {
    let answer = answer.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    let message = &answer.json::<ErrorList>().errors[0].message;
    let expected = format!(
        "the quota of `team/*` is 10000 bytes: {used} are taken and this push would take {more} more; have something \
         deleted there, or ask whoever sets that quota for more"
    );
    assert_eq!(*message, expected);
}

async fn try_push(client: &Client, repository: &str, seed: u64, length: usize) -> (Digest, Answer) {
    let content = noise(seed, length);
    let digest = sha256(&content);
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    (digest, client.post(&path, content).await)
}

#[tokio::test]
async fn a_path_takes_what_its_quota_has_room_for() {
    let standalone = Standalone::under(POLICY);
    let ci = standalone.server.client().login("ci", "secret");
    let first = ci.push_blob("team/a", noise(1, 6000)).await;
    is_over(try_push(&ci, "team/b", 2, 4001).await.1, 6000, 4001);
    // What the path has costs nothing, pushed or mounted.
    ci.push_blob("team/b", noise(1, 6000)).await;
    let mount = format!("/v2/team/c/blobs/uploads/?mount={first}&from=team/a");
    ci.post(&mount, "").await.expect(StatusCode::CREATED);
    ci.push_blob("team/b", noise(2, 4000)).await;
    is_over(try_push(&ci, "team/a", 3, 1).await.1, 10000, 1);
    // A path below it has its own rules, and so has one beside it.
    let large = ci.push_blob("team/own", noise(4, 20_000)).await;
    ci.push_blob("other", noise(4, 20_000)).await;
    let mount = format!("/v2/team/a/blobs/uploads/?mount={large}&from=team/own");
    is_over(ci.post(&mount, "").await, 10000, 20_000);

    let session = ci.start_upload("team/a").await;
    let answer = ci.patch(&session, &[], "a chunk").await.expect(StatusCode::ACCEPTED);
    let finish = format!("{}?digest={}", answer.header("location"), sha256(b"a chunk"));
    is_over(ci.put(&finish, &[], "").await, 10000, 7);
    ci.get(&session).await.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown);
}

#[tokio::test]
async fn manifests_count_and_deletes_make_room() {
    let standalone = Standalone::under(POLICY);
    let ci = standalone.server.client().login("ci", "secret");
    let layer = noise(1, 9000);
    ci.push_blob("team/a", layer.clone()).await;
    ci.push_blob("team/a", "{}").await;
    let mut manifest = image(b"{}", &[&layer]);
    let size = manifest.to_string().len();
    ci.put_manifest("team/a", "v1", &manifest).await.expect(StatusCode::CREATED);
    ci.put_manifest("team/a", "v2", &manifest).await.expect(StatusCode::CREATED);
    let digest = sha256(manifest.to_string().as_bytes());
    let used = 9002 + size;
    manifest["annotations"] = serde_json::json!({"long": "x".repeat(400)});
    is_over(ci.put_manifest("team/a", "v3", &manifest).await, used, manifest.to_string().len());
    ci.get("/v2/team/a/manifests/v3").await.expect(StatusCode::NOT_FOUND);

    ci.delete(&format!("/v2/team/a/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
    ci.put_manifest("team/a", "v3", &manifest).await.expect(StatusCode::CREATED);
    let digest = sha256(manifest.to_string().as_bytes());
    ci.delete(&format!("/v2/team/a/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
    // One of two repositories that have it is not enough.
    ci.push_blob("team/b", layer.clone()).await;
    ci.delete(&format!("/v2/team/a/blobs/{}", sha256(&layer))).await.expect(StatusCode::ACCEPTED);
    is_over(try_push(&ci, "team/a", 2, 5000).await.1, 9002, 5000);
    ci.delete(&format!("/v2/team/b/blobs/{}", sha256(&layer))).await.expect(StatusCode::ACCEPTED);
    ci.push_blob("team/a", noise(2, 5000)).await;
}

#[tokio::test]
async fn what_can_never_fit_is_refused_before_it_is_sent() {
    let standalone = Standalone::under(POLICY);
    let ci = standalone.server.client().login("ci", "secret");
    let session = ci.start_upload("team/a").await;
    let answer = ci.patch(&session, &[], noise(1, 2 << 20)).await;
    answer.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    assert_eq!(ci.get(&session).await.expect(StatusCode::NO_CONTENT).header("range"), "0-0");
}

#[tokio::test]
async fn a_changed_quota_holds_for_what_is_there() {
    let standalone = Standalone::under(POLICY);
    let ci = standalone.server.client().login("ci", "secret");
    ci.push_blob("team/a", noise(1, 6000)).await;
    standalone.write(&POLICY.replace("10000", "5000"));
    standalone.server.logged_by_each(|line| line["message"] == "a new policy decides");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    // The former policy was announced in the same words.
    let mut seed = 2;
    while try_push(&ci, "team/a", seed, 10).await.1.status == StatusCode::CREATED {
        seed += 1;
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    ci.push_blob("team/b", noise(1, 6000)).await;
}
