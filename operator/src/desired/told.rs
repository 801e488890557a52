//! What registries are told of each Repository.
//!
//! Who has a path decides there alone, or nobody does: where a Repository can't be enforced, because its quota can't be
//! read or there is no room for it, nobody is let in by it, and what is declared for all above does not open it.

use channel::policy::{self, Login, SecretHash};
use crds::Repository;
use serde::Serialize;

use super::policy::{DeliveredLogin, Logins, rule};
use crate::tenancy::{
    self, Tenants,
    budget::{Room, Wish, rooms},
};

/// All that registries are told of one Repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Who may do what at its path.
    rule: policy::Repository,
    /// What opens the logins of its Secrets, in the order of usernames.
    logins: Vec<Login>,
    /// How much of it there is room for.
    pub(crate) room: Room,
}

/// A Repository that has its path, and what becomes of it.
pub(crate) struct Decided<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) told: Told,
    /// Whether what it says decides; otherwise nobody is let in by it.
    pub(crate) is_enforced: bool,
}

/// What becomes of each Repository that has its path, in the order of paths, by what their Secrets open.
pub(crate) fn decide<'a, E>(
    tenants: &Tenants<'a>,
    logins: impl Fn(&Repository) -> Result<Logins, E>,
) -> Result<Vec<Decided<'a>>, E> {
    let decided = tenants.declared().into_iter().map(|repository| {
        let is_enforced = tenancy::quota(repository).is_ok();
        let told =
            if is_enforced { Told::of(repository, &logins(repository)?) } else { Told::shut(repository) };
        Ok(Decided { repository, told, is_enforced })
    });
    let mut decided = decided.collect::<Result<Vec<_>, E>>()?;
    let wishes = decided.iter().map(|Decided { repository, told, .. }| Wish {
        repository,
        whole: size(&told.rule) + told.logins.iter().map(size).sum::<usize>(),
        shut: size(&Told::shut(repository).rule),
    });
    let rooms = rooms(&wishes.collect::<Vec<_>>());
    for (decided, room) in decided.iter_mut().zip(rooms).filter(|(_, room)| *room != Room::Whole) {
        decided.told = Told { room, ..Told::shut(decided.repository) };
        decided.is_enforced = false;
    }
    Ok(decided)
}

/// Bytes that this takes in a policy, with what stands between it and the next.
pub(crate) fn size(told: &impl Serialize) -> usize {
    // Only keys that are no text can't be written, and there are none.
    serde_json::to_vec(told).map_or(0, |text| text.len() + 1)
}

impl Told {
    /// What a Repository says, and what its Secrets open.
    pub(crate) fn of(repository: &Repository, logins: &Logins) -> Self {
        let opened = logins.iter().map(|delivered| delivered.login.clone());
        Self { rule: rule(repository, logins), logins: opened.collect(), room: Room::Whole }
    }

    /// That nobody is let in.
    fn shut(repository: &Repository) -> Self {
        let rule = policy::Repository { path: repository.path(), ..policy::Repository::default() };
        Self { rule, logins: Vec::new(), room: Room::Whole }
    }

    /// The path of which registries are told, or would be.
    pub(crate) fn path(&self) -> &str {
        &self.rule.path
    }

    /// Who may do what at the path; none where there is not even room for that it is shut.
    pub(crate) fn rule(&self) -> Option<&policy::Repository> {
        (self.room != Room::Nothing).then_some(&self.rule)
    }

    /// What opens the logins of its Secrets.
    pub(crate) fn logins(&self) -> &[Login] {
        &self.logins
    }

    /// Whether this password opens the login for whoever was told.
    pub(crate) fn opens(&self, username: &str, password: &SecretHash) -> bool {
        self.logins.iter().any(|login| login.username == username && login.secrets.contains(password))
    }

    /// Whether exactly these logins are open for whoever was told. Of a password that nobody uses yet it may be told, or
    /// not, and of when a former one ends.
    pub(crate) fn has(&self, logins: &Logins) -> bool {
        let same = |(there, wanted): (&Login, &DeliveredLogin)| {
            let used = |login: &Login| -> Vec<SecretHash> {
                login.secrets.iter().filter(|hash| Some(**hash) != wanted.announced).copied().collect()
            };
            there.username == wanted.login.username && used(there) == used(&wanted.login)
        };
        self.logins.len() == logins.len() && self.logins.iter().zip(logins).all(same)
    }

    /// Whether whoever was told decides by what the Repository says now.
    pub(crate) fn is_of(&self, repository: &Repository, logins: &Logins) -> bool {
        self.room == Room::Whole && self.rule == rule(repository, logins) && self.has(logins)
    }
}

#[cfg(test)]
mod tests;
