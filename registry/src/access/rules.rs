//! A policy, checked and made ready for fast and even answers: every login attempt costs the same, whether the
//! username exists or not.

use std::collections::HashSet;

use channel::policy::{Login, Policy, Role, SecretHash};
use subtle::{Choice, ConstantTimeEq as _};

use super::{Grant, basic::Credentials};

/// More logins than a registry has any use for would make every request slow.
const MAX_LOGINS: usize = 10_000;
/// While a rotation overlaps there are two; more than this is a mistake.
const MAX_SECRETS: usize = 16;

/// Why a policy is refused. Each is a sentence for who wrote it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPolicy {
    #[error("the policy can't be read: {0}")]
    Json(String),
    #[error("the policy has {0} logins, at most {MAX_LOGINS} are allowed")]
    TooManyLogins(usize),
    #[error("username `{0}` can't be used: it must not be empty nor contain a colon or control characters")]
    Username(String),
    #[error("username `{0}` is there twice")]
    Duplicate(String),
    #[error("username `{0}` has no secret: leave the login out instead")]
    NoSecret(String),
    #[error("username `{0}` has {1} secrets, at most {MAX_SECRETS} are allowed")]
    TooManySecrets(String, usize),
}

/// A policy in force.
#[derive(Debug)]
pub(crate) struct Rules {
    revision: String,
    candidates: Vec<Candidate>,
}

/// One username with one secret.
#[derive(Debug)]
struct Candidate {
    username: SecretHash,
    secret: SecretHash,
    grant: Grant,
}

impl Rules {
    pub(crate) fn new(policy: &Policy) -> Result<Self, InvalidPolicy> {
        if policy.logins.len() > MAX_LOGINS {
            return Err(InvalidPolicy::TooManyLogins(policy.logins.len()));
        }
        let mut seen = HashSet::new();
        for login in &policy.logins {
            check(login)?;
            if !seen.insert(&login.username) {
                return Err(InvalidPolicy::Duplicate(login.username.clone()));
            }
        }
        let candidates = policy.logins.iter().flat_map(candidates).collect();
        Ok(Self { revision: policy.revision(), candidates })
    }

    pub(crate) fn revision(&self) -> &str {
        &self.revision
    }

    /// What these credentials open. Looks at every candidate and at every byte, found or not.
    pub(super) fn login(&self, credentials: &Credentials) -> Option<Grant> {
        // Hashing makes everything 32 bytes, so that no comparison shows a length.
        let username = SecretHash::of(&credentials.username);
        let secret = SecretHash::of(&credentials.secret);
        let mut opened = None;
        for candidate in &self.candidates {
            let matches = equal(&candidate.username, &username) & equal(&candidate.secret, &secret);
            if bool::from(matches) {
                opened = Some(candidate.grant);
            }
        }
        opened
    }
}

fn equal(a: &SecretHash, b: &SecretHash) -> Choice {
    a.as_bytes().ct_eq(b.as_bytes())
}

fn candidates(login: &Login) -> impl Iterator<Item = Candidate> {
    let username = SecretHash::of(login.username.as_bytes());
    let grant = match login.role {
        Role::Reader => Grant::Reading,
        Role::Admin => Grant::Everything,
    };
    login.secrets.iter().map(move |&secret| Candidate { username, secret, grant })
}

fn check(login: &Login) -> Result<(), InvalidPolicy> {
    let Login { username, secrets, role: _ } = login;
    if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) {
        return Err(InvalidPolicy::Username(username.escape_debug().to_string()));
    }
    match secrets.len() {
        0 => Err(InvalidPolicy::NoSecret(username.clone())),
        1..=MAX_SECRETS => Ok(()),
        many => Err(InvalidPolicy::TooManySecrets(username.clone(), many)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(username: &str, secrets: usize) -> Login {
        let secrets = (0..secrets).map(|n| SecretHash::of(n.to_string().as_bytes())).collect();
        Login { username: username.into(), secrets, role: Role::Reader }
    }

    fn refusal(logins: Vec<Login>) -> String {
        Rules::new(&Policy { logins }).unwrap_err().to_string()
    }

    #[test]
    fn refusals_say_why() {
        assert!(refusal(vec![login("", 1)]).contains("must not be empty"));
        assert!(refusal(vec![login("a:b", 1)]).contains("`a:b`"));
        assert!(refusal(vec![login("a\n", 1)]).contains(r"`a\n`"));
        assert!(refusal(vec![login("a", 1), login("b", 1), login("a", 1)]).contains("`a` is there twice"));
        assert!(refusal(vec![login("a", 0)]).contains("no secret"));
        assert!(refusal(vec![login("a", 17)]).contains("17 secrets"));
        assert!(refusal(vec![login("a", 1); 10_001]).contains("10001 logins"));
    }

    #[test]
    fn an_empty_policy_lets_nobody_in() {
        let rules = Rules::new(&Policy::default()).unwrap();
        assert_eq!(rules.login(&Credentials { username: vec![], secret: vec![] }), None);
    }
}
