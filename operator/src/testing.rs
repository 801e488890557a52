//! What several unit tests need.

use crds::Registry;
use serde_json::json;

pub(crate) mod fake_api;

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
