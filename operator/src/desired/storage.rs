//! Where a registry keeps its images.

use crds::Registry;
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{conditions::Answer, names};

/// Name of the claim.
pub(crate) fn claim_name(registry: &Registry) -> String {
    names::with_suffix(registry, "data")
}

/// The claim: without owner reference, so that it outlives the Registry where that is asked for.
///
/// `observed` is the claim as it is now. A volume never shrinks: where it is larger than asked for (as when a Registry is
/// created anew over an old claim), the claim stays as it is.
pub(crate) fn claim(registry: &Registry, observed: Option<&PersistentVolumeClaim>) -> PersistentVolumeClaim {
    let volume = &registry.spec.storage.volume;
    let wanted = Quantity(volume.size.clone());
    let requested = observed.and_then(requested);
    let has_enough = observed.and_then(capacity).is_some_and(|capacity| bytes(capacity) >= bytes(&wanted));
    // The class can't change, nor be given back once it was asked for.
    let class = observed.filter(|claim| asked_for_class(claim)).and_then(class);
    let class = class.or(volume.storage_class_name.as_ref()).cloned();
    let size = requested.filter(|_| has_enough).cloned().unwrap_or(wanted);
    PersistentVolumeClaim {
        metadata: names::kept(registry, claim_name(registry)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: class,
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size)].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// Whether the volume is as asked for, and what to do where not.
pub(crate) fn answer(registry: &Registry, claim: &PersistentVolumeClaim) -> Answer {
    let name = claim_name(registry);
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let wanted = &registry.spec.storage.volume.size;
    if phase != "Bound" {
        let class =
            class(claim).map_or("no storage class".to_owned(), |class| format!("storage class {class}"));
        return Answer::no(
            "NotBound",
            format!(
                "claim {name} ({class}) is {phase}: `kubectl describe pvc {name}` tells why, such as a storage class that does not exist"
            ),
        );
    }
    if let (Some(has), Some(wanted)) = (class(claim), &registry.spec.storage.volume.storage_class_name)
        && has != wanted
    {
        return Answer::no(
            "ClassDiffers",
            format!(
                "claim {name}, kept from before, has storage class {has}, and {wanted} is asked for: its images stay where they are; name {has} in the Registry, or use another name for one with {wanted}"
            ),
        );
    }
    match capacity(claim) {
        Some(capacity) if bytes(capacity) < bytes(&Quantity(wanted.clone())) => {
            Answer::no("Resizing", format!("claim {name} has {}, {wanted} are asked for", capacity.0))
        }
        _ => Answer::yes("Bound", format!("claim {name} has its volume")),
    }
}

/// Size that the volume has.
pub(crate) fn capacity(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage")
}

/// Whether the class was ours to name; otherwise the cluster's default chose it.
fn asked_for_class(claim: &PersistentVolumeClaim) -> bool {
    let entries = claim.metadata.managed_fields.iter().flatten();
    let mut ours = entries.filter(|entry| entry.manager.as_deref() == Some(names::MANAGER));
    ours.any(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| !fields.0["f:spec"]["f:storageClassName"].is_null())
    })
}

fn class(claim: &PersistentVolumeClaim) -> Option<&String> {
    claim.spec.as_ref()?.storage_class_name.as_ref()
}

fn requested(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
}

fn bytes(quantity: &Quantity) -> Option<f64> {
    crate::quantity::value_of(&quantity.0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PersistentVolumeClaimStatus;

    use super::*;
    use crate::testing::registry;

    fn with_capacity(claim: PersistentVolumeClaim, size: &str) -> PersistentVolumeClaim {
        let capacity = Some([("storage".to_owned(), Quantity(size.into()))].into());
        let phase = Some("Bound".to_owned());
        let status =
            PersistentVolumeClaimStatus { capacity, phase, ..PersistentVolumeClaimStatus::default() };
        PersistentVolumeClaim { status: Some(status), ..claim }
    }

    #[test]
    fn a_claim_grows_and_an_old_larger_one_is_taken_as_it_is() {
        let mut registry = registry("demo");
        let first = with_capacity(claim(&registry, None), "1Gi");
        assert_eq!(requested(&first).unwrap().0, "1Gi");
        registry.spec.storage.volume.size = "2Gi".into();
        let grown = claim(&registry, Some(&first));
        assert_eq!(requested(&grown).unwrap().0, "2Gi");
        let grown = with_capacity(grown, "2Gi");
        registry.spec.storage.volume.size = "512Mi".into();
        assert_eq!(requested(&claim(&registry, Some(&grown))).unwrap().0, "2Gi");
    }

    #[test]
    fn a_growth_can_be_taken_back() {
        let mut registry = registry("demo");
        let first = with_capacity(claim(&registry, None), "1Gi");
        registry.spec.storage.volume.size = "2Gi".into();
        assert_eq!(answer(&registry, &first).reason, "Resizing");
        registry.spec.storage.volume.size = "1Gi".into();
        assert_eq!(requested(&claim(&registry, Some(&first))).unwrap().0, "1Gi");
        assert_eq!(answer(&registry, &first).reason, "Bound");
    }
}
