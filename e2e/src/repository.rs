//! Repositories: applied, waited for, and what their Secrets hold.

use anyhow::{Context as _, Result};
use crds::{Repository, RepositorySpec};
use k8s_openapi::{
    api::core::v1::{Secret, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::{MANAGER, Space},
    registry::Login,
    wait,
};

/// A Repository with this spec, in the Registry `demo` unless the spec says otherwise.
///
/// # Panics
///
/// When the spec is none.
#[must_use]
pub fn with_spec(name: &str, spec: &Value) -> Repository {
    let mut whole = json!({"registryRef": {"name": "demo"}});
    if let (Some(whole), Some(spec)) = (whole.as_object_mut(), spec.as_object()) {
        whole.extend(spec.clone());
    }
    match serde_json::from_value::<RepositorySpec>(whole) {
        Ok(spec) => Repository::new(name, spec),
        Err(error) => panic!("{spec} is no spec of a Repository: {error}"),
    }
}

/// Applies the Repository.
pub async fn apply(space: &Space, repository: &Repository) -> Result<Repository> {
    let parameters = PatchParams::apply(MANAGER).force();
    Ok(space
        .api::<Repository>()
        .patch(&repository.name_any(), &parameters, &Patch::Apply(repository))
        .await?)
}

/// Applies the Repository and waits until it can be used as declared.
pub async fn ready(space: &Space, repository: &Repository) -> Result<Repository> {
    apply(space, repository).await?;
    condition(space, &repository.name_any(), "Ready", "True").await
}

/// Changes fields of a Repository, such as `{"spec": {"visibility": "Public"}}`.
pub async fn change(space: &Space, name: &str, change: &Value) -> Result<Repository> {
    Ok(space.api::<Repository>().patch(name, &PatchParams::default(), &Patch::Merge(change)).await?)
}

/// Waits until a condition that speaks of the current spec has this status.
pub async fn condition(space: &Space, name: &str, type_: &str, status: &str) -> Result<Repository> {
    let what = format!("condition {type_} to be {status}");
    wait::until(&space.api(), name, &what, |repository: &Repository| {
        let found = find(repository, type_);
        found
            .is_some_and(|it| it.status == status && it.observed_generation == repository.metadata.generation)
    })
    .await
}

/// Waits until the Repository is not accepted for this reason, and returns the message.
pub async fn refused(space: &Space, name: &str, reason: &str) -> Result<String> {
    let what = format!("it to be refused for {reason}");
    let repository = wait::until(&space.api(), name, &what, |repository: &Repository| {
        find(repository, "Accepted").is_some_and(|it| it.status == "False" && it.reason == reason)
    })
    .await?;
    Ok(find(&repository, "Accepted").map(|it| it.message.clone()).unwrap_or_default())
}

/// A condition of the Repository's status.
#[must_use]
pub fn find<'a>(repository: &'a Repository, type_: &str) -> Option<&'a Condition> {
    repository.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

/// Deletes the Repository and waits until it is gone.
pub async fn delete(space: &Space, name: &str) -> Result<()> {
    let api = space.api::<Repository>();
    api.delete(name, &DeleteParams::default()).await?;
    wait::gone(&api, name).await
}

/// Waits for a Secret that Berth delivers, and returns the login in it.
pub async fn login(space: &Space, secret: &str) -> Result<Login> {
    let secret = wait::until(&space.api(), secret, "the Secret to be delivered", |secret: &Secret| {
        in_secret(secret).is_ok()
    })
    .await?;
    in_secret(&secret)
}

/// The login in a Secret of type `kubernetes.io/dockerconfigjson`.
pub fn in_secret(secret: &Secret) -> Result<Login> {
    let json = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson"));
    let config: Value = serde_json::from_slice(&json.context("no .dockerconfigjson")?.0)?;
    let entry = config["auths"].as_object().and_then(|auths| auths.values().next()).context("no entry")?;
    let field = |name: &str| entry[name].as_str().map(str::to_owned).context("no login in the entry");
    Ok(Login { username: field("username")?, password: field("password")? })
}

/// Waits until a ServiceAccount names this pull Secret, or no longer does.
pub async fn attached(space: &Space, account: &str, secret: &str, wanted: bool) -> Result<ServiceAccount> {
    let what = format!("imagePullSecrets to {} {secret}", if wanted { "name" } else { "be without" });
    wait::until(&space.api(), account, &what, |account: &ServiceAccount| {
        names(account).any(|name| name == secret) == wanted
    })
    .await
}

/// The pull Secrets that a ServiceAccount names.
pub fn names(account: &ServiceAccount) -> impl Iterator<Item = &str> {
    account.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str())
}
