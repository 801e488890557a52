//! The operator empties a path.

use channel::{
    policy::{Policy, Repository},
    usage::Purged,
};
use http::StatusCode;
use oci::manifest;
use serde_json::json;

use crate::{
    image::{descriptor, image, sha256},
    managed::{Managed, NAME, Operator, policy},
};

impl Operator {
    async fn purge(&self, path: &str) -> Result<Purged, channel::client::Error> {
        let path = format!("/v1/repositories?path={path}");
        self.client.delete(self.address, NAME, &path).await
    }
}

#[tokio::test]
async fn a_path_is_emptied_and_what_a_more_specific_one_governs_stays() {
    let managed = Managed::new();
    let server = managed.start();
    let operator = managed.operator(&server);
    let repositories = ["team/*", "team/keep"].map(|path| Repository {
        path: path.into(),
        quota: Some(10_000),
        ..Repository::default()
    });
    operator.put(&Policy { repositories: repositories.to_vec(), ..policy() }).await.unwrap();
    let admin = managed.client(&server).login("admin", "all");
    let digest = admin.push_image("team/app", "v1", "layer").await;
    for repository in ["team/deep/app", "team/keep", "other"] {
        admin.push_image(repository, "v1", "layer").await;
    }
    // An index of an index, which have to go in the right order.
    let mut inner = image(b"{\"of\":\"layer\"}", &[b"layer"]);
    for level in 0..4 {
        let bytes = inner.to_string();
        admin.put_manifest("team/app", &format!("level{level}"), &inner).await.expect(StatusCode::CREATED);
        let kind = inner["mediaType"].as_str().unwrap().to_owned();
        inner = json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": [descriptor(&kind, bytes.as_bytes())]});
    }
    // Tags v1 and level0 to level3, four manifests, config and layer; then one of each, and config and layer again.
    assert_eq!(operator.purge("team/*").await.unwrap(), Purged { removed: 11 + 4, done: true });
    assert_eq!(operator.purge("team/*").await.unwrap(), Purged { removed: 0, done: true });
    for path in [format!("team/app/manifests/{digest}"), "team/deep/app/manifests/v1".to_owned()] {
        admin.get(&format!("/v2/{path}")).await.expect(StatusCode::NOT_FOUND);
    }
    for blob in [sha256(b"layer"), sha256(b"{\"of\":\"layer\"}")] {
        admin.get(&format!("/v2/team/app/blobs/{blob}")).await.expect(StatusCode::NOT_FOUND);
    }
    for repository in ["team/keep", "other"] {
        admin.get(&format!("/v2/{repository}/manifests/v1")).await.expect(StatusCode::OK);
    }
    let catalog = admin.get("/v2/_catalog").await;
    assert_eq!(catalog.body, r#"{"repositories":["other","team/keep"]}"#);
    // There is room again.
    admin.push_blob("team/app", "x".repeat(10_000)).await;

    // One that is no longer in the policy.
    assert_eq!(operator.purge("other").await.unwrap(), Purged { removed: 4, done: true });
    admin.get("/v2/other/manifests/v1").await.expect(StatusCode::NOT_FOUND);
    admin.get("/v2/team/keep/manifests/v1").await.expect(StatusCode::OK);
    operator.purge("No%20Path").await.unwrap_err();
}
