//! The logins that a Repository's Secrets open.

use channel::policy::Login;
use crds::{Repository, repository::AccessSecret};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kube::ResourceExt as _;

use super::{
    credential::Credential,
    placement::{Placement, secrets},
};
use crate::{
    desired::policy::{DeliveredLogin, Logins},
    keys::RegistryKey,
};

/// Those of the Repository's copies that are as we made them, lie where `receives` tells that they should, and are not on their way
/// out. The role is for the Repository's path only, so it is none of the login's own.
pub(super) fn logins<'a>(
    repository: &Repository,
    copies: impl IntoIterator<Item = &'a Secret>,
    receives: impl Fn(&AccessSecret, &str) -> bool,
    key: &RegistryKey,
    now: Timestamp,
) -> Logins {
    let mut logins: Logins = copies
        .into_iter()
        .filter(|copy| copy.metadata.deletion_timestamp.is_none())
        .filter_map(|copy| {
            let (namespace, name) = (copy.namespace()?, copy.name_any());
            let (kind, secret) = secrets(repository).find(|(_, secret)| secret.name == name)?;
            let placement = Placement { repository, kind, secret, namespace: &namespace };
            let credential = Credential::read(copy, &placement, key)?;
            receives(secret, &namespace).then(|| login(&placement, &credential, now))
        })
        .collect();
    // In one order, so that the same copies make the same policy.
    logins.sort_by(|one, other| one.login.username.cmp(&other.login.username));
    logins
}

/// What a copy opens that holds this.
pub(super) fn login(placement: &Placement, credential: &Credential, now: Timestamp) -> DeliveredLogin {
    let (secrets, ends) = (credential.accepted(now), credential.ends(now));
    DeliveredLogin {
        login: Login { username: placement.username(), secrets, ends, role: None },
        role: placement.kind.role(),
        announced: credential.announced(),
    }
}
