//! A target by its URL, with a login and certificate authorities in Secrets: what is wrong with either is said, and heals.

use e2e::{
    Context as _, Result, Space, ensure, image, pair,
    registry::{self, Who},
    replication, with_namespace,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

#[tokio::test]
async fn a_target_by_its_url_needs_the_login_and_the_authorities() {
    with_namespace("endpoint", async |space| {
        let (here, there) = pair::two(space, "Reader").await?;
        let login = registry::login(space, "there", Who::Admin).await?.context("no login")?;
        secret(space, "login", &json!({"username": login.username, "password": login.password})).await?;
        let tls = space.api::<Secret>().get("there-tls").await?;
        let ca = tls.data.and_then(|mut data| data.remove("ca.crt")).context("there-tls has no ca.crt")?;
        secret(space, "authorities", &json!({"ca.crt": String::from_utf8(ca.0)?})).await?;

        let host = format!("there.{}.svc", space.namespace);
        let first = image::build("endpoint", &[1000])?;
        here.push(&first, "team/app:1").await?;
        replication::apply(space, "out", &to(&host)).await?;
        replication::begin(space, "out", "right").await?;
        pair::arrived(&there, "1", &first.digest).await?;
        replication::ready(space, "out").await?;

        secret(space, "login", &json!({"username": login.username, "password": "wrong"})).await?;
        let second = image::build("endpoint-second", &[1000])?;
        here.push(&second, "team/app:2").await?;
        replication::begin(space, "out", "wrong").await?;
        let message = replication::not_ready(space, "out", "TargetUnauthorized").await?;
        ensure!(message.contains(&host) && message.contains("refused"), "it says: {message}");
        secret(space, "login", &json!({"username": login.username, "password": login.password})).await?;
        pair::arrived(&there, "2", &second.digest).await?;
        replication::ready(space, "out").await?;

        replication::apply(space, "out", &to(&format!("nowhere.{}.svc", space.namespace))).await?;
        replication::begin(space, "out", "nowhere").await?;
        let message = replication::not_ready(space, "out", "UnknownHost").await?;
        ensure!(message.contains("nowhere"), "it says: {message}");
        Ok(())
    })
    .await;
}

fn to(host: &str) -> Value {
    let mut spec = pair::between(&json!({"type": "Manual"}), "Ignore");
    spec["targets"] = json!([{"name": "there", "endpoint": {
        "url": format!("https://{host}:5000"),
        "credentialsSecretRef": {"name": "login"},
        "caSecretRef": {"name": "authorities"},
    }}]);
    spec
}

/// A Secret that has just this.
async fn secret(space: &Space, name: &str, data: &Value) -> Result<()> {
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    let parameters = PatchParams::apply(e2e::cluster::MANAGER).force();
    space.api::<Secret>().patch(name, &parameters, &Patch::Apply(&secret)).await?;
    Ok(())
}
