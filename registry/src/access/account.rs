//! ServiceAccounts of a cluster: what they are called, which groups they are in, and what rules give to both.
//!
//! A name says its groups by itself, so that nothing else is believed about them. All of these names have colons, and
//! so are no username of a login.

use std::{collections::HashMap, sync::Arc};

use channel::policy::ServiceAccounts;

use super::{
    invalid::InvalidPolicy,
    permissions::Permissions,
    users::{Fingerprint, fingerprint},
    who::Who,
};

/// What all names of ServiceAccounts begin with.
const PREFIX: &str = "system:serviceaccount:";
/// The group of them all. That of a namespace has the namespace behind it, after a colon.
const ALL: &str = "system:serviceaccounts";
/// The longest namespace (a DNS label) and name of a ServiceAccount (a DNS subdomain).
const LABEL: usize = 63;
const SUBDOMAIN: usize = 253;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account(Arc<Names>);

#[derive(Debug, PartialEq, Eq)]
struct Names {
    name: Arc<str>,
    /// All of its namespace.
    group: Box<str>,
}

impl Account {
    /// `system:serviceaccount:<namespace>:<name>`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.strip_prefix(PREFIX)?.split_once(':')?;
        let valid = is_dns(namespace, LABEL) && !namespace.contains('.') && is_dns(name, SUBDOMAIN);
        let group = || format!("{ALL}:{namespace}").into();
        valid.then(|| Self(Arc::new(Names { name: text.into(), group: group() })))
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Its own name, and those of its groups.
    pub(super) fn names(&self) -> [&str; 3] {
        [&*self.0.name, &*self.0.group, ALL]
    }
}

/// Whether a rule's subject is an account or a group of them.
fn is_subject(text: &str) -> bool {
    let namespace = text.strip_prefix(ALL).and_then(|rest| rest.strip_prefix(':'));
    text == ALL
        || Account::parse(text).is_some()
        || namespace.is_some_and(|namespace| is_dns(namespace, LABEL) && !namespace.contains('.'))
}

fn is_dns(text: &str, longest: usize) -> bool {
    let usual = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=longest).contains(&text.len()) && text.bytes().all(usual)
}

/// That they may log in, and how.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) audience: Arc<str>,
    nodes: Option<Account>,
}

impl Accounts {
    pub(super) fn new(policy: &ServiceAccounts) -> Result<Self, InvalidPolicy> {
        let ServiceAccounts { audience, nodes } = policy;
        if audience.is_empty() {
            return Err(InvalidPolicy::Audience);
        }
        let account = |name: &String| {
            Account::parse(name).ok_or_else(|| InvalidPolicy::Nodes(name.escape_debug().to_string()))
        };
        Ok(Self { audience: audience.as_str().into(), nodes: nodes.as_ref().map(account).transpose()? })
    }

    pub(super) fn is_node(&self, account: &Account) -> bool {
        self.nodes.as_ref() == Some(account)
    }

    /// What an account is here. That of the nodes is nothing else, whatever rules name it.
    pub(super) fn who(&self, account: Account) -> Who {
        if self.is_node(&account) { Who::Node(account) } else { Who::Account(account) }
    }

    /// Stands in tokens of this registry, which end when accounts no longer log in by this audience.
    pub(super) fn credential(&self) -> Fingerprint {
        fingerprint(&[b"audience\0", self.audience.as_bytes()].concat())
    }

    /// Who a token of this registry was given to, if they may still log in.
    pub(super) fn holder(&self, name: &str, credential: Fingerprint) -> Option<Who> {
        Account::parse(name).filter(|_| credential == self.credential()).map(|account| self.who(account))
    }
}

/// What a rule gives to accounts and groups.
#[derive(Debug, Default)]
pub(super) struct Granted(HashMap<Box<str>, Permissions>);

impl Granted {
    /// Adds to what a subject may do; false where it is neither an account nor a group.
    pub(super) fn add(&mut self, subject: &str, permissions: Permissions) -> bool {
        let taken = is_subject(subject);
        if taken {
            let known = self.0.entry(subject.into()).or_default();
            *known = known.and(permissions);
        }
        taken
    }

    /// All that names the account or one of its groups.
    pub(super) fn to(&self, account: &Account) -> Permissions {
        let named = account.names().into_iter().filter_map(|name| self.0.get(name));
        named.fold(Permissions::default(), |all, more| all.and(*more))
    }

    /// What each of those who are named may do.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, Permissions)> {
        self.0.iter().map(|(subject, permissions)| (&**subject, *permissions))
    }
}

#[cfg(test)]
mod tests {
    use channel::policy::{Action, Role};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("system:serviceaccount:apps:ci", true, true)]
    #[case("system:serviceaccount:apps:ci.robot-1", true, true)]
    #[case("system:serviceaccounts:apps", false, true)]
    #[case("system:serviceaccounts", false, true)]
    #[case("system:serviceaccounts:", false, false)]
    #[case("system:serviceaccounts:a.b", false, false)]
    #[case("system:serviceaccountsapps", false, false)]
    #[case("system:serviceaccount:apps", false, false)]
    #[case("system:serviceaccount:apps:", false, false)]
    #[case("system:serviceaccount::ci", false, false)]
    #[case("system:serviceaccount:apps:ci:x", false, false)]
    #[case("system:serviceaccount:Apps:ci", false, false)]
    #[case("system:serviceaccount:a.b:ci", false, false)]
    #[case("system:node:one", false, false)]
    #[case("system:masters", false, false)]
    #[case("ci", false, false)]
    fn names(#[case] text: &str, #[case] account: bool, #[case] subject: bool) {
        assert_eq!(Account::parse(text).is_some(), account);
        assert_eq!(is_subject(text), subject);
        assert_eq!(Granted::default().add(text, Permissions::default()), subject);
    }

    #[test]
    fn all_that_names_an_account_counts_together() {
        let mut granted = Granted::default();
        for (subject, action) in [
            ("system:serviceaccount:apps:ci", Action::ContentWrite),
            ("system:serviceaccount:apps:ci", Action::MetadataWrite),
            ("system:serviceaccounts:apps", Action::ContentDelete),
            ("system:serviceaccounts", Action::ContentRead),
        ] {
            assert!(granted.add(subject, Permissions::only(&[action])));
        }
        let may = |name: &str, action| granted.to(&Account::parse(name).unwrap()).has(action);
        let (ci, other, elsewhere) = (
            "system:serviceaccount:apps:ci",
            "system:serviceaccount:apps:other",
            "system:serviceaccount:app:ci",
        );
        assert!(
            Role::Admin.actions().iter().all(|&action| may(ci, action) || action == Action::MetadataRead)
        );
        assert!(may(other, Action::ContentDelete) && !may(other, Action::ContentWrite));
        assert!(may(elsewhere, Action::ContentRead) && !may(elsewhere, Action::ContentDelete));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(system:serviceaccounts?:?)?[a-z.:-]{0,20}|\\PC{0,20}") {
            let parsed = Account::parse(&text);
            prop_assert!(parsed.is_none_or(|account| **account.name() == *text && is_subject(&text)));
        }
    }
}
