//! Whom credentials open: a login of the policy by its secret or password, or a ServiceAccount of the cluster by a
//! token of its own.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    CROWDED, Guard, Refusal,
    account::Accounts,
    basic::Credentials,
    guesses::Guesser,
    guests::Guest,
    jwt::{self, Presented},
    rules::Rules,
    token::Subject,
    users::{self, Attempt, Fingerprint, UserId},
    who::Who,
};

/// What credentials proved.
pub(super) struct Proved {
    pub(super) who: Who,
    /// By what; none for nobody.
    credential: Option<Fingerprint>,
    /// When that ends, where it does.
    pub(super) until: Option<SystemTime>,
}

impl Proved {
    fn user(user: UserId, credential: Fingerprint) -> Self {
        Self { who: Who::User(user), credential: Some(credential), until: None }
    }

    fn guest(guest: Guest, credential: Fingerprint) -> Self {
        Self { who: Who::Guest(guest), credential: Some(credential), until: None }
    }

    pub(super) fn nobody() -> Self {
        Self { who: Who::Nobody, credential: None, until: None }
    }

    /// Whom a token of this registry is for.
    pub(super) fn subject(&self, rules: &Rules) -> Option<Subject> {
        let (user, credential) = rules.name(&self.who).zip(self.credential)?;
        Some(Subject { user: user.as_ref().to_owned(), credential: credential.to_hex() })
    }
}

impl Guard {
    /// Who these credentials open.
    pub(super) async fn login(
        &self,
        rules: &Rules,
        credentials: &Credentials,
        source: IpAddr,
    ) -> Result<Proved, Refusal> {
        let attempt = rules.users.attempt(credentials);
        if !matches!(attempt, Attempt::Right(..))
            && let Some((guest, fingerprint)) = rules.guests.attempt(credentials)
        {
            return Ok(Proved::guest(guest, fingerprint));
        }
        let guesser = self.guesses.guesser(source, &credentials.username);
        let shown = rules.accounts.as_ref().and_then(|accounts| {
            let now = SystemTime::now();
            Some((accounts, jwt::presented(&credentials.secret, &accounts.audience, now)?))
        });
        match (attempt, shown) {
            (Attempt::Right(user, fingerprint), _) => Ok(Proved::user(user, fingerprint)),
            (_, Some((accounts, presented))) => {
                // What belongs to a login opens nothing else. The cluster is asked all the same: how long it takes,
                // and what happens while it is away, must not tell which logins there are.
                let proved = self.account(accounts, &presented, guesser, source).await?;
                let username = std::str::from_utf8(&credentials.username).ok();
                let taken = username.is_some_and(|name| rules.users.find(name).is_some());
                if taken && !matches!(proved.who, Who::Nobody) { self.wrong(guesser) } else { Ok(proved) }
            }
            (Attempt::Wrong, None) => self.slow_down(guesser).and_then(|()| self.wrong(guesser)),
            (Attempt::Password(user, hash), None) => {
                self.password(guesser, source, user, hash, &credentials.secret).await
            }
        }
    }

    /// Who a token proves to be. A node's that proves nothing counts as if it had not been sent: containerd has the
    /// pod's own credentials too, and goes on with them where it is asked for some, but not after any other refusal.
    async fn account(
        &self,
        accounts: &Accounts,
        presented: &Presented<'_>,
        guesser: Guesser,
        source: IpAddr,
    ) -> Result<Proved, Refusal> {
        let is_node = accounts.is_node(&presented.claimed);
        let until = SystemTime::now().checked_add(presented.left);
        let reviewed = match &self.reviews {
            _ if presented.left.is_zero() => None,
            Some(reviews) => Some(reviews.review(presented, &accounts.audience, source).await),
            None => {
                tracing::warn!(
                    "a ServiceAccount's token was refused, because nothing here can check it: start with --kubernetes"
                );
                None
            }
        };
        match reviewed {
            Some(Ok(account)) => {
                Ok(Proved { who: accounts.who(account), credential: Some(accounts.credential()), until })
            }
            _ if is_node => Ok(Proved::nobody()),
            Some(Err(refusal)) => Err(refusal),
            None => self.slow_down(guesser).and_then(|()| self.wrong(guesser)),
        }
    }

    /// Without a user the hash is only there to take the time.
    async fn password(
        &self,
        guesser: Guesser,
        source: IpAddr,
        user: Option<UserId>,
        hash: Arc<str>,
        secret: &[u8],
    ) -> Result<Proved, Refusal> {
        let remembered = |user: UserId| Proved::user(user, users::fingerprint(hash.as_bytes()));
        if let Some(user) = user.filter(|_| self.passwords.remember(&hash, secret)) {
            return Ok(remembered(user));
        }
        self.slow_down(guesser)?;
        let place = self.passwords.enter(source).await.ok_or(Refusal::TooManyAttempts(CROWDED))?;
        // Others may have come to a result while this one waited.
        if let Some(user) = user.filter(|_| self.passwords.remember(&hash, secret)) {
            return Ok(remembered(user));
        }
        self.slow_down(guesser)?;
        let right = self.passwords.check(place, Arc::clone(&hash), secret, user.is_some()).await;
        match user.filter(|_| right) {
            Some(user) => Ok(remembered(user)),
            None => self.wrong(guesser),
        }
    }

    fn slow_down(&self, guesser: Guesser) -> Result<(), Refusal> {
        match self.guesses.must_wait(guesser, Instant::now()) {
            None => Ok(()),
            Some(wait) => Err(Refusal::TooManyAttempts(wait)),
        }
    }

    fn wrong(&self, guesser: Guesser) -> Result<Proved, Refusal> {
        self.guesses.wrong(guesser, Instant::now());
        Err(Refusal::WrongCredentials)
    }
}
