//! Who asks, as a policy knows them.

use super::{account::Account, guests::Guest, users::UserId};

/// What a request's sender was taken for.
#[derive(Clone, Debug)]
pub(super) enum Who {
    /// Somebody without credentials.
    Nobody,
    /// A login of the policy.
    User(UserId),
    /// A login of a registry that this one stands in for.
    Guest(Guest),
    /// A ServiceAccount of the cluster.
    Account(Account),
    /// A node of the cluster. It reads what nodes may read; what it may not do is refused as if it were nobody, so
    /// that a client that has other credentials too goes on with them.
    Node(Account),
}

impl Who {
    /// Whether it is known who it is: then a refusal is final.
    pub(super) fn is_known(&self) -> bool {
        matches!(self, Self::User(_) | Self::Guest(_) | Self::Account(_))
    }
}
