//! The cluster's nodes, seen from inside. Nodes of kind are containers of this machine's Docker engine.

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};

use crate::{cluster::Space, command, registry::Login, wait};

/// Folder in which containerd looks for how to reach registries, a folder a host.
pub const CERTS: &str = "/etc/containerd/certs.d";

/// The names of all nodes.
pub async fn all(space: &Space) -> Result<Vec<String>> {
    let nodes = Api::<Node>::all(space.client.clone()).list(&ListParams::default()).await?;
    Ok(nodes.iter().map(ResourceExt::name_any).collect())
}

/// The names of the nodes that take any pod.
pub async fn workers(space: &Space) -> Result<Vec<String>> {
    let nodes = Api::<Node>::all(space.client.clone()).list(&ListParams::default()).await?;
    Ok(nodes.iter().filter(|node| takes_pods(node)).map(ResourceExt::name_any).collect())
}

fn takes_pods(node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let taints = spec.taints.unwrap_or_default();
    !spec.unschedulable.unwrap_or(false) && taints.iter().all(|taint| taint.effect == "PreferNoSchedule")
}

/// What the script prints on the node.
pub async fn shell(space: &Space, node: &str, script: &str) -> Result<String> {
    let output = command::run("docker", &["exec", node, "sh", "-ec", script]).await.with_context(|| {
        format!(
            "no way onto node {node} of context {}: the tests need kind's nodes, which are containers here",
            space.context
        )
    })?;
    Ok(String::from_utf8(output)?)
}

/// Puts a file onto the node, with its folder.
pub async fn write(space: &Space, node: &str, path: &str, content: &str) -> Result<()> {
    let script = format!("mkdir -p \"$(dirname {path})\" && cat >{path}");
    command::run_with_input("docker", &["exec", "-i", node, "sh", "-ec", &script], content.as_bytes())
        .await
        .with_context(|| format!("failed to write {path} on node {node} of context {}", space.context))
        .map(drop)
}

/// As long as it lives, no more than so many kilobytes a second of what comes from one place get through to a node.
#[derive(Debug)]
pub struct Throttle {
    node: String,
    rule: String,
}

impl Throttle {
    /// Begins with what comes from there.
    pub async fn new(
        space: &Space,
        node: &str,
        (address, port): (&str, u16),
        kilobytes: u32,
    ) -> Result<Self> {
        let rule = format!(
            "PREROUTING --protocol tcp --source {address} --sport {port} \
             --match hashlimit --hashlimit-name {port}-{address} --hashlimit-mode srcip \
             --hashlimit-above {kilobytes}kb/s --hashlimit-burst 256kb --jump DROP"
        );
        shell(space, node, &format!("iptables --table mangle --append {rule}")).await?;
        Ok(Self { node: node.into(), rule })
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        let script = format!("iptables --table mangle --delete {}", self.rule);
        // Where the node is gone, so is the rule.
        drop(std::process::Command::new("docker").args(["exec", &self.node, "sh", "-ec", &script]).status());
    }
}

/// The file's bytes on the node.
pub async fn read(space: &Space, node: &str, path: &str) -> Result<String> {
    shell(space, node, &format!("cat {path}")).await
}

/// What the node shows a registry of this host and port, before any pull secret.
pub async fn credential(space: &Space, node: &str, host: &str) -> Result<Login> {
    let path = format!("{CERTS}/{host}/hosts.toml");
    wait::poll(&format!("{node} to have a credential for {host}"), async || {
        let file = read(space, node, &path).await?;
        let header = file.split_once("[\"Basic ").and_then(|(_, rest)| rest.split_once('"'));
        let (encoded, _) = header.context("no credential in it")?;
        let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded)?)?;
        let (username, password) = decoded.split_once(':').context("no login in it")?;
        Ok(Login { username: username.into(), password: password.into() })
    })
    .await
}

/// Whether the file or folder is on the node.
pub async fn exists(space: &Space, node: &str, path: &str) -> Result<bool> {
    let said = shell(space, node, &format!("if [ -e {path} ]; then echo yes; fi")).await?;
    Ok(said.trim() == "yes")
}
