//! The cluster's nodes, seen from inside. Nodes of kind are containers of this machine's Docker engine.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};

use crate::{cluster::Space, command};

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

/// The file's bytes on the node.
pub async fn read(space: &Space, node: &str, path: &str) -> Result<String> {
    shell(space, node, &format!("cat {path}")).await
}

/// Whether the file or folder is on the node.
pub async fn exists(space: &Space, node: &str, path: &str) -> Result<bool> {
    let said = shell(space, node, &format!("if [ -e {path} ]; then echo yes; fi")).await?;
    Ok(said.trim() == "yes")
}
