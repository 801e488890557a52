//! Somebody who sends requests, and the decision on what they want.

use std::sync::Arc;

use channel::policy::Action;
use oci::{RepoName, Tag};

use super::{
    Refusal,
    rules::Rules,
    scope::{self, Scopes},
    who::Who,
};
use crate::storage::Stays;

/// Somebody who proved who they are, or need not. One request long, so that it never outlives a policy.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// There is no policy.
    Everybody,
    /// Decided by the rules.
    Somebody { rules: Arc<Rules>, who: Who, token: Option<Arc<Scopes>> },
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// To see whether credentials are right.
    Entry,
    /// To list repositories; which ones is decided for each.
    Catalog,
    /// To follow what happens, as a login; of which repositories is decided for each.
    Feed,
    /// To do something in a repository.
    Action(Action, &'a RepoName),
    /// To push a manifest, or at least to set tags on one that is there.
    Manifest(&'a RepoName),
}

impl Wanted<'_> {
    /// What a token for this is asked for with.
    pub(crate) fn scope(self) -> Option<String> {
        match self {
            Self::Entry => None,
            Self::Catalog | Self::Feed => Some(scope::catalog()),
            Self::Action(action, repository) => Some(scope::needed(action, repository)),
            Self::Manifest(repository) => Some(scope::needed(Action::ContentWrite, repository)),
        }
    }
}

impl Caller {
    pub(super) fn everybody() -> Self {
        Self(Kind::Everybody)
    }

    pub(super) fn new(rules: Arc<Rules>, who: Who) -> Self {
        Self(Kind::Somebody { rules, who, token: None })
    }

    /// By a token that was given to them.
    pub(super) fn token(rules: Arc<Rules>, who: Who, scopes: Scopes) -> Self {
        Self(Kind::Somebody { rules, who, token: Some(Arc::new(scopes)) })
    }

    /// Who they proved to be.
    pub(crate) fn login(&self) -> Option<Arc<str>> {
        match &self.0 {
            Kind::Everybody => None,
            Kind::Somebody { rules, who, .. } => rules.name(who),
        }
    }

    /// The decision.
    pub(crate) fn may(&self, action: Action, repository: &RepoName) -> bool {
        self.must(Wanted::Action(action, repository)).is_ok()
    }

    /// The decision, as an error where it is no. The order never lets it depend on what exists.
    pub(crate) fn must(&self, wanted: Wanted<'_>) -> Result<(), Refusal> {
        let Kind::Somebody { rules, who, token } = &self.0 else {
            return Ok(());
        };
        let covered = token.as_ref().is_none_or(|scopes| match wanted {
            Wanted::Entry => true,
            Wanted::Catalog | Wanted::Feed => scopes.cover_catalog(),
            Wanted::Action(action, repository) => scopes.cover(action, repository),
            Wanted::Manifest(repository) => scopes.cover(Action::ContentWrite, repository),
        });
        let allowed = match wanted {
            // Clients ask here whether they should log in, and would never if they were let in without.
            Wanted::Entry => !matches!(who, Who::Nobody) || token.is_some(),
            Wanted::Catalog => who.is_known() || (matches!(who, Who::Nobody) && token.is_some()),
            // Each who follows costs something for as long, and there are limits for each login.
            Wanted::Feed => who.is_known(),
            Wanted::Action(action, repository) => rules.allow(who, action, repository),
            Wanted::Manifest(repository) => {
                let may = |action| rules.allow(who, action, repository);
                // Whether it worked tells what is there, which is for those who may read.
                may(Action::ContentWrite) || (may(Action::MetadataWrite) && may(Action::ContentRead))
            }
        };
        match (covered, allowed) {
            (true, true) => Ok(()),
            (false, _) => Err(Refusal::InsufficientScope),
            (true, false) if who.is_known() => Err(Refusal::Denied),
            (true, false) if token.is_some() => Err(Refusal::InsufficientScope),
            (true, false) => Err(Refusal::NoCredentials),
        }
    }

    /// Whether a repository is in the list that they get. The list has a scope of its own, so that a token's other
    /// scopes do not count.
    pub(crate) fn may_list(&self, repository: &RepoName) -> bool {
        match &self.0 {
            Kind::Everybody => true,
            Kind::Somebody { rules, who, .. } => rules.list(who, repository),
        }
    }

    /// The first text from `from` on, in bytewise order, that is in that list if it is a repository's name. Takes no longer
    /// where there are many of which they may list few.
    pub(crate) fn next_listed(&self, from: &str) -> Option<String> {
        match &self.0 {
            Kind::Everybody => Some(from.to_owned()),
            Kind::Somebody { rules, who, .. } => rules.next_listed(who, from),
        }
    }

    /// Whether they may learn what is in a repository, by this token or another one.
    pub(crate) fn may_know(&self, repository: &RepoName) -> bool {
        self.allows(Action::ContentRead, repository) || self.allows(Action::MetadataRead, repository)
    }

    /// Whether they must neither move a tag that is there nor take it away, whatever their token is for: there is no
    /// scope for that.
    pub(crate) fn must_keep(&self, repository: &RepoName, tag: &Tag) -> bool {
        match &self.0 {
            Kind::Everybody => false,
            Kind::Somebody { rules, who, .. } => rules.is_fixed(who, repository, tag),
        }
    }

    /// Which tags must stay as far as they go, and what these point to.
    pub(crate) fn kept(&self, repository: &RepoName) -> Stays {
        let (caller, repository) = (self.clone(), repository.clone());
        Arc::new(move |tag| caller.must_keep(&repository, tag))
    }

    fn allows(&self, action: Action, repository: &RepoName) -> bool {
        match &self.0 {
            Kind::Everybody => true,
            Kind::Somebody { rules, who, .. } => rules.allow(who, action, repository),
        }
    }
}
