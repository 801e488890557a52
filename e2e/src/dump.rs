//! What a failed test leaves behind: operator logs, pod logs, events and all objects, without anybody's secrets.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Discovery, ResourceExt as _,
    api::{ListParams, LogParams},
    core::DynamicObject,
    discovery::{Scope, verbs},
};
use serde_json::{Value, json};

use crate::{
    cluster::{OPERATOR_NAMESPACE, Space},
    node,
};

/// Fills `e2e/failures/<test>/` and returns that folder. What can't be had is noted in `incomplete.txt`.
pub async fn all(space: &Space, test: &str, namespaces: &[String], reason: &str) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("failures").join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("reason.txt"), reason)?;
    let mut lacking = String::new();
    for namespace in namespaces.iter().map(String::as_str).chain([OPERATOR_NAMESPACE]) {
        let space = space.beside(namespace);
        let folder = folder.join(namespace);
        fs::create_dir_all(&folder)?;
        for (what, done) in [
            ("objects", objects(&space, &folder).await),
            ("events", events(&space, &folder).await),
            ("logs", logs(&space, &folder).await),
        ] {
            if let Err(error) = done {
                let _ = writeln!(lacking, "{what} of {namespace}: {error:#}");
            }
        }
    }
    match certs(space).await {
        Ok(listing) => fs::write(folder.join("nodes.txt"), listing)?,
        Err(error) => drop(writeln!(lacking, "files of the nodes: {error:#}")),
    }
    if !lacking.is_empty() {
        fs::write(folder.join("incomplete.txt"), lacking)?;
    }
    Ok(folder)
}

/// All objects of the namespace, a file a kind.
async fn objects(space: &Space, folder: &Path) -> Result<()> {
    let discovery = Discovery::new(space.client.clone()).run().await?;
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let listed =
                capabilities.scope == Scope::Namespaced && capabilities.supports_operation(verbs::LIST);
            if !listed || resource.kind == "Event" || resource.group == "metrics.k8s.io" {
                continue;
            }
            let list = space.dynamic(&resource).list(&ListParams::default()).await?;
            let mut text = String::new();
            for object in list {
                write!(text, "---\n{}", serde_yaml::to_string(&shown(&object, &resource.kind)?)?)?;
            }
            if !text.is_empty() {
                let dot = if resource.group.is_empty() { "" } else { "." };
                fs::write(folder.join(format!("{}{dot}{}.yaml", resource.plural, resource.group)), text)?;
            }
        }
    }
    Ok(())
}

/// The object without what nobody reads, and without what nobody should.
fn shown(object: &DynamicObject, kind: &str) -> Result<Value> {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    // It repeats a Secret's data.
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let mut value = serde_json::to_value(&object)?;
    if kind == "Secret" {
        for field in ["data", "stringData"] {
            for secret in value
                .get_mut(field)
                .and_then(Value::as_object_mut)
                .into_iter()
                .flat_map(|map| map.values_mut())
            {
                *secret = json!(format!("<{} characters>", secret.as_str().map_or(0, str::len)));
            }
        }
    }
    Ok(value)
}

async fn events(space: &Space, folder: &Path) -> Result<()> {
    let mut events = space.api::<Event>().list(&ListParams::default()).await?.items;
    let time = |event: &Event| event.metadata.creation_timestamp.clone();
    events.sort_by_key(|event| time(event).map(|time| time.0));
    let mut text = String::new();
    for event in &events {
        writeln!(
            text,
            "{} {} {} {}/{} x{}: {}",
            time(event).map_or(String::new(), |time| time.0.to_string()),
            event.type_.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            event.involved_object.kind.as_deref().unwrap_or_default(),
            event.involved_object.name.as_deref().unwrap_or_default(),
            event.count.unwrap_or(1),
            event.message.as_deref().unwrap_or_default(),
        )?;
    }
    fs::write(folder.join("events.txt"), text)?;
    Ok(())
}

/// What every container said, now and before its last restart.
async fn logs(space: &Space, folder: &Path) -> Result<()> {
    let pods: Api<Pod> = space.api();
    for pod in pods.list(&ListParams::default()).await? {
        let spec = pod.spec.clone().unwrap_or_default();
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            for previous in [false, true] {
                let wanted =
                    LogParams { container: Some(container.name.clone()), previous, ..LogParams::default() };
                // A container that never ran, or never restarted, has none.
                if let Ok(text) = pods.logs(&pod.name_any(), &wanted).await {
                    let before = if previous { ".previous" } else { "" };
                    fs::write(
                        folder.join(format!("{}.{}{before}.log", pod.name_any(), container.name)),
                        text,
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// The names of the files under containerd's certs.d on every node.
async fn certs(space: &Space) -> Result<String> {
    let mut text = String::new();
    for node in node::all(space).await? {
        let listing = node::shell(space, &node, "cd /etc/containerd/certs.d && find . -type f | sort").await;
        let listing = listing.unwrap_or_else(|error| format!("{:#}", anyhow!(error)));
        writeln!(text, "{node}:\n{listing}")?;
    }
    Ok(text)
}
