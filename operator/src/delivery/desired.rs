//! The objects that lie in a namespace that receives a Secret, as pure functions.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use crds::Registry;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Map, Value, json};

use super::{
    credential::{CONFIG, Credential},
    placement::{Kind, Named, Placement},
};
use crate::{
    keys::RegistryKey,
    names::{self, MANAGED_BY, MANAGER},
};

const TYPE: &str = "kubernetes.io/dockerconfigjson";

/// A copy that is about to get its password: that is sealed together with the UID, which the API server gives.
pub(super) fn empty(placement: &Placement) -> Secret {
    Secret {
        metadata: placement.metadata(),
        type_: Some(TYPE.into()),
        data: Some([(CONFIG.to_owned(), ByteString(json!({"auths": {}}).to_string().into_bytes()))].into()),
        ..Secret::default()
    }
}

/// The Secret of one copy, which is the one of this UID and no other of the same name.
pub(super) fn secret(
    placement: &Placement,
    credential: &Credential,
    uid: &str,
    registry: &Registry,
    cluster_domain: &str,
    key: &RegistryKey,
) -> Secret {
    let config = config(placement, credential, registry, cluster_domain);
    let (mut data, annotations) = credential.beside(&config, uid, placement, key);
    data.insert(CONFIG.to_owned(), ByteString(config.into_bytes()));
    Secret {
        metadata: ObjectMeta {
            annotations: Some(annotations),
            uid: Some(uid.to_owned()),
            ..placement.metadata()
        },
        type_: Some(TYPE.into()),
        data: Some(data),
        ..Secret::default()
    }
}

/// Kubelet looks for the longest `host:port/path` that an image's name begins with, and tries each that fits, so that
/// one pod can use the Secrets of several repositories. Docker knows `host:port` only.
fn config(placement: &Placement, credential: &Credential, registry: &Registry, domain: &str) -> String {
    let (username, password) = (placement.username(), credential.password.reveal());
    let auth = BASE64_STANDARD.encode(format!("{username}:{password}"));
    let path = placement.repository.path();
    let path = match placement.kind {
        Kind::Pull => format!("/{}", path.strip_suffix("/*").unwrap_or(&path)),
        Kind::Push => String::new(),
    };
    let port = registry.spec.service.port;
    let entry = json!({"username": username, "password": password, "auth": auth});
    let auths = names::hosts(registry, domain).map(|host| (format!("{host}:{port}{path}"), entry.clone()));
    json!({"auths": Value::Object(Map::from_iter(auths))}).to_string()
}

/// What its ConfigMap is called in every namespace: `berth-ca.apps.demo`. Only its parts' order can give such a name,
/// since neither part has a dot.
pub(super) fn ca_name(registry: &Named) -> String {
    let Named { namespace, name } = registry;
    format!("berth-ca.{namespace}.{name}")
}

/// The registry's CA, for whoever pushes, or pulls without a node's help. All Repositories of a Registry share it.
pub(super) fn ca(registry: &Named, namespace: &str, ca: &str) -> ConfigMap {
    let managed = [(MANAGED_BY.to_owned(), MANAGER.to_owned())];
    let metadata = ObjectMeta {
        name: Some(ca_name(registry)),
        namespace: Some(namespace.to_owned()),
        labels: Some(registry.labels().into_iter().chain(managed).collect()),
        ..ObjectMeta::default()
    };
    ConfigMap { metadata, data: Some([("ca.crt".to_owned(), ca.to_owned())].into()), ..ConfigMap::default() }
}
