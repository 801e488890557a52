//! What several unit tests need.

use crds::{Registry, Replication, Repository};
use serde_json::{Value, json};

pub(crate) mod fake_api;
pub(crate) mod world;

/// A small Registry in namespace `apps`.
pub(crate) fn registry(name: &str) -> Registry {
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Registry",
        "metadata": {
            "name": name,
            "namespace": "apps",
            "uid": format!("uid-of-{name}"),
            "generation": 1,
            "finalizers": ["berth.dev/registry"],
        },
        "spec": {"storage": {"volume": {"size": "1Gi"}}},
    }))
    .unwrap()
}

/// A Repository in the Registry `demo` of namespace `apps`, with these fields besides; made at the Unix epoch.
pub(crate) fn repository(namespace: &str, name: &str, spec: &Value) -> Repository {
    let mut object = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Repository",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": format!("uid-of-{namespace}-{name}"),
            "generation": 1,
            "creationTimestamp": "1970-01-01T00:00:00Z",
            "finalizers": ["berth.dev/repository"],
        },
        "spec": {"registryRef": {"name": "demo", "namespace": "apps"}},
    });
    let fields = object["spec"].as_object_mut().unwrap();
    fields.extend(spec.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

/// An operator that speaks with this API server and has watched nothing that is delivered.
pub(crate) fn context(api: &fake_api::FakeApi) -> crate::context::Context {
    let world = world::World::over(api.clone());
    std::sync::Arc::try_unwrap(world.context).unwrap_or_else(|_| panic!("it is somebody else's too"))
}

/// A Replication from the Registry `demo` of namespace `apps` to another registry, with these fields besides.
pub(crate) fn replication(namespace: &str, spec: &Value) -> Replication {
    let mut object = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Replication",
        "metadata": {
            "name": "mirror",
            "namespace": namespace,
            "uid": format!("uid-of-{namespace}-mirror"),
            "generation": 1,
            "creationTimestamp": "1970-01-01T00:00:00Z",
        },
        "spec": {
            "source": {"registryRef": {"name": "demo", "namespace": "apps"}},
            "targets": [{"name": "there", "endpoint": {"url": "https://there.example"}}],
            "serviceAccountName": "replicator",
        },
    });
    let fields = object["spec"].as_object_mut().unwrap();
    fields.extend(spec.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}
