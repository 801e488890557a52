//! Pushing things to look at afterwards.

use bytes::Bytes;
use http::StatusCode;
use oci::{Algorithm, Digest, manifest};
use serde_json::{Value, json};

use crate::client::{Answer, Client, Failure};

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Bytes that look random and are the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    bytes.flatten().take(length).collect()
}

pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    descriptor_by(Algorithm::Sha256, media_type, content)
}

fn descriptor_by(algorithm: Algorithm, media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(algorithm, content), "size": content.len()})
}

/// An image manifest of these contents.
pub(crate) fn image(config: &[u8], layers: &[&[u8]]) -> Value {
    image_by(Algorithm::Sha256, config, layers)
}

/// One that names them by digests of this kind.
pub(crate) fn image_by(algorithm: Algorithm, config: &[u8], layers: &[&[u8]]) -> Value {
    let layer = |layer: &&[u8]| descriptor_by(algorithm, "application/vnd.oci.image.layer.v1.tar", layer);
    json!({
        "schemaVersion": 2,
        "mediaType": manifest::IMAGE,
        "config": descriptor_by(algorithm, "application/vnd.oci.image.config.v1+json", config),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

impl Client {
    pub(crate) async fn start_upload(&self, repository: &str) -> String {
        let started = self.post(&format!("/v2/{repository}/blobs/uploads/"), "").await;
        started.expect(StatusCode::ACCEPTED).header("location").to_owned()
    }

    pub(crate) async fn try_push_blob(&self, repository: &str, content: Bytes) -> Result<Digest, Failure> {
        let digest = sha256(&content);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let pushed = self.try_send(http::Method::POST, &path, &[], content).await?;
        pushed.expect(StatusCode::CREATED);
        Ok(digest)
    }

    pub(crate) async fn push_blob(&self, repository: &str, content: impl Into<Bytes>) -> Digest {
        self.try_push_blob(repository, content.into()).await.unwrap()
    }

    pub(crate) async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Answer {
        let kind = manifest["mediaType"].as_str().unwrap_or(manifest::IMAGE).to_owned();
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.put(&path, &[("content-type", &kind)], manifest.to_string()).await
    }

    /// Pushes a whole image; its digest.
    pub(crate) async fn push_image(&self, repository: &str, tag: &str, content: &str) -> Digest {
        let config = format!("{{\"of\":\"{content}\"}}");
        self.push_blob(repository, config.clone()).await;
        self.push_blob(repository, content.to_owned()).await;
        let manifest = image(config.as_bytes(), &[content.as_bytes()]);
        self.put_manifest(repository, tag, &manifest).await.expect(StatusCode::CREATED);
        sha256(manifest.to_string().as_bytes())
    }
}
