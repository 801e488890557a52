//! Real images in several layers, made of this machine's files: the same seed makes the same digest.
//!
//! Layer 1 holds `sh`, `sleep` and `cat` with the libraries that they need; the others hold bytes from the seed. A
//! container prints the seed and then sleeps, so that its log tells which image it is.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// What the containers run.
const PROGRAMS: [&str; 3] = ["sh", "sleep", "cat"];
/// Where the seed is written in the image.
const SEED: &str = "/srv/seed";

/// An image in a folder of the OCI image layout, gone with this value.
#[derive(Debug)]
pub struct Image {
    folder: TempDir,
    /// The manifest's digest.
    pub digest: String,
    /// The layers' digests.
    pub layers: Vec<String>,
    /// Bytes of all blobs and the manifest.
    pub size: u64,
}

impl Image {
    /// How `skopeo` calls it.
    #[must_use]
    pub fn source(&self) -> String {
        format!("oci:{}", self.folder.path().display())
    }
}

/// Makes an image of one layer of programs and one more layer for each size, of so many bytes that don't compress.
pub fn build(seed: &str, sizes: &[usize]) -> Result<Image> {
    with_programs(seed, sizes, &[])
}

/// The same with more programs of this machine, by their paths.
pub fn with_programs(seed: &str, sizes: &[usize], more: &[&str]) -> Result<Image> {
    let mut layout = Layout { folder: tempfile::tempdir()?, size: 0 };
    fs::create_dir_all(layout.folder.path().join("blobs/sha256"))?;

    let base = tar(&programs(more)?)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&base)?;
    let mut contents = vec![digest(&base)];
    let mut layers = vec![layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", &gzip.finish()?)?];
    for (number, size) in sizes.iter().enumerate() {
        let name = format!("{seed}-{number}");
        let mut files = vec![(format!("/srv/{number}.bin").into(), bytes(&name, *size), 0o644)];
        if number == 0 {
            files.push((SEED.into(), format!("{seed}\n").into_bytes(), 0o644));
        }
        // Not compressed: these bytes would not become fewer.
        let tar = tar(&files)?;
        contents.push(digest(&tar));
        layers.push(layout.blob("application/vnd.oci.image.layer.v1.tar", &tar)?);
    }
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {
            "Env": ["PATH=/bin:/usr/bin"],
            "Cmd": ["/bin/sh", "-c", format!("cat {SEED}; exec sleep 1000000")],
        },
        "rootfs": {"type": "layers", "diff_ids": contents},
        "history": contents.iter().map(|_| json!({"created_by": "berth e2e"})).collect::<Vec<_>>(),
    });
    let config = layout.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    let manifest = layout.blob(kind, manifest.to_string().as_bytes())?;

    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.folder.path().join("index.json"), index.to_string())?;
    fs::write(layout.folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let name = |descriptor: &Value| descriptor["digest"].as_str().unwrap_or_default().to_owned();
    Ok(Image {
        digest: name(&manifest),
        layers: layers.iter().map(name).collect(),
        size: layout.size,
        folder: layout.folder,
    })
}

struct Layout {
    folder: TempDir,
    size: u64,
}

impl Layout {
    /// Writes a blob and returns its descriptor.
    fn blob(&mut self, media_type: &str, content: &[u8]) -> Result<Value> {
        let digest = digest(content);
        fs::write(self.folder.path().join("blobs").join(digest.replace(':', "/")), content)?;
        self.size += content.len() as u64;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": content.len()}))
    }
}

type File = (PathBuf, Vec<u8>, u32);

/// The programs and what they load, each under the path by which it is found.
fn programs(more: &[&str]) -> Result<Vec<File>> {
    let mut paths = BTreeSet::new();
    for path in PROGRAMS
        .map(|program| Path::new("/bin").join(program))
        .into_iter()
        .chain(more.iter().map(PathBuf::from))
    {
        // A static program has no libraries, which ldd says by its exit code.
        let listing = Command::new("ldd").arg(&path).output().context("failed to start ldd")?.stdout;
        paths.extend(libraries(&String::from_utf8_lossy(&listing)));
        paths.insert(path);
    }
    let files = paths.into_iter().map(|path| {
        let content = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok((path, content, 0o755))
    });
    files.collect()
}

/// The files in a listing of `ldd`: `libc.so.6 => /lib/libc.so.6 (0x7f)`, `/lib64/ld-linux-x86-64.so.2 (0x7f)`.
fn libraries(listing: &str) -> Vec<PathBuf> {
    let words = listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

/// The files as an archive in which nothing depends on when or by whom it was made.
fn tar(files: &[File]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, path.strip_prefix("/")?, content.as_slice())?;
    }
    let archive = tar.into_inner()?;
    ensure!(!archive.is_empty(), "an empty layer");
    Ok(archive)
}

/// So many bytes that only depend on the seed (`SplitMix64`).
fn bytes(seed: &str, size: usize) -> Vec<u8> {
    let start: [u8; 32] = Sha256::digest(seed).into();
    let mut state = u64::from_le_bytes(std::array::from_fn(|at| start[at]));
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.take(size.div_ceil(8)).flatten().collect();
    bytes.truncate(size);
    bytes
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// This machine's architecture as images name it; the cluster's nodes have the same.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_image() {
        let one = build("one", &[1000, 20]).unwrap();
        let again = build("one", &[1000, 20]).unwrap();
        let other = build("two", &[1000, 20]).unwrap();
        assert_eq!((&one.digest, &one.layers, one.size), (&again.digest, &again.layers, again.size));
        assert_ne!(one.digest, other.digest);
        assert_eq!(one.layers.len(), 3);
        assert_eq!(one.layers[0], other.layers[0]);
    }

    #[test]
    fn libraries_are_found_in_what_ldd_prints() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\t/lib64/ld.so (0x0007f)\n";
        assert_eq!(libraries(listing), ["/lib/libc.so.6", "/lib64/ld.so"].map(PathBuf::from));
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}
