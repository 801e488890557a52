//! The two ends of a run: where they are, who logs in, whom to trust.
//!
//! Secrets are those of the Replication's own namespace, and are read for the names of their keys only: pods mount them.

use crds::{
    Registry, Replication,
    replication::{EndRef, Endpoint},
};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use super::grant::{self, Role};
use crate::{apply, conditions::Answer, context::Context, controller::Guarded, names};

/// One end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) url: String,
    pub(super) login: Login,
    pub(super) trust: Trust,
}

/// Who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// Nobody.
    Nobody,
    /// The service account, with a token for this audience.
    Token { audience: String },
    /// This Secret has `username` and `password`.
    Basic { secret: String },
    /// This Secret has a `.dockerconfigjson`.
    DockerConfig { secret: String },
}

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Those of public authorities.
    Public,
    /// Those that the operator makes.
    Berth,
    /// Those of `ca.crt` in this Secret.
    Secret(String),
}

impl End {
    /// Host and port, as people know it.
    pub(super) fn host(&self) -> &str {
        self.url.strip_prefix("https://").unwrap_or(&self.url).trim_end_matches('/')
    }
}

/// The Registry that a reference names.
pub(super) fn registry_ref(replication: &Replication, reference: &EndRef) -> ObjectRef<Guarded> {
    let own = || replication.namespace().unwrap_or_default();
    ObjectRef::new(&reference.name).within(&reference.namespace.clone().unwrap_or_else(own))
}

/// The Registry that is the source, if one is.
pub(super) fn source_ref(replication: &Replication) -> Option<ObjectRef<Guarded>> {
    Some(registry_ref(replication, replication.spec.source.registry_ref.as_ref()?))
}

/// The end that a spec names, or what is missing.
pub(super) async fn find(
    context: &Context,
    replication: &Replication,
    registry: Option<&EndRef>,
    endpoint: Option<&Endpoint>,
    role: Role,
) -> Result<Result<End, Answer>, apply::Error> {
    match (registry, endpoint) {
        (Some(reference), _) => Ok(of_this_cluster(context, replication, reference, role)),
        (None, Some(endpoint)) => anywhere(context, replication, endpoint).await,
        (None, None) => {
            Ok(Err(Answer::no("InvalidSpec", "an end has neither registryRef nor endpoint: give it one")))
        }
    }
}

fn of_this_cluster(
    context: &Context,
    replication: &Replication,
    reference: &EndRef,
    role: Role,
) -> Result<End, Answer> {
    let reference = registry_ref(replication, reference);
    let found = context.stores.registries.get(&reference);
    let registry = found.as_ref().and_then(|guarded| guarded.0.as_ref().ok());
    let registry = registry.ok_or_else(|| {
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let sentence = format!(
            "there is no Registry {} in namespace {namespace}: make it, or mend registryRef",
            reference.name
        );
        Answer::no("RegistryNotFound", sentence)
    })?;
    grant::missing(context, registry, replication, role).map_or_else(|| Ok(of_registry(registry)), Err)
}

fn of_registry(registry: &Registry) -> End {
    End {
        url: format!("https://{}", names::endpoint(registry)),
        login: Login::Token { audience: names::audience(registry) },
        trust: Trust::Berth,
    }
}

async fn anywhere(
    context: &Context,
    replication: &Replication,
    endpoint: &Endpoint,
) -> Result<Result<End, Answer>, apply::Error> {
    let Endpoint { url, credentials_secret_ref, ca_secret_ref } = endpoint;
    let namespace = replication.namespace().unwrap_or_default();
    let mut end = End { url: url.clone(), login: Login::Nobody, trust: Trust::Public };
    if let Some(reference) = credentials_secret_ref {
        match login(context.applier.get(&namespace, &reference.name).await?.as_ref(), &reference.name) {
            Ok(login) => end.login = login,
            Err(answer) => return Ok(Err(answer)),
        }
    }
    if let Some(reference) = ca_secret_ref {
        let secret: Option<Secret> = context.applier.get(&namespace, &reference.name).await?;
        if !secret.as_ref().is_some_and(|secret| has(secret, "ca.crt")) {
            let sentence = format!("Secret {} with the key ca.crt is missing: make it", reference.name);
            return Ok(Err(Answer::no("CANotFound", sentence)));
        }
        end.trust = Trust::Secret(reference.name.clone());
    }
    Ok(Ok(end))
}

fn login(secret: Option<&Secret>, name: &str) -> Result<Login, Answer> {
    let (name, secret) = (
        name.to_owned(),
        secret.ok_or_else(|| {
            let sentence = format!("Secret {name} with the login is missing: make it");
            Answer::no("CredentialsNotFound", sentence)
        })?,
    );
    match has(secret, "username") && has(secret, "password") {
        true => Ok(Login::Basic { secret: name }),
        false if has(secret, ".dockerconfigjson") => Ok(Login::DockerConfig { secret: name }),
        false => Err(Answer::no(
            "CredentialsInvalid",
            format!("Secret {name} has neither username and password nor .dockerconfigjson: give it a login"),
        )),
    }
}

fn has(secret: &Secret, key: &str) -> bool {
    secret.data.as_ref().is_some_and(|data| data.contains_key(key))
}

/// What is wrong with the service account that the Job would run as.
pub(super) async fn account(
    context: &Context,
    replication: &Replication,
) -> Result<Option<Answer>, apply::Error> {
    let Some(name) = &replication.spec.service_account_name else { return Ok(None) };
    let namespace = replication.namespace().unwrap_or_default();
    let account: Option<ServiceAccount> = context.applier.get(&namespace, name).await?;
    Ok(account
        .is_none()
        .then(|| Answer::no("ServiceAccountNotFound", format!("ServiceAccount {name} is missing: make it"))))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case(json!({"username": "", "password": ""}), Ok(Login::Basic { secret: "s".into() }))]
    #[case(json!({".dockerconfigjson": ""}), Ok(Login::DockerConfig { secret: "s".into() }))]
    #[case(json!({"username": "", ".dockerconfigjson": ""}), Ok(Login::DockerConfig { secret: "s".into() }))]
    #[case(json!({"token": ""}), Err("CredentialsInvalid"))]
    fn a_login_is_known_by_its_keys(#[case] data: Value, #[case] expected: Result<Login, &'static str>) {
        let secret: Secret = serde_json::from_value(json!({"data": data})).unwrap();
        let found = login(Some(&secret), "s");
        assert_eq!(
            found.as_ref().map_err(|answer| &*answer.reason),
            expected.as_ref().map_err(|reason| *reason)
        );
        assert_eq!(login(None, "s").unwrap_err().reason, "CredentialsNotFound");
    }
}
