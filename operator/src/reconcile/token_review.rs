//! The one right over the cluster that a registry has: to ask whose a `ServiceAccount`'s token is. What it is bound to is
//! installed with the operator, which can bind that role and no other.

use crds::Registry;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    core::ObjectMeta,
};

use super::Error;
use crate::{
    apply,
    context::Context,
    names::{self, MANAGER},
};

/// Installed with the operator.
const ROLE: &str = "berth-token-review";

/// Lets the registry ask.
pub(super) async fn grant(registry: &Registry, context: &Context) -> Result<(), Error> {
    let (desired, name) = (binding(registry), name(registry));
    let what = what(&name);
    let api = Api::<ClusterRoleBinding>::all(context.applier.client.clone());
    let observed =
        api.get_opt(&name).await.map_err(|source| apply::Error::Read { what: what.clone(), source })?;
    if let Some(observed) = observed {
        if !apply::is_ours(&observed) {
            return Err(apply::Error::Foreign { what }.into());
        }
        if observed.subjects == desired.subjects {
            return Ok(());
        }
    }
    context.applier.metrics.wrote("ClusterRoleBinding");
    tracing::info!(kind = "ClusterRoleBinding", name, "applying");
    api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&desired))
        .await
        .map_err(|source| apply::Error::Apply { what, source })?;
    Ok(())
}

/// Takes that back.
pub(super) async fn revoke(registry: &Registry, context: &Context) -> Result<(), Error> {
    let name = name(registry);
    let what = what(&name);
    let api = Api::<ClusterRoleBinding>::all(context.applier.client.clone());
    let observed =
        api.get_opt(&name).await.map_err(|source| apply::Error::Read { what: what.clone(), source })?;
    if !observed.is_some_and(|observed| apply::is_ours(&observed)) {
        return Ok(());
    }
    context.applier.metrics.wrote("ClusterRoleBinding");
    match api.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(apply::Error::Delete { what, source }.into()),
        Ok(_) => Ok(()),
    }
}

fn binding(registry: &Registry) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: ObjectMeta {
            name: Some(name(registry)),
            labels: Some(names::labels(registry)),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "ClusterRole".into(),
            name: ROLE.into(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: names::with_suffix(registry, "registry"),
            namespace: Some(names::namespace(registry)),
            ..Subject::default()
        }]),
    }
}

/// No name of a namespace or Registry has a colon, so that no two Registries share one.
fn name(registry: &Registry) -> String {
    format!(
        "berth-registry:{}:{}",
        names::namespace(registry),
        registry.metadata.name.as_deref().unwrap_or_default()
    )
}

fn what(name: &str) -> String {
    format!("ClusterRoleBinding {name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_registrys_account_and_nobody_else_gets_that_role_and_no_other() {
        let binding = binding(&testing::registry("demo"));
        assert_eq!(binding.metadata.name.as_deref(), Some("berth-registry:apps:demo"));
        assert_eq!((binding.role_ref.kind.as_str(), binding.role_ref.name.as_str()), ("ClusterRole", ROLE));
        let subjects = binding.subjects.unwrap();
        let [subject] = subjects.as_slice() else { panic!("{subjects:?}") };
        assert_eq!((subject.kind.as_str(), subject.name.as_str()), ("ServiceAccount", "demo-registry"));
        assert_eq!(subject.namespace.as_deref(), Some("apps"));
    }

    #[test]
    fn the_role_is_to_ask_whose_a_token_is() {
        let manifest = include_str!("../../../manifests/operator/operator-rights.yaml");
        let documents = manifest.split("\n---\n").map(|text| serde_yaml::from_str(text).unwrap());
        let role = documents
            .into_iter()
            .find(|role: &serde_json::Value| {
                role["kind"] == "ClusterRole" && role["metadata"]["name"] == ROLE
            })
            .unwrap();
        let rules = serde_json::json!([
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        ]);
        assert_eq!(role["rules"], rules);
    }
}
