//! Who may do what, decided here and nowhere else, before storage is touched.
//!
//! Every request is one [`Action`] on one repository. Without a policy to wait for everybody may do everything (and
//! the server listens on loopback only, unless told otherwise); with one the policy decides, and before it is there
//! nobody may do anything. Basic authentication and tokens lead to the same decision: a token names somebody and
//! narrows what they may do, never more.
//!
//! What the caller learns never depends on what exists, unless they may read it.

mod account;
mod basic;
mod caller;
mod challenge;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guesses;
mod guests;
mod htpasswd;
mod invalid;
mod jwt;
mod listed;
mod login;
mod passwords;
mod permissions;
mod reviews;
mod rules;
mod scope;
mod tags;
mod token;
mod users;
mod who;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
pub(crate) use channel::policy::Action;
use http::{HeaderMap, header};

pub(crate) use self::{
    basic::Credentials,
    caller::{Caller, Wanted},
    challenge::{BASIC, Origin, ask},
    invalid::InvalidPolicy,
    reviews::{Away, Reviewer},
    rules::Rules,
    scope::Scopes,
};
use self::{
    guesses::Guesses, login::Proved, passwords::Passwords, reviews::Reviews, token::Signer, who::Who,
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
    /// Whether they are right can't be told now.
    Unchecked,
}

/// A token that was given out.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) lifetime: Duration,
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
    /// None where nobody is there to ask about ServiceAccounts' tokens.
    reviews: Option<Arc<Reviews>>,
}

impl Access {
    /// Under a policy that is still to come. Tokens are signed with the key, which all replicas share.
    /// Without a reviewer ServiceAccounts' tokens open nothing.
    pub(crate) fn reviewed_by(
        reviewer: Option<Arc<dyn Reviewer>>,
        token_key: &[u8],
    ) -> Result<Self, getrandom::Error> {
        Ok(Self::Policy(Arc::new(Guard {
            rules: ArcSwapOption::default(),
            signer: Signer::new(token_key),
            passwords: Passwords::new()?,
            guesses: Guesses::default(),
            reviews: reviewer.map(Reviews::new).transpose()?.map(Arc::new),
        })))
    }

    #[cfg(test)]
    pub(crate) fn without_policy(token_key: &[u8]) -> Result<Self, getrandom::Error> {
        Self::reviewed_by(None, token_key)
    }

    /// Replaces the policy that decides; requests under way end under the former one.
    pub(crate) fn install(&self, rules: Rules) {
        if let Self::Policy(guard) = self {
            let rules = Arc::new(rules);
            guard.rules.store(Some(Arc::clone(&rules)));
            rules.announce();
            if rules.accounts.is_some() && guard.reviews.is_none() {
                tracing::warn!(
                    "ServiceAccounts may log in, but nothing here can check them: start with --kubernetes"
                );
            }
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
            return Ok(Caller::new(rules, Who::Nobody));
        };
        if let Some(token) = basic::bearer(header) {
            return self.bearer(rules, token);
        }
        let credentials = basic::credentials(header).ok_or(Refusal::WrongCredentials)?;
        let who = self.login(&rules, &credentials, source).await?.who;
        Ok(Caller::new(rules, who))
    }

    /// Whose token it is, if that is still so.
    fn bearer(&self, rules: Arc<Rules>, token: &str) -> Result<Caller, Refusal> {
        let claims = self.signer.check(token, SystemTime::now()).ok_or(Refusal::InvalidToken)?;
        let who = match &claims.subject {
            None => Who::Nobody,
            Some(subject) => rules.holder(subject).ok_or(Refusal::InvalidToken)?,
        };
        Ok(Caller::token(rules, who, Scopes::trusted(claims.scope)))
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
        let proved = match credentials {
            None => Proved::nobody(),
            Some(credentials) => self.login(&rules, &credentials, source).await?,
        };
        let now = SystemTime::now();
        let lifetime = token::lifetime(proved.until, now);
        let token = self.signer.sign(proved.subject(&rules), scopes.as_str(), now + lifetime);
        Ok(Issued { token, lifetime, login: rules.name(&proved.who) })
    }
}

#[cfg(test)]
mod tests;
