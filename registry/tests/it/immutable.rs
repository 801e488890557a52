//! Immutable tags: they neither move nor go, but by administrators.

use futures::future::join_all;
use http::StatusCode;
use oci::{Digest, ErrorCode, ErrorList};
use serde_json::Value;

use crate::{
    client::{Answer, Client},
    image::{image, sha256},
    policy_file::Standalone,
};

/// `secret`, hashed.
const POLICY: &str = r"
logins:
- username: ci
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
- username: cleaner
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
- username: releases
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
- username: blind
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
- username: admin
  secrets: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
  role: Admin
repositories:
- path: team/*
  access:
  - {user: ci, role: Writer}
  - {user: cleaner, actions: [content/read, content/write, content/delete, metadata/read]}
  - {user: releases, actions: [content/read, metadata/write]}
  - {user: blind, actions: [content/write, content/delete]}
  tags:
    mutability: Immutable
    except: [latest, 'dev-*']
- path: team/free
  access:
  - {user: ci, role: Writer}
";

struct Registry {
    standalone: Standalone,
    ci: Client,
    admin: Client,
}

impl Registry {
    async fn start() -> Self {
        let standalone = Standalone::under(POLICY);
        let login = |username: &str| standalone.server.client().login(username, "secret");
        let (ci, admin) = (login("ci"), login("admin"));
        for repository in ["team/app", "team/free"] {
            for blob in ["{}", "layer"] {
                ci.push_blob(repository, blob).await;
            }
        }
        Self { standalone, ci, admin }
    }

    async fn digest(&self, repository: &str, tag: &str) -> String {
        let answer = self.ci.get(&format!("/v2/{repository}/manifests/{tag}")).await.expect(StatusCode::OK);
        answer.header("docker-content-digest").to_owned()
    }
}

/// An image like no other one of its number.
fn manifest(number: usize) -> (Value, Digest) {
    let mut manifest = image(b"{}", &[b"layer"]);
    manifest["annotations"] = serde_json::json!({"number": number.to_string()});
    let digest = sha256(manifest.to_string().as_bytes());
    (manifest, digest)
}

fn is_refused(answer: Answer, tag: &str, digest: &Digest) {
    let answer = answer.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    let message = &answer.json::<ErrorList>().errors[0].message;
    assert_eq!(*message, format!("tag `{tag}` is immutable and points to {digest}: push another tag"));
}

#[tokio::test]
async fn an_immutable_tag_stays_where_it_is_but_for_administrators() {
    let registry = Registry::start().await;
    let (ci, admin) = (&registry.ci, &registry.admin);
    let ((one, first), (two, second)) = (manifest(1), manifest(2));
    ci.put_manifest("team/app", "v1", &one).await.expect(StatusCode::CREATED);
    ci.put_manifest("team/app", "v1", &one).await.expect(StatusCode::CREATED);
    is_refused(ci.put_manifest("team/app", "v1", &two).await, "v1", &first);
    let unknown = ci.get(&format!("/v2/team/app/manifests/{second}")).await;
    unknown.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown);
    // Together with others none moves.
    let path = format!("{second}?tag=v2&tag=v1&tag=latest");
    is_refused(ci.put_manifest("team/app", &path, &two).await, "v1", &first);
    for tag in ["v2", "latest"] {
        ci.get(&format!("/v2/team/app/manifests/{tag}")).await.expect(StatusCode::NOT_FOUND);
    }
    // Neither directly nor through its digest does it go.
    for reference in ["v1".to_owned(), first.to_string()] {
        let refused = ci.delete(&format!("/v2/team/app/manifests/{reference}")).await;
        refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    }
    assert_eq!(registry.digest("team/app", "v1").await, first.to_string());

    admin.put_manifest("team/app", "v1", &two).await.expect(StatusCode::CREATED);
    assert_eq!(registry.digest("team/app", "v1").await, second.to_string());
    admin.delete(&format!("/v2/team/app/manifests/{second}")).await.expect(StatusCode::ACCEPTED);
    ci.get("/v2/team/app/manifests/v1").await.expect(StatusCode::NOT_FOUND);
    ci.put_manifest("team/app", "v1", &one).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn who_may_only_set_tags_sets_them_on_what_is_there() {
    let registry = Registry::start().await;
    let ci = &registry.ci;
    let releases = registry.standalone.server.client().login("releases", "secret");
    let ((one, first), (two, second)) = (manifest(1), manifest(2));
    ci.put_manifest("team/app", "latest", &one).await.expect(StatusCode::CREATED);
    releases.put_manifest("team/app", "v1", &one).await.expect(StatusCode::CREATED);
    let path = format!("{first}?tag=v2&tag=latest");
    releases.put_manifest("team/app", &path, &one).await.expect(StatusCode::CREATED);
    for tag in ["v1", "v2"] {
        assert_eq!(registry.digest("team/app", tag).await, first.to_string());
    }

    // Nothing that is not there comes in, by whatever way, and no immutable tag moves.
    let by_digest = second.to_string();
    for reference in ["v3", "latest", &by_digest, &format!("{second}?tag=v3")] {
        let refused = releases.put_manifest("team/app", reference, &two).await;
        let refused = refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
        let message = &refused.json::<ErrorList>().errors[0].message;
        assert!(message.contains("content/write"), "{message}");
    }
    releases.post("/v2/team/app/blobs/uploads/", "").await.expect(StatusCode::FORBIDDEN);
    ci.get(&format!("/v2/team/app/manifests/{second}")).await.expect(StatusCode::NOT_FOUND);
    ci.put_manifest("team/app", "latest", &two).await.expect(StatusCode::CREATED);
    is_refused(releases.put_manifest("team/app", "v1", &two).await, "v1", &first);
    assert_eq!(registry.digest("team/app", "v1").await, first.to_string());
    releases.delete("/v2/team/app/manifests/latest").await.expect(StatusCode::FORBIDDEN);

    // Elsewhere they may do nothing.
    ci.put_manifest("team/free", "v1", &one).await.expect(StatusCode::CREATED);
    releases.put_manifest("team/free", "v2", &one).await.expect(StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn exceptions_signatures_and_other_paths_move() {
    let registry = Registry::start().await;
    let ci = &registry.ci;
    let ((one, first), (two, second)) = (manifest(1), manifest(2));
    let hex = first.hex();
    let moves = [
        "latest".to_owned(),
        "dev-5".to_owned(),
        format!("sha256-{hex}"),
        format!("sha256-{hex}.sig"),
        format!("sha256-{hex}.att"),
        format!("sha256-{hex}.sbom"),
        format!("sha512-{hex}"),
    ];
    for tag in &moves {
        for manifest in [&one, &two] {
            ci.put_manifest("team/app", tag, manifest).await.expect(StatusCode::CREATED);
        }
        assert_eq!(registry.digest("team/app", tag).await, second.to_string());
    }
    for tag in ["latest2", &format!("sha256-{}", &hex[1..])] {
        ci.put_manifest("team/app", tag, &one).await.expect(StatusCode::CREATED);
        is_refused(ci.put_manifest("team/app", tag, &two).await, tag, &first);
    }
    for manifest in [&one, &two] {
        ci.put_manifest("team/free", "v1", manifest).await.expect(StatusCode::CREATED);
    }
}

#[tokio::test]
async fn of_many_who_push_a_new_tag_at_once_one_wins() {
    let registry = Registry::start().await;
    for round in 0..5 {
        let tag = format!("v{round}");
        let manifests: Vec<_> = (0..8).map(|number| manifest(round * 8 + number)).collect();
        let pushes = manifests.iter().map(|(manifest, digest)| {
            let (ci, tag) = (registry.ci.clone(), tag.clone());
            let (manifest, by_digest) = (manifest.clone(), format!("{digest}?tag={tag}"));
            let reference = if round % 2 == 0 { tag } else { by_digest };
            tokio::spawn(async move { ci.put_manifest("team/app", &reference, &manifest).await })
        });
        let answers: Vec<_> = join_all(pushes).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<_> = answers
            .iter()
            .zip(&manifests)
            .filter(|(answer, _)| answer.status == StatusCode::CREATED)
            .collect();
        let [(_, (_, winner))] = winners[..] else { panic!("{} won", winners.len()) };
        assert_eq!(registry.digest("team/app", &tag).await, winner.to_string());
        for (answer, (_, digest)) in answers.into_iter().zip(&manifests) {
            if digest != winner {
                is_refused(answer, &tag, winner);
            }
        }
    }
}

#[tokio::test]
async fn who_may_not_read_does_not_learn_where_a_tag_points() {
    let registry = Registry::start().await;
    let ((one, first), (two, _)) = (manifest(1), manifest(2));
    registry.ci.put_manifest("team/app", "v1", &one).await.expect(StatusCode::CREATED);
    let blind = registry.standalone.server.client().login("blind", "secret");
    let refused = blind.put_manifest("team/app", "v1", &two).await;
    let refused = refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    assert!(!String::from_utf8_lossy(&refused.body).contains(first.as_str()));
}

#[tokio::test]
async fn who_may_only_push_and_delete_takes_away_what_no_immutable_tag_holds() {
    let registry = Registry::start().await;
    let cleaner = registry.standalone.server.client().login("cleaner", "secret");
    let ((one, first), (two, second)) = (manifest(1), manifest(2));
    for tag in ["dev-1", "latest", "v1"] {
        cleaner.put_manifest("team/app", tag, &one).await.expect(StatusCode::CREATED);
    }
    is_refused(cleaner.put_manifest("team/app", "v1", &two).await, "v1", &first);
    // Neither it nor what it points to goes, and what may go does.
    cleaner.delete("/v2/team/app/manifests/latest").await.expect(StatusCode::ACCEPTED);
    for reference in ["v1", first.as_str()] {
        let refused = cleaner.delete(&format!("/v2/team/app/manifests/{reference}")).await;
        let refused = refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
        let message = &refused.json::<ErrorList>().errors[0].message;
        assert!(message.starts_with("tag `v1` is immutable: neither it nor"), "{message}");
    }
    for tag in ["dev-1", "v1"] {
        assert_eq!(registry.digest("team/app", tag).await, first.to_string());
    }
    // Who may not read does not learn which tags point there.
    let blind = registry.standalone.server.client().login("blind", "secret");
    let refused = blind.delete(&format!("/v2/team/app/manifests/{first}")).await;
    let refused = refused.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    assert!(!String::from_utf8_lossy(&refused.body).contains("v1"));

    cleaner.put_manifest("team/app", "dev-2", &two).await.expect(StatusCode::CREATED);
    cleaner.delete(&format!("/v2/team/app/manifests/{second}")).await.expect(StatusCode::ACCEPTED);
    let gone = cleaner.get("/v2/team/app/manifests/dev-2").await;
    gone.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown);
    registry.admin.delete(&format!("/v2/team/app/manifests/{first}")).await.expect(StatusCode::ACCEPTED);
}
