//! A registry that stands in for another one: who reads there reads here, as containerd asks, and does nothing else.

use http::{Method, StatusCode};
use oci::ErrorCode;
use serde_json::Value;

use crate::policy_file::{Standalone, policy};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// The primary's `admin` has another password than this registry's: `secret2`.
pub(crate) const PRIMARY: &str = r"
primaries:
- name: apps/demo
  logins:
  - username: admin
    secrets: [35224d0d3465d74e855f8d69a136e79c744ea35a675d3393360a327cbf6359a2]
  repositories:
  - {path: team/*, readers: [admin]}
  - {path: team/secret}
  - {path: open/*, visibility: Public}
";

#[tokio::test]
async fn a_guest_pulls_by_a_token_and_does_nothing_else() {
    let standalone = Standalone::under(&(policy() + PRIMARY));
    let anonymous = standalone.server.client();
    let own = anonymous.clone().login("admin", "secret");
    for repository in ["team/app", "team/secret", "open/app", "other"] {
        own.push_image(repository, "v1", "layer").await;
    }
    let path = |repository: &str| format!("/v2/{repository}/manifests/v1?ns=demo.apps.svc:5000");
    anonymous.get(&path("open/app")).await.expect(StatusCode::OK);
    anonymous.get(&path("team/app")).await.expect(StatusCode::UNAUTHORIZED);

    let form = "grant_type=password&username=admin&password=secret2&scope=repository%3Ateam%2Fapp%3Apull";
    let issued = anonymous.send(Method::POST, "/token", &[FORM], form).await.expect(StatusCode::OK);
    let puller = anonymous.clone().bearer(issued.json::<Value>()["token"].as_str().unwrap());
    puller.get(&path("team/app")).await.expect(StatusCode::OK);

    let guest = anonymous.clone().login("admin", "secret2");
    guest.get(&path("team/app")).await.expect(StatusCode::OK);
    for repository in ["team/secret", "other", "none"] {
        guest.get(&path(repository)).await.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    }
    let upload = guest.post("/v2/team/app/blobs/uploads/", "").await;
    upload.expect_error(StatusCode::FORBIDDEN, ErrorCode::Denied);
    let listed = guest.get("/v2/_catalog").await.expect(StatusCode::OK).json::<Value>();
    assert_eq!(listed["repositories"], serde_json::json!(["open/app", "team/app"]));
    anonymous.clone().login("admin", "secret3").get("/v2/").await.expect(StatusCode::UNAUTHORIZED);

    // When the primary is no longer one, its logins and tokens are nobody's.
    standalone.write("{}");
    standalone.server.logged_by_each(|line| line["message"] == "a new policy decides" && line["users"] == 0);
    for client in [&guest, &puller, &anonymous] {
        for repository in ["team/app", "open/app"] {
            client.get(&path(repository)).await.expect(StatusCode::UNAUTHORIZED);
        }
    }
}
