//! What a registry must know of a manifest: its kind, what it needs, what it refers to. The bytes themselves are
//! never rewritten, and fields that are unknown here do no harm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Largest manifest that is taken: the specification asks for at least 4 MB.
pub const MAX_MANIFEST: usize = 4 << 20;

/// Most things that one manifest may need: each is looked for when it is pushed. Images have a hundred layers at most,
/// the largest indexes some hundreds of manifests.
pub const MAX_REFERENCES: usize = 4000;

/// OCI image manifest.
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, version 2 schema 2.
pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's first format, which is not content-addressed.
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";

/// Names content of another kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The content's kind.
    pub media_type: String,
    /// The content's name.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size: u64,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A manifest that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its kind, as pushed, without parameters.
    pub media_type: String,
    /// Blobs that must be in the repository before it.
    pub blobs: Vec<Digest>,
    /// Manifests that must be in the repository before it.
    pub manifests: Vec<Digest>,
    /// The manifest it is about, there or not.
    pub subject: Option<Digest>,
    /// What a list of referrers says of it.
    pub artifact_type: Option<String>,
    /// What a list of referrers says of it.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Why a manifest can't be stored. Each is a sentence for who pushed it.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// Not JSON, or not of the shape.
    #[error("the manifest can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Schema 1.
    #[error(
        "Docker image manifest version 2 schema 1 is not supported: push with a client from 2016 or newer"
    )]
    Schema1,
    /// A media type that means nothing here.
    #[error(
        "manifests of type `{0}` are not supported: push an OCI image manifest or index, or Docker schema 2"
    )]
    MediaType(String),
    /// Neither header nor field.
    #[error("the manifest's type is missing: send Content-Type, or a field `mediaType`")]
    NoMediaType,
    /// Header and field say different things.
    #[error("Content-Type is `{header}` but the manifest says `mediaType` `{field}`: they must be the same")]
    Contradiction {
        /// What the header says.
        header: String,
        /// What the field says.
        field: String,
    },
    /// Any other number.
    #[error("`schemaVersion` must be 2")]
    SchemaVersion,
    /// An image without its configuration.
    #[error("an image manifest needs `config`")]
    NoConfig,
    /// An index without its list.
    #[error("an index needs `manifests`")]
    NoManifests,
    /// An image to some clients and an index to others (CVE-2021-41190).
    #[error(
        "a manifest has either `config` and `layers` or `manifests`, not both: it could be taken for another one"
    )]
    Ambiguous,
    /// More than anybody has a use for.
    #[error("the manifest refers to {0} things, at most {MAX_REFERENCES} are allowed")]
    TooManyReferences(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads a manifest that came with this `Content-Type`.
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, InvalidManifest> {
        let header = content_type.map(without_parameters).filter(|header| !header.is_empty());
        if header.is_some_and(|header| header.starts_with(SCHEMA1)) {
            return Err(InvalidManifest::Schema1);
        }
        let fields: Fields = serde_json::from_slice(bytes)?;
        match fields.schema_version {
            Some(2) => {}
            Some(1) => return Err(InvalidManifest::Schema1),
            _ => return Err(InvalidManifest::SchemaVersion),
        }
        fields.check()?;
        let media_type = media_type(header, fields.media_type.as_deref())?.to_owned();
        match media_type.as_str() {
            IMAGE | DOCKER_IMAGE => fields.image(media_type),
            INDEX | DOCKER_LIST => fields.index(media_type),
            _ => Err(InvalidManifest::MediaType(media_type)),
        }
    }
}

/// Image-spec, "Content-Type": header and field are the same where both are there.
fn media_type<'a>(header: Option<&'a str>, field: Option<&'a str>) -> Result<&'a str, InvalidManifest> {
    match (header, field.filter(|field| !field.is_empty())) {
        (Some(header), Some(field)) if header != field => {
            Err(InvalidManifest::Contradiction { header: header.to_owned(), field: field.to_owned() })
        }
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) => Err(InvalidManifest::NoMediaType),
    }
}

fn without_parameters(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

impl Fields {
    fn check(&self) -> Result<(), InvalidManifest> {
        if self.manifests.is_some() && (self.config.is_some() || self.layers.is_some()) {
            return Err(InvalidManifest::Ambiguous);
        }
        let lists = [&self.layers, &self.manifests].into_iter().flatten();
        let references = lists.map(Vec::len).sum::<usize>() + usize::from(self.config.is_some());
        if references > MAX_REFERENCES {
            return Err(InvalidManifest::TooManyReferences(references));
        }
        Ok(())
    }

    fn image(self, media_type: String) -> Result<Manifest, InvalidManifest> {
        let config = self.config.ok_or(InvalidManifest::NoConfig)?;
        // Distribution-spec, "Listing Referrers": the configuration's type stands in for an artifact's.
        let artifact_type = self.artifact_type.filter(|kind| !kind.is_empty()).or(Some(config.media_type));
        let layers = self.layers.unwrap_or_default().into_iter();
        let layers = layers.filter(|layer| !is_nondistributable(&layer.media_type)).map(|layer| layer.digest);
        Ok(Manifest {
            media_type,
            blobs: std::iter::once(config.digest).chain(layers).collect(),
            manifests: Vec::new(),
            subject: self.subject.map(|subject| subject.digest),
            artifact_type,
            annotations: self.annotations,
        })
    }

    fn index(self, media_type: String) -> Result<Manifest, InvalidManifest> {
        let manifests = self.manifests.ok_or(InvalidManifest::NoManifests)?;
        Ok(Manifest {
            media_type,
            blobs: Vec::new(),
            manifests: manifests.into_iter().map(|child| child.digest).collect(),
            subject: self.subject.map(|subject| subject.digest),
            artifact_type: self.artifact_type.filter(|kind| !kind.is_empty()),
            annotations: self.annotations,
        })
    }
}

/// Layers that licences keep out of registries; clients fetch them elsewhere.
pub(crate) fn is_nondistributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::digest::Algorithm;

    fn descriptor(media_type: &str, content: &str) -> Value {
        let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    fn digest(content: &str) -> Digest {
        Digest::of(Algorithm::Sha256, content.as_bytes())
    }

    fn parse(content_type: Option<&str>, json: &Value) -> Result<Manifest, InvalidManifest> {
        Manifest::parse(content_type, json.to_string().as_bytes())
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": descriptor("application/vnd.example+json", "config"),
            "layers": [
                descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "layer"),
                descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "windows"),
            ],
            "subject": descriptor(IMAGE, "subject"),
            "annotations": {"a": "b"},
            "somethingNew": {"deep": [1, 2, 3]},
        })
    }

    #[test]
    fn an_image_needs_its_config_and_distributable_layers() {
        let manifest =
            parse(Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), &image()).unwrap();
        assert_eq!(manifest.media_type, IMAGE);
        assert_eq!(manifest.blobs, [digest("config"), digest("layer")]);
        assert_eq!(manifest.subject, Some(digest("subject")));
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.example+json"));
        assert_eq!(manifest.annotations.unwrap()["a"], "b");
    }

    #[test]
    fn an_index_needs_its_manifests() {
        let json = json!({"schemaVersion": 2, "manifests": [descriptor(IMAGE, "child")]});
        for kind in [INDEX, DOCKER_LIST] {
            let manifest = parse(Some(kind), &json).unwrap();
            assert_eq!(manifest.manifests, [digest("child")]);
            assert_eq!((manifest.media_type.as_str(), manifest.artifact_type), (kind, None));
        }
    }

    #[test]
    fn an_empty_layer_list_is_fine() {
        let json = json!({"schemaVersion": 2, "config": descriptor("x/y", "{}"), "layers": []});
        assert_eq!(parse(Some(DOCKER_IMAGE), &json).unwrap().blobs, [digest("{}")]);
    }

    #[test]
    fn what_could_be_an_image_or_an_index_is_neither() {
        for (field, value) in [("manifests", json!([])), ("manifests", json!([descriptor(IMAGE, "child")]))] {
            let mut both = image();
            both[field] = value;
            for kind in [Some(IMAGE), None] {
                assert!(matches!(parse(kind, &both), Err(InvalidManifest::Ambiguous)));
            }
            both.as_object_mut().unwrap().remove("mediaType");
            both.as_object_mut().unwrap().remove("config");
            for kind in [IMAGE, DOCKER_IMAGE, INDEX, DOCKER_LIST] {
                assert!(matches!(parse(Some(kind), &both), Err(InvalidManifest::Ambiguous)));
            }
        }
    }

    #[test]
    fn references_are_bounded() {
        let children =
            |count| json!({"schemaVersion": 2, "manifests": vec![descriptor(IMAGE, "child"); count]});
        assert!(parse(Some(INDEX), &children(MAX_REFERENCES)).is_ok());
        let refusal = parse(Some(INDEX), &children(MAX_REFERENCES + 1)).unwrap_err().to_string();
        assert!(refusal.contains("4001") && refusal.contains("4000"), "{refusal}");
        let mut many = image();
        many["layers"] = json!(vec![descriptor("x/y", "layer"); MAX_REFERENCES]);
        assert!(matches!(parse(Some(IMAGE), &many), Err(InvalidManifest::TooManyReferences(4001))));
    }

    #[test]
    fn refusals_say_why() {
        let refusal =
            |content_type: Option<&str>, json: Value| parse(content_type, &json).unwrap_err().to_string();
        let mut without_version = image();
        without_version["schemaVersion"] = Value::Null;
        assert!(refusal(Some(IMAGE), without_version).contains("schemaVersion"));
        assert!(refusal(Some(INDEX), image()).contains("they must be the same"));
        assert!(refusal(Some("text/plain"), json!({"schemaVersion": 2})).contains("`text/plain`"));
        assert!(refusal(None, json!({"schemaVersion": 2})).contains("missing"));
        assert!(refusal(None, json!({"schemaVersion": 1})).contains("schema 1"));
        assert!(refusal(Some(IMAGE), json!({"schemaVersion": 2})).contains("config"));
        assert!(refusal(Some(INDEX), json!({"schemaVersion": 2})).contains("manifests"));
        assert!(refusal(Some(IMAGE), json!([])).contains("can't be read"));
        let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(refusal(Some(signed), json!({})).contains("schema 1"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in r#"[\[\]{}":,0-9a-z]{0,60}"#) {
            let _ = Manifest::parse(Some(IMAGE), text.as_bytes());
        }
    }
}
