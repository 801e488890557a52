//! Waiting on conditions: by watch where the API server can tell, by asking again where it can't.
//!
//! Nothing sleeps for a guessed time. A wait that ends in vain says for what it waited and what it saw last.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use kube::{Api, Resource, runtime::wait::await_condition};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// How long anything may take. Generous, as a small machine runs three nodes and several tests at once.
pub const LIMIT: Duration = Duration::from_secs(180);
/// How long between two looks at what can't be watched.
const INTERVAL: Duration = Duration::from_millis(300);

/// Waits until the object is there and `condition` holds.
pub async fn until<K>(api: &Api<K>, name: &str, what: &str, condition: impl Fn(&K) -> bool) -> Result<K>
where
    K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource + 'static,
{
    until_within(LIMIT, api, name, what, condition).await
}

/// The same for what takes its time.
pub async fn until_within<K>(
    limit: Duration,
    api: &Api<K>,
    name: &str,
    what: &str,
    condition: impl Fn(&K) -> bool,
) -> Result<K>
where
    K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource + 'static,
{
    let object = watch(limit, api, name, what, |object| object.is_some_and(&condition)).await?;
    object.with_context(|| format!("{name} was gone right after {what}"))
}

/// Waits until the object is gone.
pub async fn gone<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource + 'static,
{
    watch(LIMIT, api, name, "the object to be gone", |object| object.is_none()).await.map(drop)
}

async fn watch<K>(
    limit: Duration,
    api: &Api<K>,
    name: &str,
    what: &str,
    condition: impl Fn(Option<&K>) -> bool,
) -> Result<Option<K>>
where
    K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource + 'static,
{
    let seen = Arc::new(Mutex::new("nothing: the API server did not answer".to_owned()));
    let waited = await_condition(api.clone(), name, |object: Option<&K>| {
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = describe(object);
        condition(object)
    });
    match tokio::time::timeout(limit, waited).await {
        Ok(found) => Ok(found?),
        Err(_) => Err(anyhow!(
            "waited {} s in vain for {what} ({}{name}). Last seen:\n{}",
            limit.as_secs(),
            api.resource_url().rsplit_once('/').map_or(String::new(), |(_, kind)| format!("{kind}/")),
            seen.lock().unwrap_or_else(PoisonError::into_inner)
        )),
    }
}

/// The status of an object, or what else tells how it is.
fn describe<K: Serialize>(object: Option<&K>) -> String {
    let Some(object) = object else {
        return "no such object".into();
    };
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let shown = match value.get_mut("status").map(Value::take) {
        Some(status) if !status.is_null() => status,
        _ => value.get_mut("metadata").map(Value::take).unwrap_or_default(),
    };
    serde_yaml::to_string(&shown).unwrap_or_else(|error| error.to_string())
}

/// Asks until the answer is no error, for what no API server can tell, such as files on nodes.
pub async fn poll<T>(what: &str, check: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut seen = anyhow!("no answer");
    let asked = async {
        loop {
            match check().await {
                Ok(answer) => return answer,
                Err(error) => seen = error,
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(answer) => Ok(answer),
        Err(_) => Err(seen.context(format!("waited {} s in vain for {what}", LIMIT.as_secs()))),
    }
}
