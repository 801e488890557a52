//! The resource kinds of `berth.dev`, and nothing that acts on them.
//!
//! `cargo run -p crds` writes their definitions to `manifests/crds/`.

pub mod registry;
pub mod replication;
pub mod repository;

pub use registry::{Registry, RegistrySpec, RegistryStatus};
pub use replication::{Replication, ReplicationSpec, ReplicationStatus};
pub use repository::{Repository, RepositorySpec, RepositoryStatus};

use kube::CustomResourceExt;

/// The API group of every kind.
pub const GROUP: &str = "berth.dev";

/// The definition of every kind as (file name, YAML), as it lies in `manifests/crds/`.
pub fn definitions() -> Result<Vec<(String, String)>, serde_yaml::Error> {
    let definitions = [
        <Registry as CustomResourceExt>::crd(),
        <Repository as CustomResourceExt>::crd(),
        <Replication as CustomResourceExt>::crd(),
    ];
    definitions
        .iter()
        .map(|crd| Ok((format!("{}.yaml", crd.spec.names.plural), serde_yaml::to_string(crd)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::Value;

    use super::{Registry, Replication, Repository};

    /// What is given but not there, as a path.
    fn lost(given: &Value, there: &Value) -> Option<String> {
        match given {
            Value::Object(fields) => fields
                .iter()
                .find_map(|(name, given)| lost(given, &there[name]).map(|below| format!(".{name}{below}"))),
            Value::Array(items) => items.iter().enumerate().find_map(|(index, given)| {
                lost(given, &there[index]).map(|below| format!("[{index}]{below}"))
            }),
            value => (value != there).then(String::new),
        }
    }

    #[test]
    fn samples_have_no_field_that_the_kinds_do_not_know() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples");
        for sample in std::fs::read_dir(folder).unwrap() {
            let path = sample.unwrap().path();
            let given: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let there = match given["kind"].as_str().unwrap() {
                "Registry" => serde_json::to_value(Registry::deserialize(&given).unwrap()),
                "Replication" => serde_json::to_value(Replication::deserialize(&given).unwrap()),
                "Repository" => serde_json::to_value(Repository::deserialize(&given).unwrap()),
                kind => panic!("a sample of {kind}"),
            };
            assert_eq!(lost(&given, &there.unwrap()), None, "{}", path.display());
        }
    }

    #[test]
    fn the_definitions_in_manifests_are_up_to_date() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
        for (name, yaml) in super::definitions().unwrap() {
            let there = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
            assert!(there == yaml, "manifests/crds/{name} is out of date: run `cargo run -p crds`");
        }
    }
}
