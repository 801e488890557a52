//! A Registry as seen from outside the cluster: `skopeo` through a forwarded port, trusting the Registry's CA.
//!
//! Passwords go into a file that only this user reads, never onto a command line.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use crds::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cluster::Space,
    command,
    forward::Forward,
    http::{self, Http},
    image::Image,
    registry::{self, Login, Who},
};

/// A way to one Registry, with one login or none.
#[derive(Debug)]
pub struct Remote {
    forward: Forward,
    http: Http,
    /// `certs/ca.crt` and `auth.json`.
    folder: TempDir,
}

impl Remote {
    /// Opens a way to the Registry of this name.
    pub async fn open(space: &Space, name: &str, who: Who) -> Result<Self> {
        let login = registry::login(space, name, who).await?;
        let registry: Registry = space.api().get(name).await?;
        Self::with_login(space, &registry, login.as_ref()).await
    }

    /// Opens a way with any login.
    pub async fn with_login(space: &Space, registry: &Registry, login: Option<&Login>) -> Result<Self> {
        let name = registry.metadata.name.as_deref().context("a Registry without a name")?;
        let ca = registry::ca(space, name).await?;
        let forward = Forward::to(space, name, registry.spec.service.port).await?;
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("certs"))?;
        fs::write(folder.path().join("certs/ca.crt"), &ca)?;
        let auths = login
            .map(|login| (format!("localhost:{}", forward.port()), json!({"auth": http::encoded(login)})));
        let auths: serde_json::Map<String, Value> = auths.into_iter().collect();
        private(&folder.path().join("auth.json"), &json!({"auths": auths}).to_string())?;
        let http = Http::new(forward.port(), &ca, login)?;
        Ok(Self { forward, http, folder })
    }

    /// Single requests with the same login.
    #[must_use]
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Pushes the image under `<repository>:<tag>`, byte for byte.
    pub async fn push(&self, image: &Image, name: &str) -> Result<()> {
        let arguments = self.push_arguments(image, name);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        command::run("skopeo", &arguments).await.map(drop)
    }

    /// What `skopeo` is started with to push the image.
    #[must_use]
    pub fn push_arguments(&self, image: &Image, name: &str) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["--insecure-policy", "copy", "--preserve-digests", "--retry-times=0"].map(str::to_owned).into();
        arguments.extend([
            format!("--dest-cert-dir={}", self.path("certs")),
            format!("--dest-authfile={}", self.path("auth.json")),
        ]);
        arguments.extend([image.source(), self.reference(name)]);
        arguments
    }

    /// Pulls `<repository>:<tag>` whole, with every blob checked by its digest, and returns the manifest's digest.
    pub async fn pull(&self, name: &str) -> Result<String> {
        let target = tempfile::tempdir()?;
        let layout = format!("oci:{}", target.path().display());
        let certs = format!("--src-cert-dir={}", self.path("certs"));
        let logins = format!("--src-authfile={}", self.path("auth.json"));
        let arguments = [
            "--insecure-policy",
            "copy",
            "--preserve-digests",
            &certs,
            &logins,
            &self.reference(name),
            &layout,
        ];
        command::run("skopeo", &arguments).await?;
        let index: Value = serde_json::from_slice(&fs::read(target.path().join("index.json"))?)?;
        Ok(index["manifests"][0]["digest"].as_str().context("skopeo wrote no manifest")?.to_owned())
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    fn reference(&self, name: &str) -> String {
        format!("docker://localhost:{}/{name}", self.forward.port())
    }
}

fn private(path: &Path, content: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(content.as_bytes())?)
}
