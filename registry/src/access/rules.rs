//! A policy, checked and made ready for fast answers: a decision takes some look-ups in maps, one for each component
//! of the repository's name, however many rules and users there are.

use std::sync::Arc;

use channel::policy::{Access, Action, Policy, Visibility};
use oci::{RepoName, Tag};

use super::{
    account::{Accounts, Granted},
    guests::Guests,
    invalid::{BadLogins, InvalidPolicy},
    listed::{Lister, Openings},
    permissions::Permissions,
    tags::Immutable,
    token::Subject,
    users::{Fingerprint, UserId, Users},
    who::Who,
};
use crate::{
    paths::{NotAdded, Paths},
    storage::Governing,
};

/// What is readable by all, or by nodes.
const READING: [Action; 2] = [Action::ContentRead, Action::MetadataRead];
/// What lets a repository be listed.
const LISTING: Action = Action::MetadataRead;
/// What is said of paths that no rule covers, in messages.
const UNDECLARED: &str = "undeclared";

/// A policy in force.
#[derive(Debug)]
pub(crate) struct Rules {
    revision: String,
    pub(super) users: Users,
    /// None where ServiceAccounts don't log in.
    pub(super) accounts: Option<Accounts>,
    pub(super) guests: Guests,
    paths: Paths<Rule>,
    openings: Openings,
    undeclared: Rule,
    governing: Arc<Governing>,
    /// Named by rules, but without a login.
    strangers: Vec<String>,
    /// Why logins of the policy do not count.
    left_out: Vec<InvalidPolicy>,
}

/// What is decided for one path.
#[derive(Debug, Default)]
struct Rule {
    everybody: Permissions,
    nodes: Permissions,
    accounts: Granted,
    /// In the order of the users.
    named: Box<[(UserId, Permissions)]>,
    immutable: Immutable,
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
        let Policy { logins: _, htpasswd: _, repositories, undeclared, service_accounts, primaries } = policy;
        let users = Users::new(policy, &mut bad)?;
        let guests = Guests::new(primaries, &mut bad)?;
        let accounts = service_accounts.as_ref().map(Accounts::new).transpose()?;
        let mut strangers = Vec::new();
        let mut paths = Paths::default();
        for repository in repositories {
            let path = &repository.path;
            let mut rule =
                Rule::new(path, repository.visibility, &repository.access, &users, &mut strangers)?;
            rule.immutable = Immutable::of(&repository.tags);
            paths.add(path, rule).map_err(|error| match error {
                NotAdded::Invalid => InvalidPolicy::Path(path.escape_debug().to_string()),
                NotAdded::Duplicate => InvalidPolicy::DuplicatePath(path.clone()),
            })?;
        }
        let undeclared = Rule::new(UNDECLARED, Visibility::Private, undeclared, &users, &mut strangers)?;
        strangers.sort();
        strangers.dedup();
        let quotas = repositories.iter().map(|repository| (repository.path.as_str(), repository.quota));
        let governing = Arc::new(Governing::new(quotas));
        let left_out = if let BadLogins::LeaveOut(reasons) = bad { reasons } else { Vec::new() };
        let revision = policy.revision();
        let openings = paths.beginnings().into_iter().map(|(beginning, rule)| (beginning, rule.listers()));
        let openings = Openings::new(openings);
        Ok(Self {
            revision,
            users,
            accounts,
            guests,
            paths,
            openings,
            undeclared,
            governing,
            strangers,
            left_out,
        })
    }

    pub(crate) fn revision(&self) -> &str {
        &self.revision
    }

    /// Which path governs which repository, for who counts what lies there.
    pub(crate) fn governing(&self) -> Arc<Governing> {
        Arc::clone(&self.governing)
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

    /// Whether a tag stays where it is, as far as they go: only who may do everything moves it or takes it away.
    pub(super) fn is_fixed(&self, who: &Who, repository: &RepoName, tag: &Tag) -> bool {
        let rule = self.paths.most_specific(repository).unwrap_or(&self.undeclared);
        rule.immutable.holds(tag) && !self.permissions(rule, who).all()
    }

    /// The decision.
    pub(super) fn allow(&self, who: &Who, action: Action, repository: &RepoName) -> bool {
        let rule = self.paths.most_specific(repository).unwrap_or(&self.undeclared);
        self.permissions(rule, who).has(action) || self.guests.allow(who, action, repository)
    }

    /// Whether a repository is in the list that they get.
    pub(super) fn list(&self, who: &Who, repository: &RepoName) -> bool {
        self.allow(who, LISTING, repository)
    }

    /// The first text from `from` on, in bytewise order, that would be in their list if it were a repository's name.
    pub(super) fn next_listed(&self, who: &Who, from: &str) -> Option<String> {
        let open = |rule: Option<&Rule>| self.permissions(rule.unwrap_or(&self.undeclared), who).has(LISTING);
        let own = self.paths.next_open(from, open, self.openings.next(listers(who), from));
        own.into_iter().chain(self.guests.next_listed(who, from)).min()
    }

    /// What they may do by a rule of this registry's own.
    fn permissions(&self, rule: &Rule, who: &Who) -> Permissions {
        let named = match who {
            // Of guests their own registry decides.
            Who::Nobody | Who::Guest(_) => Permissions::default(),
            Who::User(user) => self.users.everywhere(*user).and(rule.of(*user)),
            Who::Account(account) => rule.accounts.to(account),
            Who::Node(_) => rule.nodes,
        };
        rule.everybody.and(named)
    }

    /// What somebody is called.
    pub(super) fn name(&self, who: &Who) -> Option<Arc<str>> {
        match who {
            Who::Nobody => None,
            Who::User(user) => self.users.name(*user),
            Who::Guest(guest) => self.guests.name(*guest),
            Who::Account(account) | Who::Node(account) => Some(Arc::clone(account.name())),
        }
    }

    /// Whose token it is, if what it was got with is still good.
    pub(super) fn holder(&self, subject: &Subject) -> Option<Who> {
        let Subject { user, credential } = subject;
        let credential = Fingerprint::from_hex(credential)?;
        if let Some(user) = self.users.find(user) {
            return self.users.still_has(user, credential).then_some(Who::User(user));
        }
        let guest = self.guests.holder(subject, credential).map(Who::Guest);
        guest.or_else(|| self.accounts.as_ref()?.holder(user, credential))
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
        let mut accounts = Granted::default();
        for entry in access {
            let permissions = Permissions::of(entry);
            if permissions == Permissions::default() {
                let (user, path) = (entry.user.escape_debug().to_string(), path.to_owned());
                return Err(InvalidPolicy::NothingGiven { user, path });
            }
            // A rule for who is no longer there must not hold up that they are gone.
            match users.find(&entry.user) {
                Some(user) => named.push((user, permissions)),
                None if accounts.add(&entry.user, permissions) => {}
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
        let (nothing, reading) = (Permissions::default(), Permissions::only(&READING));
        let (everybody, nodes) = match visibility {
            Visibility::Private => (nothing, nothing),
            Visibility::Cluster => (nothing, reading),
            Visibility::Public => (reading, reading),
        };
        Ok(Self { everybody, nodes, accounts, named: named.into(), immutable: Immutable::default() })
    }

    /// Who may list what it decides, but those who may list everything.
    fn listers(&self) -> impl Iterator<Item = Lister> {
        let groups = [(Lister::Everybody, self.everybody), (Lister::Nodes, self.nodes)].into_iter();
        let users = self.named.iter().map(|(user, permissions)| (Lister::User(*user), *permissions));
        let accounts =
            self.accounts.all().map(|(subject, permissions)| (Lister::Account(subject.into()), permissions));
        let all = groups.chain(users).chain(accounts);
        all.filter(|(_, permissions)| permissions.has(LISTING)).map(|(subject, _)| subject)
    }

    fn of(&self, user: UserId) -> Permissions {
        let found = self.named.binary_search_by_key(&user, |(named, _)| *named);
        found.map(|index| self.named[index].1).unwrap_or_default()
    }
}

/// Under what they are named in rules of this registry's own.
fn listers(who: &Who) -> Vec<Lister> {
    let mut listers = vec![Lister::Everybody];
    match who {
        Who::Nobody | Who::Guest(_) => {}
        Who::User(user) => listers.push(Lister::User(*user)),
        Who::Account(account) => {
            listers.extend(account.names().map(|name| Lister::Account(name.into())));
        }
        Who::Node(_) => listers.push(Lister::Nodes),
    }
    listers
}

#[cfg(test)]
mod tests;
