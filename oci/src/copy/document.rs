//! What has to be at the target before a manifest: read leniently, since whether a manifest is in order is for the
//! target to say.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::platform::Described;
use crate::{
    Descriptor, Digest,
    client::{Found, Referrer},
    manifest::{MAX_REFERENCES, is_nondistributable},
};

/// What a manifest needs and refers to. Held while that is brought, so remarks stay in the manifest.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) blobs: Vec<Descriptor>,
    pub(super) children: Vec<Child>,
    pub(super) subject: Option<Digest>,
}

/// A manifest of an index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Child {
    #[serde(flatten)]
    pub(super) descriptor: Descriptor,
    #[serde(default)]
    pub(super) platform: Option<Described>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    schema_version: Option<u64>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// Of artifact manifests, which some registries still hold.
    #[serde(default)]
    blobs: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Child>,
    subject: Option<Descriptor>,
}

/// Apart from the above, since remarks may be long.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remarks {
    config: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let fields: Fields = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if fields.schema_version == Some(1) {
            return Err(
                "it is of Docker's schema 1, which no digest protects: push the image again".to_owned()
            );
        }
        let blobs: Vec<_> = fields.config.into_iter().chain(fields.layers).chain(fields.blobs).collect();
        let references = blobs.len() + fields.manifests.len();
        if references > MAX_REFERENCES {
            return Err(format!("it refers to {references} things, {MAX_REFERENCES} are the most"));
        }
        let blobs = blobs.into_iter().filter(|blob| !is_nondistributable(&blob.media_type));
        let blobs = blobs.map(|blob| Descriptor { annotations: None, ..blob }).collect();
        let subject = fields.subject.map(|subject| subject.digest);
        Ok(Self { blobs, children: fields.manifests, subject })
    }
}

/// What a list of referrers says of a manifest.
pub(super) fn referrer(manifest: &Found) -> Result<Referrer, String> {
    let remarks: Remarks = serde_json::from_slice(&manifest.bytes).map_err(|error| error.to_string())?;
    let artifact_type = remarks.artifact_type.filter(|kind| !kind.is_empty());
    Ok(Referrer {
        media_type: manifest.media_type.clone(),
        digest: manifest.digest.clone(),
        size: manifest.bytes.len() as u64,
        artifact_type: artifact_type.or_else(|| remarks.config.map(|config| config.media_type)),
        annotations: remarks.annotations,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Algorithm;

    fn descriptor(media_type: &str, content: &str) -> serde_json::Value {
        let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    fn parse(json: &serde_json::Value) -> Result<Document, String> {
        Document::parse(json.to_string().as_bytes())
    }

    #[test]
    fn foreign_layers_stay_where_they_are() {
        let document = parse(&json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.example", "config"),
            "layers": [
                descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "windows"),
                descriptor("application/vnd.oci.image.layer.v1.tar", "layer"),
            ],
            "subject": descriptor("m", "subject"),
        }));
        let document = document.unwrap();
        assert_eq!(document.blobs.iter().map(|blob| blob.size).collect::<Vec<_>>(), [6, 5]);
        assert!(document.subject.is_some() && document.children.is_empty());
    }

    #[test]
    fn an_artifact_without_a_type_is_what_its_configuration_is() {
        let of = |artifact_type: &str| {
            let config = descriptor("application/vnd.example", "config");
            let bytes = json!({"config": config, "artifactType": artifact_type}).to_string().into_bytes();
            let digest = Digest::of(Algorithm::Sha256, &bytes);
            let found = Found { digest, media_type: "m".to_owned(), bytes: bytes.into() };
            referrer(&found).unwrap().artifact_type.unwrap()
        };
        assert_eq!(of(""), "application/vnd.example");
        assert_eq!(of("sbom"), "sbom");
    }

    #[test]
    fn what_can_not_be_copied() {
        assert!(parse(&json!({"schemaVersion": 1, "fsLayers": []})).unwrap_err().contains("schema 1"));
        assert!(Document::parse(b"{").is_err());
        let many = vec![descriptor("m", "x"); MAX_REFERENCES + 1];
        assert!(parse(&json!({"schemaVersion": 2, "manifests": many})).is_err());
    }
}
