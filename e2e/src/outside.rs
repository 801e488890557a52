//! A registry outside of the cluster: Debian's `docker-registry`, on the address under which nodes and pods reach this
//! machine. It knows no referrers.

use std::{
    fs,
    net::{IpAddr, TcpListener},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{cluster::Space, command, image::Image, node, wait};

/// What serves.
const PROGRAM: &str = "docker-registry";

/// A registry that ends with this value.
#[derive(Debug)]
pub struct Outside {
    address: String,
    /// PEM.
    pub ca: String,
    folder: TempDir,
    _child: Child,
}

impl Outside {
    /// Starts one; none where this machine does not have the program, unless `BERTH_TEST_CLIENTS` asks for it.
    pub async fn start(space: &Space) -> Result<Option<Self>> {
        if command::run(PROGRAM, &["--version"]).await.is_err() {
            ensure!(
                std::env::var("BERTH_TEST_CLIENTS").as_deref() != Ok("all"),
                "BERTH_TEST_CLIENTS=all asks for {PROGRAM}, which is missing"
            );
            return Ok(None);
        }
        let worker = node::workers(space).await?.remove(0);
        let route = node::shell(space, &worker, "ip -4 route show default").await?;
        let host = route.split_whitespace().nth(2).context("the node has no default route")?;
        let host: IpAddr = host.parse().with_context(|| format!("no address in {route:?}"))?;
        let port = TcpListener::bind((host, 0))
            .with_context(|| format!("nodes reach this machine at {host}, which is not ours"))?
            .local_addr()?
            .port();

        let folder = tempfile::tempdir()?;
        let key = rcgen::generate_simple_self_signed([host.to_string()])?;
        let (cert_file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        fs::write(&cert_file, key.cert.pem())?;
        fs::write(&key_file, key.signing_key.serialize_pem())?;
        let config = folder.path().join("config.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n",
                folder.path().join("data").display()
            ),
        )?;
        let address = format!("{host}:{port}");
        let child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .env("REGISTRY_HTTP_ADDR", &address)
            .env("REGISTRY_HTTP_TLS_CERTIFICATE", &cert_file)
            .env("REGISTRY_HTTP_TLS_KEY", &key_file)
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {PROGRAM}"))?;
        let mut outside = Self { address, ca: key.cert.pem(), folder, _child: child };
        outside.is_up().await?;
        Ok(Some(outside))
    }

    /// `https://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Pushes the image under `<repository>:<tag>`.
    pub async fn push(&self, image: &Image, name: &str) -> Result<()> {
        let certs = format!("--dest-cert-dir={}", self.certs()?);
        let target = format!("docker://{}/{name}", self.address);
        let arguments = [
            "--insecure-policy",
            "copy",
            "--preserve-digests",
            "--dest-no-creds",
            &certs,
            &image.source(),
            &target,
        ];
        command::run("skopeo", &arguments).await.map(drop)
    }

    fn certs(&self) -> Result<String> {
        let certs = self.folder.path().join("certs");
        fs::create_dir_all(&certs)?;
        fs::write(certs.join("ca.crt"), &self.ca)?;
        Ok(certs.display().to_string())
    }

    async fn is_up(&mut self) -> Result<()> {
        let what = format!("{PROGRAM} to listen on {}", self.address);
        let connected = wait::poll(&what, async || {
            tokio::net::TcpStream::connect(&self.address).await?;
            Ok(())
        });
        if connected.await.is_err() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            bail!("{PROGRAM} does not listen on {}: {log}", self.address);
        }
        Ok(())
    }
}
