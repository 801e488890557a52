//! Images in the layout that clients exchange, with layers that can be unpacked.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
};

use oci::{Digest, manifest};
use serde_json::{Value, json};

use crate::image::{descriptor, noise, sha256};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A folder with one image, or an index of some, and all that belongs to it.
pub(crate) struct Layout {
    pub(crate) folder: PathBuf,
    /// The manifest or index.
    pub(crate) top: Vec<u8>,
    pub(crate) digest: Digest,
    /// For each architecture the digests of manifest, configuration and layers; the last layer is its own.
    pub(crate) images: BTreeMap<&'static str, Vec<Digest>>,
}

impl Layout {
    /// One image, named `name` in the layout.
    pub(crate) fn image(folder: &Path, name: &str) -> Self {
        let mut layout = Self::new(folder);
        let top = layout.add_image("amd64");
        layout.finish(manifest::IMAGE, top, name)
    }

    /// An index of two platforms' images, which share a layer.
    pub(crate) fn index(folder: &Path, name: &str) -> Self {
        let mut layout = Self::new(folder);
        let children: Vec<_> = ["amd64", "arm64"]
            .map(|architecture| {
                let mut child = descriptor(manifest::IMAGE, &layout.add_image(architecture));
                child["platform"] = json!({"os": "linux", "architecture": architecture});
                child
            })
            .into();
        let top = json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": children});
        let top = top.to_string().into_bytes();
        layout.add(&top);
        layout.finish(manifest::INDEX, top, name)
    }

    /// An OCI layout as the transport of skopeo and buildah names it.
    pub(crate) fn reference(&self) -> String {
        format!("oci:{}", self.folder.display())
    }

    fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder: folder.into(), top: Vec::new(), digest: sha256(b""), images: BTreeMap::new() }
    }

    fn finish(self, kind: &str, top: Vec<u8>, name: &str) -> Self {
        let mut entry = descriptor(kind, &top);
        entry["annotations"] =
            json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        std::fs::write(self.folder.join("index.json"), index.to_string()).unwrap();
        Self { digest: sha256(&top), top, ..self }
    }

    fn add(&self, content: &[u8]) {
        std::fs::write(blob(&self.folder, &sha256(content)), content).unwrap();
    }

    fn add_image(&mut self, architecture: &'static str) -> Vec<u8> {
        let own = archive(architecture, architecture.as_bytes());
        let layers = [archive("large", &noise(1, 1_000_000)), archive("some/small", b"x"), own];
        let diffs: Vec<_> = layers.iter().map(|layer| sha256(layer)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = config.to_string().into_bytes();
        let stored = layers.map(|layer| compress(&layer));
        let layers: Vec<Value> = stored.iter().map(|layer| descriptor(LAYER, layer)).collect();
        let image = json!({
            "schemaVersion": 2, "mediaType": manifest::IMAGE,
            "config": descriptor(CONFIG, &config), "layers": layers,
        });
        let image = image.to_string().into_bytes();
        let parts = [&[image.clone(), config][..], &stored].concat();
        for part in &parts {
            self.add(part);
        }
        self.images.insert(architecture, parts.iter().map(|part| sha256(part)).collect());
        image
    }
}

/// Where a layout has this content.
pub(crate) fn blob(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}

fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content).unwrap();
    archive.into_inner().unwrap()
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
