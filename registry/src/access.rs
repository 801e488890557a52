//! Who may do what, decided here and nowhere else, before storage is touched.
//!
//! Every request is one [`Action`] on one repository. Without a policy to wait for everybody may do everything (and
//! the server listens on loopback only, unless told otherwise); with one the policy decides, and before it is there
//! nobody may do anything. Basic authentication and tokens lead to the same decision: a token names somebody and
//! narrows what they may do, never more.
//!
//! What the caller learns never depends on what exists, unless they may read it.

mod basic;
mod caller;
mod challenge;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guesses;
mod htpasswd;
mod invalid;
mod passwords;
mod paths;
mod permissions;
mod rules;
mod scope;
mod token;
mod users;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
pub(crate) use channel::policy::Action;
use http::{HeaderMap, header};

pub(crate) use self::{
    basic::Credentials,
    caller::{Caller, Wanted},
    challenge::{BASIC, Origin, ask},
    invalid::InvalidPolicy,
    rules::Rules,
    scope::Scopes,
    token::LIFETIME as TOKEN_LIFETIME,
};
use self::{
    guesses::Guesses,
    passwords::Passwords,
    token::{Signer, Subject},
    users::{Attempt, Fingerprint, UserId},
};

/// Where too many passwords are being checked at once, it is worth trying again after this.
const CROWDED: Duration = Duration::from_secs(2);

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No credentials: ask for some.
    NoCredentials,
    /// Wrong ones, or some that are no longer right.
    WrongCredentials,
    /// A token whose time is over, that was revoked, or that never was one.
    InvalidToken,
    /// A token that is not for this.
    InsufficientScope,
    /// Somebody known, without the right.
    Denied,
    /// Too many wrong attempts.
    TooManyAttempts(Duration),
}

/// A token that was given out.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    /// Who got it; nobody where there were no credentials.
    pub(crate) login: Option<Arc<str>>,
}

/// Decides. Clones decide the same.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// Everybody may do everything.
    Open,
    /// A policy decides.
    Policy(Arc<Guard>),
}

/// What a policy needs to decide.
#[derive(Debug)]
pub(crate) struct Guard {
    rules: ArcSwapOption<Rules>,
    signer: Signer,
    passwords: Passwords,
    guesses: Guesses,
}

impl Access {
    /// Under a policy that is still to come. Tokens are signed with the key, which all replicas share.
    pub(crate) fn without_policy(token_key: &[u8]) -> Result<Self, getrandom::Error> {
        Ok(Self::Policy(Arc::new(Guard {
            rules: ArcSwapOption::default(),
            signer: Signer::new(token_key),
            passwords: Passwords::new()?,
            guesses: Guesses::default(),
        })))
    }

    /// Replaces the policy that decides; requests under way end under the former one.
    pub(crate) fn install(&self, rules: Rules) {
        if let Self::Policy(guard) = self {
            rules.announce();
            guard.rules.store(Some(Arc::new(rules)));
        }
    }

    /// Names the policy that decides.
    pub(crate) fn policy_revision(&self) -> Option<String> {
        match self {
            Self::Open => None,
            Self::Policy(guard) => guard.rules.load().as_ref().map(|rules| rules.revision().to_owned()),
        }
    }

    /// Why logins of that policy do not count, for at most so many of them.
    pub(crate) fn left_out(&self, most: usize) -> Vec<String> {
        match self {
            Self::Open => Vec::new(),
            Self::Policy(guard) => {
                guard.rules.load().as_ref().map(|rules| rules.left_out(most)).unwrap_or_default()
            }
        }
    }

    /// Whether anybody can get in.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Open => true,
            Self::Policy(guard) => guard.rules.load().is_some(),
        }
    }

    /// Who sends these headers from there.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap, source: IpAddr) -> Result<Caller, Refusal> {
        match self {
            Self::Open => Ok(Caller::everybody()),
            Self::Policy(guard) => guard.authenticate(headers, source).await,
        }
    }

    /// A token for who shows these credentials, or those in the headers, or none. None where there is no policy and
    /// so no use for one.
    pub(crate) async fn issue_token(
        &self,
        credentials: Option<Credentials>,
        headers: &HeaderMap,
        source: IpAddr,
        scopes: &Scopes,
    ) -> Option<Result<Issued, Refusal>> {
        match self {
            Self::Open => None,
            Self::Policy(guard) => Some(guard.issue_token(credentials, headers, source, scopes).await),
        }
    }
}

impl Guard {
    fn rules(&self) -> Result<Arc<Rules>, Refusal> {
        self.rules.load_full().ok_or(Refusal::NoCredentials)
    }

    async fn authenticate(&self, headers: &HeaderMap, source: IpAddr) -> Result<Caller, Refusal> {
        let rules = self.rules()?;
        let Some(header) = headers.get(header::AUTHORIZATION) else {
            return Ok(Caller::nobody(rules));
        };
        if let Some(token) = basic::bearer(header) {
            return self.bearer(rules, token);
        }
        let credentials = basic::credentials(header).ok_or(Refusal::WrongCredentials)?;
        let (user, _) = self.login(&rules, &credentials, source).await?;
        Ok(Caller::user(rules, user))
    }

    /// Whose token it is, if that is still so.
    fn bearer(&self, rules: Arc<Rules>, token: &str) -> Result<Caller, Refusal> {
        let claims = self.signer.check(token, SystemTime::now()).ok_or(Refusal::InvalidToken)?;
        let user = match &claims.subject {
            None => None,
            Some(Subject { user, credential }) => {
                let user = rules.users.find(user).zip(Fingerprint::from_hex(credential));
                let user = user.filter(|(user, credential)| rules.users.still_has(*user, *credential));
                Some(user.ok_or(Refusal::InvalidToken)?.0)
            }
        };
        Ok(Caller::token(rules, user, Scopes::trusted(claims.scope)))
    }

    async fn issue_token(
        &self,
        credentials: Option<Credentials>,
        headers: &HeaderMap,
        source: IpAddr,
        scopes: &Scopes,
    ) -> Result<Issued, Refusal> {
        let rules = self.rules()?;
        // Some clients send both, and then mean what is in the form.
        let credentials = match (credentials, headers.get(header::AUTHORIZATION)) {
            (Some(credentials), _) => Some(credentials),
            (None, Some(header)) => Some(basic::credentials(header).ok_or(Refusal::WrongCredentials)?),
            (None, None) => None,
        };
        let (login, subject) = match credentials {
            None => (None, None),
            Some(credentials) => {
                let (user, fingerprint) = self.login(&rules, &credentials, source).await?;
                // Whoever was let in has a name.
                let login = rules.users.name(user).ok_or(Refusal::WrongCredentials)?;
                let subject = Subject { user: login.as_ref().to_owned(), credential: fingerprint.to_hex() };
                (Some(login), Some(subject))
            }
        };
        Ok(Issued { token: self.signer.sign(subject, scopes.as_str(), SystemTime::now()), login })
    }

    /// Who these credentials open.
    async fn login(
        &self,
        rules: &Rules,
        credentials: &Credentials,
        source: IpAddr,
    ) -> Result<(UserId, Fingerprint), Refusal> {
        let guesser = self.guesses.guesser(source, &credentials.username);
        let slow_down = || match self.guesses.must_wait(guesser, Instant::now()) {
            None => Ok(()),
            Some(wait) => Err(Refusal::TooManyAttempts(wait)),
        };
        let wrong = || {
            self.guesses.wrong(guesser, Instant::now());
            Err(Refusal::WrongCredentials)
        };
        let (user, hash) = match rules.users.attempt(credentials) {
            Attempt::Right(user, fingerprint) => return Ok((user, fingerprint)),
            Attempt::Wrong => return slow_down().and_then(|()| wrong()),
            Attempt::Password(user, hash) => (user, hash),
        };
        let secret = &credentials.secret;
        let remembered = |user: UserId| (user, users::fingerprint(hash.as_bytes()));
        if let Some(user) = user.filter(|_| self.passwords.remember(&hash, secret)) {
            return Ok(remembered(user));
        }
        slow_down()?;
        let place = self.passwords.enter(source).await.ok_or(Refusal::TooManyAttempts(CROWDED))?;
        // Others may have come to a result while this one waited.
        if let Some(user) = user.filter(|_| self.passwords.remember(&hash, secret)) {
            return Ok(remembered(user));
        }
        slow_down()?;
        let right = self.passwords.check(place, Arc::clone(&hash), secret, user.is_some()).await;
        match user.filter(|_| right) {
            Some(user) => Ok(remembered(user)),
            None => wrong(),
        }
    }
}

#[cfg(test)]
mod tests;
