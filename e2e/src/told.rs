//! What Berth tells whoever may look: logs, Events, status and metrics. No password is ever in it.

use anyhow::{Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use crds::{Registry, Repository};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    ResourceExt as _,
    api::{ListParams, LogParams},
};
use sha2::{Digest as _, Sha256};

use crate::{cluster::Space, http, operator, pod, registry::Login};

/// Fails where something of these logins is in what operator and Registries tell, with the Repositories, Registries and
/// Events of these namespaces.
pub async fn nothing_of(logins: &[Login], spaces: &[&Space]) -> Result<()> {
    let Some(first) = spaces.first() else { return Ok(()) };
    let mut told = pods(&operator::space(first), &operator::pods(first).await?).await?;
    for space in spaces {
        told.extend(pods(space, &registries(space).await?).await?);
        told.extend(objects(space).await?);
    }
    for (place, text) in &told {
        for login in logins {
            for (form, secret) in forms(login) {
                ensure!(!text.contains(&secret), "the {form} of {} is in {place}", login.username);
            }
        }
    }
    Ok(())
}

/// How a password could be written down.
fn forms(login: &Login) -> [(&'static str, String); 4] {
    [
        ("password", login.password.clone()),
        ("encoded password", BASE64_STANDARD.encode(&login.password)),
        ("encoded login", http::encoded(login)),
        ("hash", hex::encode(Sha256::digest(&login.password))),
    ]
}

type Texts = Vec<(String, String)>;

/// Logs and metrics of these pods, which have some.
async fn pods(space: &Space, pods: &[Pod]) -> Result<Texts> {
    let mut texts = Texts::new();
    for pod in pods {
        let name = pod.name_any();
        let log = space.api::<Pod>().logs(&name, &LogParams::default()).await?;
        let metrics = pod::metrics(space, &name).await?;
        ensure!(!log.is_empty() && metrics.contains("berth_"), "{name} tells nothing");
        texts.extend([(format!("the log of {name}"), log), (format!("the metrics of {name}"), metrics)]);
    }
    Ok(texts)
}

async fn registries(space: &Space) -> Result<Vec<Pod>> {
    let serving = ListParams::default().labels("berth.dev/registry");
    Ok(space.api::<Pod>().list(&serving).await?.items)
}

async fn objects(space: &Space) -> Result<Texts> {
    let all = ListParams::default();
    let mut texts = Texts::new();
    for registry in space.api::<Registry>().list(&all).await? {
        texts.push((format!("Registry {}", registry.name_any()), serde_json::to_string(&registry)?));
    }
    for repository in space.api::<Repository>().list(&all).await? {
        texts.push((format!("Repository {}", repository.name_any()), serde_json::to_string(&repository)?));
    }
    for event in space.api::<Event>().list(&all).await? {
        texts.push((format!("Event {}", event.name_any()), serde_json::to_string(&event)?));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_in_each_form() {
        let login = Login { username: "ann".into(), password: "abc".into() };
        let forms = forms(&login).map(|(_, text)| text);
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(forms, ["abc", "YWJj", "YW5uOmFiYw==", hash]);
    }
}
