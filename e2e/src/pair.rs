//! Registries `here` and `there`, and a ServiceAccount `mover` that copies `team/app` from the one to the other.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    Context as _, Result, Space, account, ensure,
    registry::{self, Who},
    remote::Remote,
    repository, wait,
};

/// What is copied, where a test does not say otherwise.
pub const APP: &str = "team/app";

/// Makes both; `mover` may read `team/app` here, and has this role there.
pub async fn two(space: &Space, role_there: &str) -> Result<(Remote, Remote)> {
    all(space, &["there"], role_there).await?;
    Ok((Remote::open(space, "here", Who::Admin).await?, Remote::open(space, "there", Who::Admin).await?))
}

/// Makes `here` and these others, in each of which `mover` has this role.
pub async fn all(space: &Space, others: &[&str], role: &str) -> Result<()> {
    for name in others.iter().chain(&["here"]) {
        registry::apply(space, &registry::small(name)).await?;
    }
    account::create(space, "mover").await?;
    for name in others {
        registry::ready(space, name).await?;
        grant(space, name, name, APP, Some(role)).await?;
    }
    registry::ready(space, "here").await?;
    grant(space, "here", "here", APP, Some("Reader")).await
}

/// Declares a path of a Registry, with this role or none for `mover`.
pub async fn grant(space: &Space, name: &str, registry: &str, path: &str, role: Option<&str>) -> Result<()> {
    let access: Vec<_> =
        role.iter().map(|role| json!({"serviceAccount": {"name": "mover"}, "role": role})).collect();
    let spec = json!({"registryRef": {"name": registry}, "path": path, "access": access});
    repository::ready(space, &repository::with_spec(name, &spec)).await.map(drop)
}

/// From `here` to `there`, as `mover`.
#[must_use]
pub fn between(trigger: &Value, deletions: &str) -> Value {
    json!({
        "source": {"registryRef": {"name": "here"}},
        "targets": [{"name": "there", "registryRef": {"name": "there"}}],
        "serviceAccountName": "mover",
        "filters": {"repositories": ["team/**"]},
        "trigger": trigger,
        "deletions": deletions,
    })
}

/// Waits until `team/app:<tag>` has arrived as this image; says how long that took.
pub async fn arrived(there: &Remote, tag: &str, digest: &str) -> Result<Duration> {
    arrived_at(there, APP, tag, digest).await
}

/// The same of another repository.
pub async fn arrived_at(there: &Remote, repository: &str, tag: &str, digest: &str) -> Result<Duration> {
    let began = Instant::now();
    wait::poll(&format!("{repository}:{tag} to arrive as {digest}"), async || {
        let found = digest_of(there, repository, tag).await?;
        let there = found.context("it is not there")?;
        ensure!(there == digest, "it is {there}");
        Ok(())
    })
    .await?;
    Ok(began.elapsed())
}

/// What a tag points to, where it is there.
pub async fn digest_of(remote: &Remote, repository: &str, tag: &str) -> Result<Option<String>> {
    let answer = remote.http().send(Method::HEAD, &format!("/v2/{repository}/manifests/{tag}"), "").await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    ensure!(answer.status == StatusCode::OK, "{repository}:{tag} is answered {}", answer.status);
    Ok(Some(answer.headers.get("docker-content-digest").context("no digest")?.to_str()?.to_owned()))
}
