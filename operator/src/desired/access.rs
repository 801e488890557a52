//! Logins of the Registry's own: the Secrets that people and pods use.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use crds::Registry;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::json;

use crate::{keys::RegistryKey, names};

/// May do everything.
pub(super) const ADMIN: &str = "admin";
/// May pull.
pub(super) const READER: &str = "reader";

/// The administrator's login, for people and programs that push.
pub(crate) fn admin_secret(registry: &Registry, key: &RegistryKey) -> Secret {
    secret(
        registry,
        ADMIN,
        "kubernetes.io/basic-auth",
        [("username", ADMIN.into()), ("password", key.password(ADMIN))],
    )
}

/// The read-only login, ready to be an `imagePullSecret`.
pub(crate) fn reader_secret(registry: &Registry, key: &RegistryKey) -> Secret {
    let password = key.password(READER);
    let auth = BASE64_STANDARD.encode(format!("{READER}:{password}"));
    let entry = json!({"username": READER, "password": password, "auth": auth});
    let config = json!({"auths": {names::endpoint(registry): entry}}).to_string();
    secret(
        registry,
        READER,
        "kubernetes.io/dockerconfigjson",
        [(".dockerconfigjson", config), ("username", READER.into()), ("password", password)],
    )
}

fn secret<const N: usize>(
    registry: &Registry,
    suffix: &str,
    type_: &str,
    data: [(&str, String); N],
) -> Secret {
    Secret {
        metadata: names::owned(registry, names::with_suffix(registry, suffix)),
        type_: Some(type_.into()),
        data: Some(data.map(|(name, value)| (name.to_owned(), ByteString(value.into_bytes()))).into()),
        ..Secret::default()
    }
}
