//! `ServiceAccounts`, and the tokens with which they log in to Registries.

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::api::{ObjectMeta, PostParams};

use crate::{cluster::Space, registry::Login};

/// Makes one.
pub async fn create(space: &Space, name: &str) -> Result<()> {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata, ..ServiceAccount::default() };
    space.api::<ServiceAccount>().create(&PostParams::default(), &account).await?;
    Ok(())
}

/// A token of the account for this audience, as a projected volume holds it.
pub async fn token(space: &Space, account: &str, audience: &str) -> Result<Login> {
    let spec = TokenRequestSpec { audiences: vec![audience.into()], ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let api = space.api::<ServiceAccount>();
    let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
    let password = answer.status.context("no token")?.token;
    Ok(Login { username: "serviceaccount".into(), password })
}

/// For whom tokens are made that open this Registry.
#[must_use]
pub fn audience(space: &Space, registry: &str) -> String {
    format!("berth.dev/{}/{registry}", space.namespace)
}
