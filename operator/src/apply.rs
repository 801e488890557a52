//! Brings objects to what they should be, by server-side apply, and writes nothing where they are.
//!
//! Guarantees: an object that somebody else made is never touched; what somebody else added to an object of ours
//! survives; what we set and somebody changed is set again; an unchanged world gets no mutating request.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::Status,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    metrics::Metrics,
    names::{self, MANAGER},
    replication,
};

mod covers;

/// Holds the digest of what was applied, so that fields which are no longer wanted are noticed.
const APPLIED: &str = "berth.dev/applied";

/// An object, as people call it: `Service demo`.
#[derive(Clone, Debug)]
pub(crate) struct What {
    kind: String,
    name: String,
    namespace: String,
}

impl What {
    fn of<K: Object>(object: &K) -> Self {
        Self::named::<K>(&object.namespace().unwrap_or_default(), &object.name_any())
    }

    fn named<K: Object>(namespace: &str, name: &str) -> Self {
        Self { kind: K::kind(&()).into(), name: name.into(), namespace: namespace.into() }
    }

    fn json<K: Object>(&self, object: &K) -> Result<Value, Error> {
        serde_json::to_value(object).map_err(|source| Error::Serialize { what: self.to_string(), source })
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Why an object is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server could not be asked.
    #[error("failed to read {what}: {source}")]
    Read { what: String, source: kube::Error },
    /// The API server refused.
    #[error("failed to apply {what}: {source}")]
    Apply { what: String, source: kube::Error },
    /// The API server could not delete.
    #[error("failed to delete {what}: {source}")]
    Delete { what: String, source: kube::Error },
    /// An object of that name belongs to somebody else.
    #[error(
        "{what} exists and was not made by Berth: give what asks for it another name, or free this one; to hand the object over to Berth, label it app.kubernetes.io/managed-by=berth-operator"
    )]
    Foreign { what: String },
    /// An object of that name belongs to another resource of ours.
    #[error("{what} is there for a {of}: give one of the two another name")]
    Taken { what: String, of: &'static str },
    /// The object is on its way out and will be made again.
    #[error("{what} is still being deleted")]
    Terminating { what: String },
    /// An object can't be written as JSON.
    #[error("failed to serialize {what}: {source}")]
    Serialize { what: String, source: serde_json::Error },
}

/// Reads and writes objects for the operator.
#[derive(Clone)]
pub(crate) struct Applier {
    pub(crate) client: Client,
    pub(crate) metrics: Metrics,
}

/// What can be applied.
pub(crate) trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug
{
}
impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
{
}

impl Applier {
    /// The object as it is now, or none.
    pub(crate) async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        let what = What::named::<K>(namespace, name);
        self.api(&what).get_opt(name).await.map_err(|source| Error::Read { what: what.to_string(), source })
    }

    /// Makes the object what it should be and returns it.
    pub(crate) async fn ensure<K: Object>(&self, desired: K) -> Result<K, Error> {
        let observed = self.get(&desired.namespace().unwrap_or_default(), &desired.name_any()).await?;
        self.ensure_from(observed, desired).await
    }

    /// As [`Self::ensure`], for a caller that has just read the object.
    pub(crate) async fn ensure_from<K: Object>(&self, observed: Option<K>, desired: K) -> Result<K, Error> {
        let what = What::of(&desired);
        let desired = marked(&what, desired)?;
        let Some(observed) = observed else { return self.apply(&what, &desired).await };
        if observed.meta().deletion_timestamp.is_some() {
            return Err(Error::Terminating { what: what.to_string() });
        }
        if !is_ours(&observed) {
            return Err(Error::Foreign { what: what.to_string() });
        }
        if let Some(of) = other_owner(&observed, &desired) {
            return Err(Error::Taken { what: what.to_string(), of });
        }
        if covers::covers(&what.json(&observed)?, &without_kind(what.json(&desired)?)) {
            return Ok(observed);
        }
        match self.apply(&what, &desired).await {
            Err(Error::Apply { source: kube::Error::Api(status), .. }) if status.is_invalid() => {
                self.set_lists(&what, &desired, status).await?;
                self.apply(&what, &desired).await
            }
            applied => applied,
        }
    }

    /// Whether an object as it was seen, maybe a moment ago, has everything that the desired one asks for.
    pub(crate) fn keeps<K: Object>(observed: &K, desired: K) -> Result<bool, Error> {
        let what = What::of(&desired);
        let desired = marked(&what, desired)?;
        let is_going = observed.meta().deletion_timestamp.is_some();
        Ok(!is_going && covers::covers(&what.json(observed)?, &without_kind(what.json(&desired)?)))
    }

    async fn apply<K: Object>(&self, what: &What, desired: &K) -> Result<K, Error> {
        self.metrics.wrote(&what.kind);
        let What { kind, name, namespace } = what;
        tracing::info!(kind, name, namespace, "applying");
        self.api(what)
            .patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(desired))
            .await
            .map_err(|source| Error::Apply { what: what.to_string(), source })
    }

    /// Sets our lists whole. Entries that somebody put beside ours can make an object invalid, such as two ports of one
    /// name, and applying removes only our own. Where this is refused as well, `refusal` tells why.
    async fn set_lists<K: Object>(
        &self,
        what: &What,
        desired: &K,
        refusal: Box<Status>,
    ) -> Result<(), Error> {
        let refused = |refusal| Error::Apply { what: what.to_string(), source: kube::Error::Api(refusal) };
        let Some(lists) = lists(what.json(desired)?["spec"].take()) else { return Err(refused(refusal)) };
        self.metrics.wrote(&what.kind);
        let patch = Patch::Merge(json!({"spec": lists}));
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        match self.api::<K>(what).patch(&what.name, &params, &patch).await {
            Ok(_) => Ok(()),
            Err(_) => Err(refused(refusal)),
        }
    }

    /// Makes an object that must not be there yet; none where somebody else has made one of this name.
    pub(crate) async fn create<K: Object>(&self, desired: K) -> Result<Option<K>, Error> {
        let what = What::of(&desired);
        self.metrics.wrote(&what.kind);
        let What { kind, name, namespace } = &what;
        tracing::info!(kind, name, namespace, "creating");
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match self.api(&what).create(&params, &desired).await {
            Ok(created) => Ok(Some(created)),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
            Err(source) => Err(Error::Apply { what: what.to_string(), source }),
        }
    }

    /// Deletes an object of ours; one that is gone already, or somebody else's, is left.
    pub(crate) async fn delete<K: Object>(&self, namespace: &str, name: &str) -> Result<(), Error> {
        self.delete_if::<K>(namespace, name, |_| true).await
    }

    /// As [`Self::delete`], where `condition` holds as well.
    pub(crate) async fn delete_if<K: Object>(
        &self,
        namespace: &str,
        name: &str,
        condition: impl Fn(&K) -> bool,
    ) -> Result<(), Error> {
        let Some(observed) = self.get::<K>(namespace, name).await? else { return Ok(()) };
        let is_going = observed.meta().deletion_timestamp.is_some();
        if !is_ours(&observed) || is_going || !condition(&observed) {
            return Ok(());
        }
        let what = What::of(&observed);
        self.metrics.wrote(&what.kind);
        tracing::info!(kind = what.kind, name, namespace, "deleting");
        // Only this one, not what somebody made in its place meanwhile.
        let only = Preconditions { uid: observed.uid(), ..Preconditions::default() };
        match self.api::<K>(&what).delete(name, &DeleteParams::default().preconditions(only)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(source) => Err(Error::Delete { what: what.to_string(), source }),
            Ok(_) => Ok(()),
        }
    }

    fn api<K: Object>(&self, what: &What) -> Api<K> {
        Api::namespaced(self.client.clone(), &what.namespace)
    }
}

/// Only the operator applies as [`MANAGER`], so its trace in `managedFields` tells what it made, also where labels were
/// edited away. Labels alone are enough as well: so a claim that was restored from a backup is taken up.
pub(crate) fn is_ours<K: Resource>(object: &K) -> bool {
    let traces = object.meta().managed_fields.iter().flatten();
    let managed_by = object.labels().get(names::MANAGED_BY).map(String::as_str);
    traces.into_iter().any(|entry| entry.manager.as_deref() == Some(MANAGER)) || managed_by == Some(MANAGER)
}

/// Which other kind of resource of ours the object is for, as its labels say, where it is not for the same as the desired
/// one. Labels that were edited away tell nothing.
fn other_owner<K: Resource>(observed: &K, desired: &K) -> Option<&'static str> {
    const OWNERS: [(&str, &str); 3] = [
        (names::REGISTRY_LABEL, "Registry"),
        (names::REPOSITORY_LABEL, "Repository"),
        (replication::REPLICATION, "Replication"),
    ];
    let (is, should) = (observed.labels(), desired.labels());
    if OWNERS.iter().any(|(label, _)| is.contains_key(*label) && should.contains_key(*label)) {
        return None;
    }
    OWNERS.iter().find(|(label, _)| is.contains_key(*label)).map(|(_, kind)| *kind)
}

/// The object with the digest of what it was before.
fn marked<K: Object>(what: &What, mut desired: K) -> Result<K, Error> {
    let digest = digest(&what.json(&desired)?);
    desired.annotations_mut().insert(APPLIED.into(), digest);
    Ok(desired)
}

fn digest(desired: &Value) -> String {
    hex::encode(&Sha256::digest(desired.to_string())[..16])
}

/// Objects that come from a list carry neither of these.
fn without_kind(mut desired: Value) -> Value {
    if let Value::Object(fields) = &mut desired {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    desired
}

/// The lists in a value, and what leads to them.
fn lists(value: Value) -> Option<Value> {
    match value {
        Value::Array(items) => Some(Value::Array(items)),
        Value::Object(fields) => {
            let lists: Map<_, _> =
                fields.into_iter().filter_map(|(name, value)| Some((name, lists(value)?))).collect();
            (!lists.is_empty()).then_some(Value::Object(lists))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_found_at_any_depth() {
        let spec = json!({"type": "ClusterIP", "ports": [{"port": 1}], "template": {"spec": {"volumes": [], "x": 1}}});
        assert_eq!(lists(spec), Some(json!({"ports": [{"port": 1}], "template": {"spec": {"volumes": []}}})));
        assert_eq!(lists(json!({"replicas": 1})), None);
    }
}
