//! The operator's own secrets: two certificate authorities and the key for passwords, made once and kept in Secrets of
//! its namespace.

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};

use crate::{
    authority::{self, Authority, Pair},
    certificate::text,
    keys::Keys,
    names::MANAGER,
};

/// Signs what registries show to clients.
const SERVING_CA: &str = "berth-ca";
/// Signs both ends of the internal channel. Apart from the other, so that a registry's certificate opens nothing.
const CHANNEL_CA: &str = "berth-channel-ca";
/// Holds the key from which passwords are derived.
const KEYS: &str = "berth-keys";
const MASTER: &str = "master";

/// Why the operator can't start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused.
    #[error("failed to read or create Secret {name}: {source}")]
    Secret { name: &'static str, source: kube::Error },
    /// Somebody changed it.
    #[error(
        "Secret {name} does not hold what the operator put there: restore it from a backup, or delete it and everything it signed or derived is made anew"
    )]
    Unusable { name: &'static str },
    /// A new authority can't be made.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// The system gives no random numbers.
    #[error("failed to get random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// What the operator signs and derives with.
pub(crate) struct Secrets {
    pub(crate) serving: Authority,
    pub(crate) channel: Authority,
    pub(crate) keys: Keys,
}

/// Takes up the operator's secrets, or makes them on the first start.
pub(crate) async fn secrets(client: Client, namespace: &str) -> Result<Secrets, Error> {
    let api = Api::namespaced(client, namespace);
    let keys = take_or_make(&api, KEYS, "Opaque", || Ok([(MASTER, Keys::generate()?)].into())).await?;
    let master = keys.data.as_ref().and_then(|data| data.get(MASTER));
    Ok(Secrets {
        serving: authority(&api, SERVING_CA, "Berth").await?,
        channel: authority(&api, CHANNEL_CA, "Berth internal channel").await?,
        keys: master.and_then(|master| Keys::new(&master.0)).ok_or(Error::Unusable { name: KEYS })?,
    })
}

async fn authority(api: &Api<Secret>, name: &'static str, common_name: &str) -> Result<Authority, Error> {
    let secret = take_or_make(api, name, "kubernetes.io/tls", || {
        let pair = Authority::create(common_name)?;
        Ok([("tls.crt", pair.cert.into_bytes()), ("tls.key", pair.key.into_bytes())].into())
    })
    .await?;
    let data = secret.data.unwrap_or_default();
    let pair = text(&data, "tls.crt").zip(text(&data, "tls.key")).map(|(cert, key)| Pair { cert, key });
    pair.and_then(|pair| Authority::load(&pair).ok()).ok_or(Error::Unusable { name })
}

type Data = std::collections::BTreeMap<&'static str, Vec<u8>>;

async fn take_or_make(
    api: &Api<Secret>,
    name: &'static str,
    type_: &str,
    make: impl FnOnce() -> Result<Data, Error>,
) -> Result<Secret, Error> {
    let failed = |source| Error::Secret { name, source };
    if let Some(secret) = api.get_opt(name).await.map_err(failed)? {
        return Ok(secret);
    }
    let data = make()?.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect();
    let secret = Secret {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        type_: Some(type_.into()),
        data: Some(data),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    match api.create(&params, &secret).await {
        // Another operator, just losing its Lease, may have been first.
        Err(kube::Error::Api(status)) if status.is_already_exists() => api.get(name).await.map_err(failed),
        created => created.map_err(failed),
    }
}
