//! Who may do what, decided here and nowhere else, before storage is touched.
//!
//! Every request is one [`Action`] on one repository. Without a channel everybody may do everything (and the server
//! listens on loopback only, unless told otherwise); with one the operator's policy decides, and before there is a
//! policy nobody may do anything.

mod basic;
mod rules;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use oci::RepoName;

pub(crate) use self::rules::{InvalidPolicy, Rules};

/// What a request wants of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Read blobs and manifests.
    ContentRead,
    /// Push blobs and manifests.
    ContentWrite,
    /// Delete blobs, manifests and tags.
    ContentDelete,
    /// List tags and referrers, and see the repository in the catalog.
    MetadataRead,
    /// Change what is said of content; nothing does so yet.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "repositories get properties that can be changed later")
    )]
    MetadataWrite,
}

/// What every login of one kind may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    Everything,
    Reading,
}

/// Somebody who proved who they are, or need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller(Grant);

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No credentials, or wrong ones: ask for some.
    Unauthorized,
    /// Somebody known, without the right.
    Denied,
}

/// Decides. Clones decide the same.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// Everybody may do everything.
    Open,
    /// The operator's policy decides.
    Policy(Arc<ArcSwapOption<Rules>>),
}

impl Access {
    /// Under a policy that is still to come.
    pub(crate) fn without_policy() -> Self {
        Self::Policy(Arc::default())
    }

    /// Replaces the policy that decides; requests under way end under the former one.
    pub(crate) fn install(&self, rules: Rules) {
        if let Self::Policy(current) = self {
            current.store(Some(Arc::new(rules)));
        }
    }

    /// Names the policy that decides.
    pub(crate) fn policy_revision(&self) -> Option<String> {
        match self {
            Self::Open => None,
            Self::Policy(current) => current.load().as_ref().map(|rules| rules.revision().to_owned()),
        }
    }

    /// Whether anybody can get in.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Open => true,
            Self::Policy(current) => current.load().is_some(),
        }
    }

    /// Who sends these headers.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let Self::Policy(current) = self else {
            return Ok(Caller(Grant::Everything));
        };
        let credentials = basic::credentials(headers).ok_or(Refusal::Unauthorized)?;
        let current = current.load();
        let rules = current.as_ref().ok_or(Refusal::Unauthorized)?;
        rules.login(&credentials).map(Caller).ok_or(Refusal::Unauthorized)
    }
}

impl Caller {
    /// The decision.
    pub(crate) fn may(self, action: Action, _repository: &RepoName) -> bool {
        match self.0 {
            Grant::Everything => true,
            Grant::Reading => matches!(action, Action::ContentRead | Action::MetadataRead),
        }
    }

    /// The decision, as an error where it is no.
    pub(crate) fn must(self, action: Action, repository: &RepoName) -> Result<(), Refusal> {
        if self.may(action, repository) { Ok(()) } else { Err(Refusal::Denied) }
    }
}

#[cfg(test)]
mod tests {
    use channel::policy::{Login, Policy, Role, SecretHash};
    use http::{HeaderValue, header};
    use rstest::rstest;

    use super::*;

    fn access() -> Access {
        let login = |username: &str, secrets: &[&[u8]], role| Login {
            username: username.into(),
            secrets: secrets.iter().map(|secret| SecretHash::of(secret)).collect(),
            role,
        };
        let access = Access::without_policy();
        let policy = Policy {
            logins: vec![
                login("admin", &[b"old", b"new"], Role::Admin),
                login("reader", &[b"other"], Role::Reader),
            ],
        };
        access.install(Rules::new(&policy).unwrap());
        access
    }

    fn headers(credentials: &str) -> HeaderMap {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Basic {encoded}")).unwrap());
        headers
    }

    #[rstest]
    #[case("admin:old", Ok(Caller(Grant::Everything)))]
    #[case("admin:new", Ok(Caller(Grant::Everything)))]
    #[case("reader:other", Ok(Caller(Grant::Reading)))]
    #[case("reader:old", Err(Refusal::Unauthorized))]
    #[case("admin:other", Err(Refusal::Unauthorized))]
    #[case("admin:", Err(Refusal::Unauthorized))]
    #[case("nobody:old", Err(Refusal::Unauthorized))]
    #[case("Admin:old", Err(Refusal::Unauthorized))]
    fn logins(#[case] credentials: &str, #[case] expected: Result<Caller, Refusal>) {
        assert_eq!(access().authenticate(&headers(credentials)), expected);
    }

    #[test]
    fn nobody_gets_in_without_credentials_or_without_a_policy() {
        assert_eq!(access().authenticate(&HeaderMap::new()), Err(Refusal::Unauthorized));
        let access = Access::without_policy();
        assert_eq!(access.authenticate(&headers("admin:old")), Err(Refusal::Unauthorized));
        assert!(!access.is_ready());
    }

    #[rstest]
    #[case(Action::ContentRead, true)]
    #[case(Action::MetadataRead, true)]
    #[case(Action::ContentWrite, false)]
    #[case(Action::ContentDelete, false)]
    #[case(Action::MetadataWrite, false)]
    fn what_a_reader_may(#[case] action: Action, #[case] allowed: bool) {
        let repository = "a/b".parse().unwrap();
        assert_eq!(Caller(Grant::Reading).may(action, &repository), allowed);
        assert!(Caller(Grant::Everything).may(action, &repository));
    }
}
