//! Somebody who sends requests, and the decision on what they want.

use std::sync::Arc;

use channel::policy::Action;
use oci::RepoName;

use super::{
    Refusal,
    rules::Rules,
    scope::{self, Scopes},
    users::UserId,
};

/// Somebody who proved who they are, or need not. One request long, so that it never outlives a policy.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// There is no policy.
    Everybody,
    /// Decided by the rules; without a user somebody without credentials.
    Somebody { rules: Arc<Rules>, user: Option<UserId>, token: Option<Arc<Scopes>> },
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// To see whether credentials are right.
    Entry,
    /// To list repositories; which ones is decided for each.
    Catalog,
    /// To do something in a repository.
    Action(Action, &'a RepoName),
}

impl Wanted<'_> {
    /// What a token for this is asked for with.
    pub(crate) fn scope(self) -> Option<String> {
        match self {
            Self::Entry => None,
            Self::Catalog => Some(scope::catalog()),
            Self::Action(action, repository) => Some(scope::needed(action, repository)),
        }
    }
}

impl Caller {
    pub(super) fn everybody() -> Self {
        Self(Kind::Everybody)
    }

    pub(super) fn nobody(rules: Arc<Rules>) -> Self {
        Self(Kind::Somebody { rules, user: None, token: None })
    }

    pub(super) fn user(rules: Arc<Rules>, user: UserId) -> Self {
        Self(Kind::Somebody { rules, user: Some(user), token: None })
    }

    pub(super) fn token(rules: Arc<Rules>, user: Option<UserId>, scopes: Scopes) -> Self {
        Self(Kind::Somebody { rules, user, token: Some(Arc::new(scopes)) })
    }

    /// Who they proved to be.
    pub(crate) fn login(&self) -> Option<Arc<str>> {
        match &self.0 {
            Kind::Everybody => None,
            Kind::Somebody { rules, user, .. } => rules.users.name((*user)?),
        }
    }

    /// The decision.
    pub(crate) fn may(&self, action: Action, repository: &RepoName) -> bool {
        self.must(Wanted::Action(action, repository)).is_ok()
    }

    /// The decision, as an error where it is no. The order never lets it depend on what exists.
    pub(crate) fn must(&self, wanted: Wanted<'_>) -> Result<(), Refusal> {
        let Kind::Somebody { rules, user, token } = &self.0 else {
            return Ok(());
        };
        let covered = token.as_ref().is_none_or(|scopes| match wanted {
            Wanted::Entry => true,
            Wanted::Catalog => scopes.cover_catalog(),
            Wanted::Action(action, repository) => scopes.cover(action, repository),
        });
        let allowed = match wanted {
            // Clients ask here whether they should log in, and would never if they were let in without.
            Wanted::Entry | Wanted::Catalog => user.is_some() || token.is_some(),
            Wanted::Action(action, repository) => rules.allow(*user, action, repository),
        };
        match (covered, allowed) {
            (true, true) => Ok(()),
            (false, _) => Err(Refusal::InsufficientScope),
            (true, false) if user.is_some() => Err(Refusal::Denied),
            (true, false) if token.is_some() => Err(Refusal::InsufficientScope),
            (true, false) => Err(Refusal::NoCredentials),
        }
    }

    /// Whether a repository is in the list that they get. The list has a scope of its own, so that a token's other
    /// scopes do not count.
    pub(crate) fn may_list(&self, repository: &RepoName) -> bool {
        self.allows(Action::MetadataRead, repository)
    }

    /// Whether they may learn what is in a repository, by this token or another one.
    pub(crate) fn may_know(&self, repository: &RepoName) -> bool {
        self.allows(Action::ContentRead, repository) || self.allows(Action::MetadataRead, repository)
    }

    fn allows(&self, action: Action, repository: &RepoName) -> bool {
        match &self.0 {
            Kind::Everybody => true,
            Kind::Somebody { rules, user, .. } => rules.allow(*user, action, repository),
        }
    }
}
