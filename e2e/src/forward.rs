//! `kubectl port-forward` to a Service, as long as the guard lives.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{cluster::Space, wait::LIMIT};

/// A way from this machine to one pod of a Service. It ends with that pod, as kubectl's does.
#[derive(Debug)]
pub struct Forward {
    port: u16,
    _kubectl: Child,
}

impl Forward {
    /// Opens a way to the port of the Service.
    pub async fn to(space: &Space, service: &str, port: i32) -> Result<Self> {
        let target = format!("service/{service}");
        let mut kubectl = Command::new("kubectl")
            .args(["--context", &space.context, "--namespace", &space.namespace, "port-forward", &target])
            .arg(format!(":{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start kubectl: is it installed?")?;
        let mut lines = BufReader::new(kubectl.stdout.take().context("kubectl has no output")?).lines();
        let first = tokio::time::timeout(LIMIT, lines.next_line())
            .await
            .context("kubectl port-forward is silent")??;
        let Some(port) = first.as_deref().and_then(local_port) else {
            let mut error = String::new();
            if let Some(mut stderr) = kubectl.stderr.take() {
                stderr.read_to_string(&mut error).await?;
            }
            bail!("kubectl port-forward to {target} in {} failed: {}", space.namespace, error.trim());
        };
        // Read on, or kubectl would stop once nobody takes what it prints.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        if let Some(mut stderr) = kubectl.stderr.take() {
            tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
        }
        Ok(Self { port, _kubectl: kubectl })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// `Forwarding from 127.0.0.1:41234 -> 5000` → 41234.
fn local_port(line: &str) -> Option<u16> {
    line.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_port_is_read_from_what_kubectl_prints() {
        assert_eq!(local_port("Forwarding from 127.0.0.1:41234 -> 5000"), Some(41234));
        assert_eq!(local_port("error: no such service"), None);
    }
}
