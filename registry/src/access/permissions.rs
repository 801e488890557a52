//! A set of actions.

use channel::policy::{Access, Action, Role};

/// What somebody may do in one repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Permissions(u8);

impl Permissions {
    /// All that a rule gives.
    pub(super) fn of(access: &Access) -> Self {
        Self::role(access.role).and(Self::only(&access.actions))
    }

    pub(super) fn role(role: Option<Role>) -> Self {
        Self::only(role.map(Role::actions).unwrap_or_default())
    }

    pub(super) fn only(actions: &[Action]) -> Self {
        Self(actions.iter().fold(0, |bits, &action| bits | bit(action)))
    }

    pub(super) fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether they are an administrator's.
    pub(super) fn all(self) -> bool {
        self.and(Self::role(Some(Role::Admin))) == self
    }

    pub(super) fn has(self, action: Action) -> bool {
        self.0 & bit(action) != 0
    }
}

fn bit(action: Action) -> u8 {
    match action {
        Action::ContentRead => 1,
        Action::ContentWrite => 1 << 1,
        Action::ContentDelete => 1 << 2,
        Action::MetadataRead => 1 << 3,
        Action::MetadataWrite => 1 << 4,
    }
}
