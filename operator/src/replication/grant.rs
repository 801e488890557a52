//! Whether the service account is granted anything in a Registry: a look beforehand, for a sentence that helps. Which
//! images it may read and write is decided by the registry.

use channel::policy::{self, Action};
use crds::{
    Registry, Replication,
    repository::{Access, Visibility},
};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use crate::{conditions::Answer, context::Context, controller::Guarded, desired::policy::accesses, names};

/// What a run does at an end, and the role that gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It reads there.
    Source,
    /// It writes there, and deletes where it is asked to.
    Target { deletes: bool },
}

impl Role {
    fn action(self) -> Action {
        match self {
            Self::Source => Action::ContentRead,
            Self::Target { deletes: false } => Action::ContentWrite,
            Self::Target { deletes: true } => Action::ContentDelete,
        }
    }

    /// The role of a Repository's `access`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Source => "Reader",
            Self::Target { deletes: false } => "Writer",
            Self::Target { deletes: true } => "Admin",
        }
    }

    fn refusal(self) -> &'static str {
        match self {
            Self::Source => "SourceUnauthorized",
            Self::Target { .. } => "TargetUnauthorized",
        }
    }
}

/// What is missing, where nothing in the Registry grants the account this.
pub(super) fn missing(
    context: &Context,
    registry: &Registry,
    replication: &Replication,
    role: Role,
) -> Option<Answer> {
    let account = replication.spec.service_account_name.as_deref()?;
    let subjects = subjects(replication);
    let grants = |said: &[Access], namespace: &str| grants(said, namespace, &subjects, role.action());
    let undeclared = || grants(&registry.spec.undeclared, &names::namespace(registry));
    let declared = || {
        context.stores.tenants(registry, |tenants| {
            tenants.accepted().iter().any(|repository| {
                let public = role == Role::Source && repository.spec.visibility == Visibility::Public;
                public || grants(&repository.spec.access, &repository.namespace().unwrap_or_default())
            })
        })
    };
    if undeclared() || declared() {
        return None;
    }
    let sentence = sentence(replication, &names::reference(registry), account, role);
    Some(Answer::no(role.refusal(), sentence))
}

/// What rules call the service account, and the groups that it is in; nothing where there is none.
pub(super) fn subjects(replication: &Replication) -> Vec<String> {
    let namespace = replication.namespace().unwrap_or_default();
    let Some(account) = &replication.spec.service_account_name else { return Vec::new() };
    vec![
        format!("system:serviceaccount:{namespace}:{account}"),
        format!("system:serviceaccounts:{namespace}"),
        "system:serviceaccounts".to_owned(),
    ]
}

/// Whether what a resource of this namespace says gives this to one of the subjects.
pub(super) fn grants(said: &[Access], namespace: &str, subjects: &[String], action: Action) -> bool {
    accesses(said, namespace).any(|access| subjects.contains(&access.user) && gives(&access, action))
}

/// What is to be done where a grant is missing.
pub(super) fn sentence(
    replication: &Replication,
    registry: &ObjectRef<Guarded>,
    account: &str,
    role: Role,
) -> String {
    let namespace = replication.metadata.namespace.as_deref().unwrap_or_default();
    format!(
        "a Repository of Registry {} in namespace {} has to grant ServiceAccount {account} of namespace {namespace} access: `access: [{{serviceAccount: {{name: {account}, namespace: {namespace}}}, role: {}}}]`",
        registry.name,
        registry.namespace.as_deref().unwrap_or_default(),
        role.name(),
    )
}

fn gives(access: &policy::Access, action: Action) -> bool {
    let by_role = access.role.is_some_and(|role| match action {
        Action::ContentRead | Action::MetadataRead => true,
        Action::ContentWrite | Action::MetadataWrite => role != policy::Role::Reader,
        Action::ContentDelete => role == policy::Role::Admin,
    });
    by_role || access.actions.contains(&action)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{self, world::World};

    /// What is missing where a Registry has this Repository.
    fn reason(repository: &Value, role: Role) -> Option<String> {
        let mut world = World::empty();
        let registry = testing::registry("demo");
        world.api.put("/apis/berth.dev/v1alpha1/namespaces/apps/registries/demo", json!(registry));
        let repository = testing::repository("apps", "app", repository);
        world.api.put("/apis/berth.dev/v1alpha1/namespaces/apps/repositories/app", json!(repository));
        world.watch();
        let replication = testing::replication("apps", &json!({}));
        missing(&world.context, &registry, &replication, role).map(|answer| answer.reason.into_owned())
    }

    #[tokio::test]
    async fn some_grant_is_enough_and_none_is_told() {
        let (source, writes) = (Role::Source, Role::Target { deletes: false });
        let deletes = Role::Target { deletes: true };
        let account =
            |role: &str| json!({"access": [{"serviceAccount": {"name": "replicator"}, "role": role}]});
        let unauthorized = |side: &str| Some(format!("{side}Unauthorized"));
        assert_eq!(reason(&json!({}), source), unauthorized("Source"));
        assert_eq!(reason(&json!({"visibility": "Public"}), source), None);
        assert_eq!(reason(&json!({"visibility": "Public"}), writes), unauthorized("Target"));
        assert_eq!(reason(&account("Reader"), source), None);
        assert_eq!(reason(&account("Reader"), writes), unauthorized("Target"));
        assert_eq!(reason(&account("Writer"), writes), None);
        assert_eq!(reason(&account("Writer"), deletes), unauthorized("Target"));
        assert_eq!(reason(&account("Admin"), deletes), None);
        let group =
            json!({"access": [{"group": "system:serviceaccounts:apps", "actions": ["content/read"]}]});
        assert_eq!(reason(&group, source), None);
        let other = json!({"access": [{"serviceAccount": {"name": "other"}, "role": "Admin"}]});
        assert_eq!(reason(&other, source), unauthorized("Source"));
    }
}
