//! The policy of a Registry: its own robots, the people of its password file, and a rule for each Repository.

use std::{collections::BTreeMap, sync::Arc};

use channel::policy::{self, Htpasswd, Login, Policy, SecretHash, ServiceAccounts};
use crds::{
    Registry, Repository,
    repository::{Access, Action, Mutability, Role, Tags, Visibility},
};

use kube::ResourceExt as _;

use super::{
    access::{ADMIN, READER},
    told::Told,
};
use crate::{keys::RegistryKey, names, tenancy};

/// A login that one of a Repository's Secrets opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliveredLogin {
    /// With every password that opens it, and no role of its own.
    pub(crate) login: Login,
    /// What it may do at the Repository's path.
    pub(crate) role: policy::Role,
    /// Which of the passwords nobody uses yet: it waits until every replica knows it.
    pub(crate) announced: Option<SecretHash>,
}

/// What a Repository's Secrets open, in the order of usernames.
pub(crate) type Logins = Vec<DeliveredLogin>;

/// Who may do what in the registry: the same for the same Repositories in the same order. Tokens of the account `nodes`
/// are what nodes pull with.
pub(crate) fn policy(
    registry: &Registry,
    key: &RegistryKey,
    people: Htpasswd,
    repositories: &[Arc<Told>],
    nodes: &str,
) -> Policy {
    let login = |username: &str, role| Login {
        username: username.into(),
        secrets: vec![SecretHash::of(key.password(username).as_bytes())],
        ends: Vec::new(),
        role: Some(role),
    };
    let mut logins = vec![login(ADMIN, policy::Role::Admin), login(READER, policy::Role::Reader)];
    logins.extend(repositories.iter().flat_map(|told| told.logins()).cloned());
    Policy {
        logins,
        htpasswd: people,
        repositories: repositories.iter().filter_map(|told| told.rule()).cloned().collect(),
        undeclared: accesses(&registry.spec.undeclared, &names::namespace(registry)).collect(),
        service_accounts: Some(ServiceAccounts {
            audience: names::audience(registry),
            nodes: Some(nodes.to_owned()),
        }),
        primaries: Vec::new(),
    }
}

/// What is opened at a replica, path by path: by a Repository of the primary, or by nobody.
pub(crate) type Opened<'a> = Vec<(String, Option<(&'a Repository, Logins)>)>;

/// Whom a replica lets in because of a primary, whose key this is: the logins that the primary's Secrets open, and its
/// reader; people and ServiceAccounts log in there with what only the primary knows, or is for the primary alone.
pub(crate) fn primary(primary: &Registry, key: &RegistryKey, opened: Opened<'_>) -> policy::Primary {
    let reader = Login {
        username: READER.into(),
        secrets: vec![SecretHash::of(key.password(READER).as_bytes())],
        ends: Vec::new(),
        role: None,
    };
    let mut logins = BTreeMap::from([(reader.username.clone(), reader)]);
    let readable = |(path, opening): (String, Option<(&Repository, Logins)>)| {
        let Some((repository, delivered)) = opening else {
            return policy::Readable { path, ..policy::Readable::default() };
        };
        let mut readers = vec![READER.to_owned()];
        for DeliveredLogin { login, role: _, announced: _ } in delivered {
            readers.push(login.username.clone());
            logins.insert(login.username.clone(), login);
        }
        policy::Readable { path, visibility: visibility(repository), readers }
    };
    let repositories = opened.into_iter().map(readable).collect();
    let name = format!("{}/{}", names::namespace(primary), primary.name_any());
    policy::Primary { name, logins: logins.into_values().collect(), repositories }
}

/// What a Repository says, as registries are told it, and whom its Secrets name.
pub(super) fn rule(repository: &Repository, logins: &Logins) -> policy::Repository {
    let spec = &repository.spec;
    let delivered = logins.iter().map(|delivered| policy::Access {
        user: delivered.login.username.clone(),
        role: Some(delivered.role),
        actions: Vec::new(),
    });
    policy::Repository {
        path: repository.path(),
        visibility: visibility(repository),
        access: accesses(&spec.access, &repository.namespace().unwrap_or_default())
            .chain(delivered)
            .collect(),
        tags: tags(&spec.tags),
        quota: tenancy::quota(repository).ok().flatten(),
    }
}

fn visibility(repository: &Repository) -> policy::Visibility {
    match repository.spec.visibility {
        Visibility::Private => policy::Visibility::Private,
        Visibility::Cluster => policy::Visibility::Cluster,
        Visibility::Public => policy::Visibility::Public,
    }
}

/// What subjects may do, as a resource of this namespace says.
pub(crate) fn accesses(said: &[Access], namespace: &str) -> impl Iterator<Item = policy::Access> {
    said.iter().filter_map(move |said| access(said, namespace))
}

/// What one subject may do; none where it is nothing, which registries refuse.
fn access(access: &Access, namespace: &str) -> Option<policy::Access> {
    let Access { user, service_account, group, role, actions } = access;
    let account = service_account.as_ref().map(|account| {
        let namespace = account.namespace.as_deref().unwrap_or(namespace);
        format!("system:serviceaccount:{namespace}:{}", account.name)
    });
    let user = user.clone().or(account).or_else(|| group.clone())?;
    let actions: Vec<_> = actions.iter().flatten().copied().map(action).collect();
    let given = role.is_some() || !actions.is_empty();
    given.then(|| policy::Access { user, role: role.map(self::role), actions })
}

fn tags(tags: &Tags) -> policy::Tags {
    let mutability = match tags.mutability {
        Mutability::Mutable => policy::Mutability::Mutable,
        Mutability::Immutable => policy::Mutability::Immutable,
    };
    policy::Tags { mutability, except: tags.except.clone().unwrap_or_default() }
}

fn role(role: Role) -> policy::Role {
    match role {
        Role::Reader => policy::Role::Reader,
        Role::Writer => policy::Role::Writer,
        Role::Admin => policy::Role::Admin,
    }
}

fn action(action: Action) -> policy::Action {
    match action {
        Action::ContentRead => policy::Action::ContentRead,
        Action::ContentWrite => policy::Action::ContentWrite,
        Action::ContentDelete => policy::Action::ContentDelete,
        Action::MetadataRead => policy::Action::MetadataRead,
        Action::MetadataWrite => policy::Action::MetadataWrite,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{keys::Keys, testing};

    const NODES: &str = "system:serviceaccount:berth-system:berth-node-access";

    #[test]
    fn every_field_of_a_repository_becomes_its_rule() {
        let private = testing::repository("apps", "web", &json!({}));
        let spec = json!({
            "path": "team/*",
            "visibility": "Public",
            "access": [
                {"user": "ann", "role": "Writer"},
                {"user": "bob", "actions": ["content/read", "metadata/read", "content/delete"]},
                {"user": "nobody"},
                {"serviceAccount": {"name": "ci"}, "role": "Writer"},
                {"serviceAccount": {"name": "ci", "namespace": "apps"}, "role": "Reader"},
                {"group": "system:serviceaccounts:apps", "role": "Reader"},
            ],
            "tags": {"mutability": "Immutable", "except": ["dev-*"]},
            "quota": "1Ki",
        });
        let public = testing::repository("team", "all", &spec);
        let mut registry = testing::registry("demo");
        let undeclared =
            json!([{"serviceAccount": {"name": "ci"}, "role": "Writer"}, {"user": "ann", "role": "Admin"}]);
        registry.spec.undeclared = serde_json::from_value(undeclared).unwrap();
        let key = Keys::new(&[7; 32]).unwrap().of(&registry);
        let people = Htpasswd::new("ann:hash".into());
        let login = Login {
            username: "pull.apps.web".into(),
            secrets: vec![SecretHash::of(b"1")],
            ends: Vec::new(),
            role: None,
        };
        let delivered = DeliveredLogin { login, role: policy::Role::Reader, announced: None };
        let repositories = [Told::of(&private, &vec![delivered]), Told::of(&public, &Vec::new())];
        let repositories = repositories.map(Arc::new);
        let policy = policy(&registry, &key, people, &repositories, NODES);
        insta::assert_yaml_snapshot!(policy);
    }

    #[test]
    fn a_replica_lets_in_whom_secrets_let_in_and_the_reader_and_no_people() {
        let spec = json!({
            "visibility": "Cluster",
            "access": [{"user": "ann", "role": "Reader"}, {"serviceAccount": {"name": "ci"}, "role": "Writer"}],
        });
        let web = testing::repository("apps", "web", &spec);
        let delivered = |username: &str, role| DeliveredLogin {
            login: Login {
                username: username.into(),
                secrets: vec![SecretHash::of(b"1")],
                ends: Vec::new(),
                role: None,
            },
            role,
            announced: None,
        };
        let logins = vec![
            delivered("pull.apps.web", policy::Role::Reader),
            delivered("push.apps.web", policy::Role::Writer),
        ];
        let registry = testing::registry("demo");
        let key = Keys::new(&[7; 32]).unwrap().of(&registry);
        let opened =
            vec![("apps/web".to_owned(), Some((&web, logins))), ("apps/web/secret".to_owned(), None)];
        insta::assert_yaml_snapshot!(primary(&registry, &key, opened));
    }

    #[test]
    fn without_repositories_nothing_is_said_of_any() {
        let registry = testing::registry("demo");
        let key = Keys::new(&[7; 32]).unwrap().of(&registry);
        let policy = policy(&registry, &key, Htpasswd::default(), &[], NODES);
        let text = serde_json::to_value(policy).unwrap();
        assert_eq!(text.as_object().unwrap().keys().collect::<Vec<_>>(), ["logins", "serviceAccounts"]);
    }
}
