//! Registries: applied, waited for, and what their Secrets hold.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crds::{Registry, RegistrySpec};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::{MANAGER, Space},
    wait,
};

/// A username and its password.
#[derive(Clone)]
pub struct Login {
    /// As sent in basic authentication.
    pub username: String,
    /// Never shown.
    pub password: String,
}

/// Whose login of a Registry.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// Pushes and pulls.
    Admin,
    /// Pulls.
    Reader,
    /// Sends no login.
    Nobody,
}

/// A small Registry of this name.
#[must_use]
pub fn small(name: &str) -> Registry {
    let spec = json!({"storage": {"volume": {"size": "1Gi"}}});
    with_spec(name, &spec)
}

/// A Registry with this spec.
///
/// # Panics
///
/// When the spec is none.
#[must_use]
pub fn with_spec(name: &str, spec: &Value) -> Registry {
    match serde_json::from_value::<RegistrySpec>(spec.clone()) {
        Ok(spec) => Registry::new(name, spec),
        Err(error) => panic!("{spec} is no spec of a Registry: {error}"),
    }
}

/// Applies the Registry.
pub async fn apply(space: &Space, registry: &Registry) -> Result<Registry> {
    let parameters = PatchParams::apply(MANAGER).force();
    Ok(space.api::<Registry>().patch(&registry.name_any(), &parameters, &Patch::Apply(registry)).await?)
}

/// Changes fields of a Registry's spec.
pub async fn change(space: &Space, name: &str, spec: Value) -> Result<Registry> {
    let patch = Patch::Merge(json!({"spec": spec}));
    Ok(space.api::<Registry>().patch(name, &PatchParams::default(), &patch).await?)
}

/// Applies the Registry and waits until images can be pushed and pulled; says how long that took.
pub async fn running(space: &Space, registry: &Registry) -> Result<(Registry, Duration)> {
    let began = Instant::now();
    apply(space, registry).await?;
    let registry = ready(space, &registry.name_any()).await?;
    Ok((registry, began.elapsed()))
}

/// Waits until images can be pushed and pulled.
pub async fn ready(space: &Space, name: &str) -> Result<Registry> {
    condition(space, name, "Ready", "True").await
}

/// Waits until a condition that speaks of the current spec has this status.
pub async fn condition(space: &Space, name: &str, type_: &str, status: &str) -> Result<Registry> {
    let what = format!("condition {type_} to be {status}");
    wait::until(&space.api(), name, &what, |registry| {
        let found = find(registry, type_);
        found.is_some_and(|it| it.status == status && it.observed_generation == registry.metadata.generation)
    })
    .await
}

/// A condition of the Registry's status.
#[must_use]
pub fn find<'a>(registry: &'a Registry, type_: &str) -> Option<&'a Condition> {
    registry.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

/// A condition's reason and message, for people and assertions.
#[must_use]
pub fn why(registry: &Registry, type_: &str) -> String {
    find(registry, type_)
        .map_or_else(|| format!("no condition {type_}"), |it| format!("{}: {}", it.reason, it.message))
}

/// Host and port as written in image references.
pub fn endpoint(registry: &Registry) -> Result<String> {
    registry.status.as_ref().and_then(|status| status.endpoint.clone()).context("status has no endpoint")
}

/// The login of the Registry's administrator or reader, from its Secret.
pub async fn login(space: &Space, name: &str, who: Who) -> Result<Option<Login>> {
    let name = match who {
        Who::Admin => format!("{name}-admin"),
        Who::Reader => format!("{name}-reader"),
        Who::Nobody => return Ok(None),
    };
    let secret = space.api::<Secret>().get(&name).await?;
    let field = |key: &str| -> Result<String> {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.with_context(|| format!("Secret {name} has no {key}"))?;
        Ok(String::from_utf8(bytes.0.clone())?)
    };
    Ok(Some(Login { username: field("username")?, password: field("password")? }))
}

/// The certificates that sign the Registry's, from its ConfigMap.
pub async fn ca(space: &Space, name: &str) -> Result<String> {
    let name = format!("{name}-ca");
    let map = space.api::<ConfigMap>().get(&name).await?;
    map.data
        .and_then(|mut data| data.remove("ca.crt"))
        .with_context(|| format!("ConfigMap {name} has no ca.crt"))
}

/// Deletes the Registry and waits until it is gone.
pub async fn delete(space: &Space, name: &str) -> Result<()> {
    let api = space.api::<Registry>();
    api.delete(name, &DeleteParams::default()).await?;
    wait::gone(&api, name).await
}
