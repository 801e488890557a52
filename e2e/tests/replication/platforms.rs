//! Of images for several platforms the chosen ones arrive; who pushes an index by hand has to bring all of it.

use e2e::{ensure, pair, replication, tiny, with_namespace};
use http::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn chosen_platforms_arrive() {
    with_namespace("platforms", async |space| {
        let (here, there) = pair::two(space, "Writer").await?;
        let mut children = Vec::new();
        for platform in ["amd64", "arm64"] {
            let digest = tiny::push(here.http(), pair::APP, platform, platform).await?;
            let size = tiny::manifest(platform, platform).to_string().len();
            let media_type = "application/vnd.oci.image.manifest.v1+json";
            let platform = json!({"os": "linux", "architecture": platform});
            children
                .push(json!({"mediaType": media_type, "digest": digest, "size": size, "platform": platform}));
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children,
        });
        let digest = here.http().push_tag(pair::APP, "v1", &index).await?;

        let mut spec = pair::between(&json!({"type": "OnPush"}), "Ignore");
        spec["filters"]["platforms"] = json!(["linux/amd64"]);
        spec["filters"]["tags"] = json!({"include": ["v*"]});
        replication::apply(space, "some", &spec).await?;
        pair::arrived(&there, "v1", &digest).await?;
        replication::ready(space, "some").await?;
        let [amd64, arm64] = [0, 1].map(|child| children[child]["digest"].as_str().unwrap_or_default());
        for (child, status) in [(amd64, StatusCode::OK), (arm64, StatusCode::NOT_FOUND)] {
            let path = format!("/v2/{}/manifests/{child}", pair::APP);
            let answer = there.http().send(Method::GET, &path, "").await?;
            ensure!(answer.status == status, "{child} is answered {}", answer.status);
        }

        let other: Value =
            json!({"schemaVersion": 2, "mediaType": index["mediaType"], "manifests": [children[1]]});
        let refused = there.http().push_tag(pair::APP, "by-hand", &other).await;
        ensure!(refused.is_err(), "an index without its manifest was taken from a person");
        Ok(())
    })
    .await;
}
