//! A policy, checked and made ready for fast answers: a decision takes some look-ups in maps, one for each component
//! of the repository's name, however many rules and users there are.

use channel::policy::{Access, Action, Policy, Visibility};
use oci::RepoName;

use super::{
    invalid::{BadLogins, InvalidPolicy},
    paths::{NotAdded, Paths},
    permissions::Permissions,
    users::{UserId, Users},
};

/// What is readable by all.
const READING: [Action; 2] = [Action::ContentRead, Action::MetadataRead];
/// What is said of paths that no rule covers, in messages.
const UNDECLARED: &str = "undeclared";

/// A policy in force.
#[derive(Debug)]
pub(crate) struct Rules {
    revision: String,
    pub(super) users: Users,
    paths: Paths<Rule>,
    undeclared: Rule,
    /// Named by rules, but without a login.
    strangers: Vec<String>,
    /// Why logins of the policy do not count.
    left_out: Vec<InvalidPolicy>,
}

/// What is decided for one path.
#[derive(Debug, Default)]
struct Rule {
    everybody: Permissions,
    /// In the order of the users.
    named: Box<[(UserId, Permissions)]>,
}

impl Rules {
    /// All of a policy, or nothing of it.
    pub(crate) fn new(policy: &Policy) -> Result<Self, InvalidPolicy> {
        Self::with(policy, BadLogins::Refuse)
    }

    /// All of a policy but the logins that can't be used.
    pub(crate) fn without_bad_logins(policy: &Policy) -> Result<Self, InvalidPolicy> {
        Self::with(policy, BadLogins::LeaveOut(Vec::new()))
    }

    fn with(policy: &Policy, mut bad: BadLogins) -> Result<Self, InvalidPolicy> {
        let Policy { logins: _, htpasswd: _, repositories, undeclared } = policy;
        let users = Users::new(policy, &mut bad)?;
        let mut strangers = Vec::new();
        let mut paths = Paths::default();
        for repository in repositories {
            let path = &repository.path;
            let rule = Rule::new(path, repository.visibility, &repository.access, &users, &mut strangers)?;
            paths.add(path, rule).map_err(|error| match error {
                NotAdded::Invalid => InvalidPolicy::Path(path.escape_debug().to_string()),
                NotAdded::Duplicate => InvalidPolicy::DuplicatePath(path.clone()),
            })?;
        }
        let undeclared = Rule::new(UNDECLARED, Visibility::Private, undeclared, &users, &mut strangers)?;
        strangers.sort();
        strangers.dedup();
        let left_out = if let BadLogins::LeaveOut(reasons) = bad { reasons } else { Vec::new() };
        Ok(Self { revision: policy.revision(), users, paths, undeclared, strangers, left_out })
    }

    pub(crate) fn revision(&self) -> &str {
        &self.revision
    }

    /// Why logins of the policy do not count, for at most so many of them.
    pub(crate) fn left_out(&self, most: usize) -> Vec<String> {
        self.left_out.iter().take(most).map(ToString::to_string).collect()
    }

    /// Logs that these rules decide from now on.
    pub(crate) fn announce(&self) {
        tracing::info!(revision = self.revision, users = self.users.len(), "a new policy decides");
        if let [first, ..] = &self.strangers[..] {
            let count = self.strangers.len();
            tracing::warn!(count, first, "the policy names users that have no login");
        }
        if let [first, ..] = &self.left_out[..] {
            tracing::error!(count = self.left_out.len(), %first, "logins of the policy can't be used, all else can");
        }
    }

    /// The decision. Nobody is somebody without credentials.
    pub(super) fn allow(&self, user: Option<UserId>, action: Action, repository: &RepoName) -> bool {
        let rule = self.paths.most_specific(repository).unwrap_or(&self.undeclared);
        let named = user.map(|user| self.users.everywhere(user).and(rule.of(user))).unwrap_or_default();
        rule.everybody.and(named).has(action)
    }
}

impl Rule {
    fn new(
        path: &str,
        visibility: Visibility,
        access: &[Access],
        users: &Users,
        strangers: &mut Vec<String>,
    ) -> Result<Self, InvalidPolicy> {
        let mut named: Vec<(UserId, Permissions)> = Vec::with_capacity(access.len());
        for entry in access {
            let permissions = Permissions::of(entry);
            if permissions == Permissions::default() {
                let (user, path) = (entry.user.escape_debug().to_string(), path.to_owned());
                return Err(InvalidPolicy::NothingGiven { user, path });
            }
            // A rule for who is no longer there must not hold up that they are gone.
            match users.find(&entry.user) {
                Some(user) => named.push((user, permissions)),
                None => strangers.push(entry.user.clone()),
            }
        }
        named.sort_by_key(|(user, _)| *user);
        named.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 = first.1.and(later.1);
            }
            same
        });
        let everybody = match visibility {
            Visibility::Private => Permissions::default(),
            Visibility::Public => Permissions::only(&READING),
        };
        Ok(Self { everybody, named: named.into() })
    }

    fn of(&self, user: UserId) -> Permissions {
        let found = self.named.binary_search_by_key(&user, |(named, _)| *named);
        found.map(|index| self.named[index].1).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
