//! The objects that a Registry consists of, as ARCHITECTURE.md names them.

use kube::core::{ApiResource, GroupVersionKind};

/// One kind of object of a Registry.
#[derive(Clone, Copy, Debug)]
pub struct Owned {
    group: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// What its name has behind the Registry's.
    suffix: &'static str,
}

/// Everything that goes with the Registry.
pub const ALL: [Owned; 8] = [
    Owned { group: "", kind: "Service", suffix: "" },
    Owned { group: "apps", kind: "StatefulSet", suffix: "" },
    Owned { group: "", kind: "Secret", suffix: "-tls" },
    Owned { group: "", kind: "Secret", suffix: "-channel" },
    Owned { group: "", kind: "Secret", suffix: "-admin" },
    Owned { group: "", kind: "Secret", suffix: "-reader" },
    Owned { group: "", kind: "ConfigMap", suffix: "-ca" },
    Owned { group: "", kind: "ServiceAccount", suffix: "-registry" },
];

/// The claim, which may outlive the Registry.
pub const CLAIM: Owned = Owned { group: "", kind: "PersistentVolumeClaim", suffix: "-data" };

impl Owned {
    /// How the API server serves its kind.
    #[must_use]
    pub fn resource(&self) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk(self.group, "v1", self.kind))
    }

    /// Its name for the Registry of this name.
    #[must_use]
    pub fn name(&self, registry: &str) -> String {
        format!("{registry}{}", self.suffix)
    }
}
