//! Who may read here because they may read at a registry that this one stands in for.
//!
//! What holds: guests read and do nothing else, and only what their own registry says. Each primary's logins are a world
//! of their own, so that a username means somebody else in each, and nobody becomes another one's reader by being called
//! the same.

use std::{collections::HashSet, sync::Arc};

use channel::policy::{Action, Primary, Readable, Visibility};
use oci::RepoName;

use super::{
    basic::Credentials,
    invalid::{BadLogins, InvalidPolicy},
    listed::{Lister, Openings},
    token::Subject,
    users::{Attempt, Fingerprint, UserId, Users},
    who::Who,
};
use crate::paths::{NotAdded, Paths};

/// A login of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    /// Which primary.
    primary: usize,
    user: UserId,
}

/// Those of all primaries.
#[derive(Debug, Default)]
pub(super) struct Guests(Box<[World]>);

/// One primary.
#[derive(Debug)]
struct World {
    name: Box<str>,
    users: Users,
    paths: Paths<Readers>,
    openings: Openings,
}

/// Who reads one path.
#[derive(Debug)]
struct Readers {
    visibility: Visibility,
    /// In their order.
    named: Box<[UserId]>,
}

impl Guests {
    pub(super) fn new(primaries: &[Primary], bad: &mut BadLogins) -> Result<Self, InvalidPolicy> {
        let mut names = HashSet::new();
        let world = |primary: &Primary| {
            let name = &primary.name;
            let usable = !name.is_empty() && !name.contains(|c: char| c == ':' || c.is_control());
            if !usable || !names.insert(name.clone()) {
                return Err(InvalidPolicy::Primary(name.escape_debug().to_string()));
            }
            World::new(primary, bad)
        };
        primaries.iter().map(world).collect::<Result<_, _>>().map(Self)
    }

    /// Whom the credentials open. All are looked at, so that how long it takes does not tell whose they are.
    pub(super) fn attempt(&self, credentials: &Credentials) -> Option<(Guest, Fingerprint)> {
        let mut right = None;
        for (primary, world) in self.0.iter().enumerate() {
            if let Attempt::Right(user, fingerprint) = world.users.attempt(credentials) {
                right = right.or(Some((Guest { primary, user }, fingerprint)));
            }
        }
        right
    }

    /// Whether somebody may do this because they may at a primary.
    pub(super) fn allow(&self, who: &Who, action: Action, repository: &RepoName) -> bool {
        let reading = matches!(action, Action::ContentRead | Action::MetadataRead);
        reading && self.0.iter().enumerate().any(|(primary, world)| world.lets_in(primary, who, repository))
    }

    /// For each primary the first text from `from` on, in bytewise order, that it lets somebody list as a repository's name.
    pub(super) fn next_listed(&self, who: &Who, from: &str) -> impl Iterator<Item = String> {
        self.0.iter().enumerate().filter_map(move |(primary, world)| world.next_listed(primary, who, from))
    }

    /// What a guest is called: the primary's name and the username there. None of this registry's own users has a colon in
    /// their name.
    pub(super) fn name(&self, guest: Guest) -> Option<Arc<str>> {
        let world = self.0.get(guest.primary)?;
        Some(format!("{}:{}", world.name, world.users.name(guest.user)?).into())
    }

    /// Whose token it is, if what it was got with is still good.
    pub(super) fn holder(&self, Subject { user, .. }: &Subject, credential: Fingerprint) -> Option<Guest> {
        let (name, username) = user.split_once(':')?;
        let primary = self.0.iter().position(|world| *world.name == *name)?;
        let world = self.0.get(primary)?;
        let user = world.users.find(username)?;
        world.users.still_has(user, credential).then_some(Guest { primary, user })
    }
}

impl World {
    fn new(primary: &Primary, bad: &mut BadLogins) -> Result<Self, InvalidPolicy> {
        let Primary { name, logins, repositories } = primary;
        let users = Users::robots(logins, bad)?;
        let mut paths = Paths::default();
        for Readable { path, visibility, readers } in repositories {
            // Who is named and has no login is gone.
            let mut named: Vec<_> = readers.iter().filter_map(|reader| users.find(reader)).collect();
            named.sort();
            let readers = Readers { visibility: *visibility, named: named.into() };
            paths.add(path, readers).map_err(|error| match error {
                NotAdded::Invalid => InvalidPolicy::Path(path.escape_debug().to_string()),
                NotAdded::Duplicate => InvalidPolicy::DuplicatePath(path.clone()),
            })?;
        }
        let openings =
            paths.beginnings().into_iter().map(|(beginning, readers)| (beginning, readers.listers()));
        let openings = Openings::new(openings);
        Ok(Self { name: name.as_str().into(), users, paths, openings })
    }

    fn lets_in(&self, primary: usize, who: &Who, repository: &RepoName) -> bool {
        self.paths.most_specific(repository).is_some_and(|readers| readers.have(primary, who))
    }

    fn next_listed(&self, primary: usize, who: &Who, from: &str) -> Option<String> {
        let open = |readers: Option<&Readers>| readers.is_some_and(|readers| readers.have(primary, who));
        let named = match who {
            Who::Guest(guest) if guest.primary == primary => Some(Lister::User(guest.user)),
            Who::Node(_) => Some(Lister::Nodes),
            Who::Nobody | Who::User(_) | Who::Account(_) | Who::Guest(_) => None,
        };
        let listers = [Lister::Everybody].into_iter().chain(named);
        self.paths.next_open(from, open, self.openings.next(listers, from))
    }
}

impl Readers {
    /// Whether somebody is one of them, of this primary.
    fn have(&self, primary: usize, who: &Who) -> bool {
        self.visibility == Visibility::Public
            || match who {
                Who::Guest(guest) => {
                    guest.primary == primary && self.named.binary_search(&guest.user).is_ok()
                }
                Who::Node(_) => self.visibility == Visibility::Cluster,
                Who::Nobody | Who::User(_) | Who::Account(_) => false,
            }
    }

    fn listers(&self) -> impl Iterator<Item = Lister> {
        let all = match self.visibility {
            Visibility::Private => None,
            Visibility::Cluster => Some(Lister::Nodes),
            Visibility::Public => Some(Lister::Everybody),
        };
        all.into_iter().chain(self.named.iter().map(|user| Lister::User(*user)))
    }
}

#[cfg(test)]
mod tests;
