//! The resource kinds of `berth.dev`, and nothing that acts on them.
//!
//! `cargo run -p crds` writes their definitions to `manifests/crds/`.

pub mod registry;

pub use registry::{Registry, RegistrySpec, RegistryStatus};

/// The API group of every kind.
pub const GROUP: &str = "berth.dev";

/// The definition of every kind as (file name, YAML), as it lies in `manifests/crds/`.
pub fn definitions() -> Result<Vec<(String, String)>, serde_yaml::Error> {
    let definitions = [<Registry as kube::CustomResourceExt>::crd()];
    definitions
        .iter()
        .map(|crd| Ok((format!("{}.yaml", crd.spec.names.plural), serde_yaml::to_string(crd)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definitions_in_manifests_are_up_to_date() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
        for (name, yaml) in super::definitions().unwrap() {
            let there = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
            assert!(there == yaml, "manifests/crds/{name} is out of date: run `cargo run -p crds`");
        }
    }
}
