//! Images of one layer of a few bytes, for many pushes, or for one at a known moment.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Result, http::Http};

/// The content of every such image's config, and of a layer that is nothing.
pub const EMPTY: &str = "{}";

/// The manifest of an image with this layer; another word makes another image.
#[must_use]
pub fn manifest(layer: &str, word: &str) -> Value {
    let blob = |media_type: &str, content: &str| {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(content)));
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    };
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.tiny",
        "config": blob("application/vnd.oci.empty.v1+json", EMPTY),
        "layers": [blob("application/octet-stream", layer)],
        "annotations": {"word": word},
    })
}

/// Pushes such an image, and returns its digest.
pub async fn push(http: &Http, repository: &str, tag: &str, layer: &str) -> Result<String> {
    for content in [EMPTY, layer] {
        http.push_blob(repository, content.as_bytes()).await?;
    }
    http.push_tag(repository, tag, &manifest(layer, tag)).await
}
