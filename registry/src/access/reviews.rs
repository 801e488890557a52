//! Whose a token is, as the cluster says. Each token is asked about once at a time and not again for a short while;
//! tokens themselves are not kept, only a hash of each that nobody can compute without this process's key.
//!
//! Whoever sends many different wrong ones from one address is slowed, as for passwords, see [`super::guesses`]; a
//! token that was right before never is. Memory is bounded, and so is what the cluster is asked at once.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::{
    sync::{Mutex as Turn, OwnedMutexGuard, Semaphore},
    time::Instant,
};

use super::{
    Refusal,
    account::Account,
    guesses::{Guesser, Guesses},
    jwt::Presented,
};

/// How long an answer counts: that is how long a token outlives its revocation at most.
const RIGHT: Duration = Duration::from_secs(60);
const WRONG: Duration = Duration::from_secs(10);
/// Who has just been away is left alone for a moment.
const AWAY: Duration = Duration::from_secs(2);
/// For how long a token may be remembered at all.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Tokens that are remembered.
const MOST: usize = 10_000;
/// Questions at once.
const AT_ONCE: usize = 16;
/// Waiting for a turn included.
const PATIENCE: Duration = Duration::from_secs(5);
/// In place of a username, which has no colon: whoever guesses tokens can choose any.
const GUESSED: &[u8] = b":token";

/// The cluster gave no answer. Why has been logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Away;

/// Who is asked.
#[async_trait::async_trait]
pub(crate) trait Reviewer: std::fmt::Debug + Send + Sync {
    /// The username that a token for this audience stands for; none where it is not good for that.
    async fn review(&self, token: &str, audience: &str) -> Result<Option<String>, Away>;
}

pub(super) struct Reviews {
    reviewer: Arc<dyn Reviewer>,
    key: Hmac<Sha256>,
    places: Semaphore,
    guesses: Guesses,
    known: Mutex<HashMap<[u8; 32], Arc<Turn<Known>>>>,
}

/// What is known of a token. Locked while it is asked about.
struct Known {
    verdict: Option<Verdict>,
    /// When the verdict no longer counts.
    until: Instant,
    /// Whether it was right the last time that there was an answer.
    was_right: bool,
    /// When there is nothing worth knowing any more.
    forget: Instant,
}

#[derive(Clone)]
enum Verdict {
    Right(Account),
    Wrong,
    Away,
}

impl Reviews {
    pub(super) fn new(reviewer: Arc<dyn Reviewer>) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self {
            reviewer,
            key: Hmac::new_from_slice(&key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length")),
            places: Semaphore::new(AT_ONCE),
            guesses: Guesses::default(),
            known: Mutex::default(),
        })
    }

    /// Whose it is.
    pub(super) async fn review(
        self: &Arc<Self>,
        presented: &Presented<'_>,
        audience: &Arc<str>,
        source: IpAddr,
    ) -> Result<Account, Refusal> {
        let end = Instant::now() + presented.left.min(REMEMBERED);
        let turn = self.turn(presented.token, audience, end).ok_or(Refusal::Unchecked)?;
        let known = turn.lock_owned().await;
        if let Some(verdict) = known.counts() {
            return verdict.into();
        }
        let guesser = self.guesses.guesser(source, GUESSED);
        let (this, token, audience) = (Arc::clone(self), presented.token.to_owned(), Arc::clone(audience));
        // Goes on where the client does not, or its guess would be free.
        let asking = tokio::spawn(async move { this.ask(known, &token, &audience, guesser, end).await });
        asking.await.unwrap_or(Err(Refusal::Unchecked))
    }

    async fn ask(
        &self,
        mut known: OwnedMutexGuard<Known>,
        token: &str,
        audience: &str,
        guesser: Guesser,
        end: Instant,
    ) -> Result<Account, Refusal> {
        let asked = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, async {
            let _place = self.places.acquire().await;
            // Many guesses may have come at once.
            match self.guesses.must_wait(guesser, std::time::Instant::now()) {
                Some(wait) if !known.was_right => Err(Refusal::TooManyAttempts(wait)),
                _ => Ok(self.reviewer.review(token, audience).await),
            }
        });
        let verdict = match answer.await {
            Ok(Err(refusal)) => return Err(refusal),
            Ok(Ok(Ok(username))) => {
                username.as_deref().and_then(Account::parse).map_or(Verdict::Wrong, Verdict::Right)
            }
            Ok(Ok(Err(Away))) => Verdict::Away,
            Err(_) => {
                tracing::error!(
                    seconds = PATIENCE.as_secs(),
                    "a ServiceAccount token was not checked in time"
                );
                Verdict::Away
            }
        };
        if matches!(verdict, Verdict::Wrong) {
            self.guesses.wrong(guesser, std::time::Instant::now());
        }
        known.learn(verdict.clone(), asked, end);
        verdict.into()
    }

    /// What is known of a token; none where there is no room to know it.
    fn turn(&self, token: &str, audience: &str, end: Instant) -> Option<Arc<Turn<Known>>> {
        let mut mac = self.key.clone();
        mac.update(audience.as_bytes());
        mac.update(b"\0");
        mac.update(token.as_bytes());
        let name: [u8; 32] = mac.finalize().into_bytes().into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&name) {
            make_room(&mut known);
            if known.len() >= MOST {
                return None;
            }
        }
        let turn = known.entry(name).or_insert_with(|| Arc::new(Turn::new(Known::nothing(end))));
        Some(Arc::clone(turn))
    }
}

/// Takes away what is worth nothing, or what will be first. What is in use stays.
fn make_room(known: &mut HashMap<[u8; 32], Arc<Turn<Known>>>) {
    let now = Instant::now();
    let forget = |turn: &Arc<Turn<Known>>| {
        let idle = Arc::strong_count(turn) == 1;
        turn.try_lock()
            .ok()
            .filter(|_| idle)
            .map(|known| if known.was_right { known.forget } else { known.until })
    };
    known.retain(|_, turn| forget(turn).is_none_or(|end| end > now));
    if known.len() >= MOST {
        let first = known.iter().filter_map(|(name, turn)| Some((forget(turn)?, *name))).min();
        first.and_then(|(_, name)| known.remove(&name));
    }
}

impl Known {
    fn nothing(end: Instant) -> Self {
        Self { verdict: None, until: Instant::now(), was_right: false, forget: end }
    }

    /// What need not be asked again yet.
    fn counts(&self) -> Option<Verdict> {
        self.verdict.clone().filter(|_| Instant::now() < self.until)
    }

    fn learn(&mut self, verdict: Verdict, asked: Instant, end: Instant) {
        let now = Instant::now();
        self.until = match verdict {
            // From when it was asked, and never beyond its own end.
            Verdict::Right(_) => (asked + RIGHT).min(end),
            Verdict::Wrong => now + WRONG,
            Verdict::Away => now + AWAY,
        };
        match verdict {
            Verdict::Right(_) => self.was_right = true,
            Verdict::Wrong => self.was_right = false,
            Verdict::Away => {}
        }
        self.verdict = Some(verdict);
    }
}

impl From<Verdict> for Result<Account, Refusal> {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Right(account) => Ok(account),
            Verdict::Wrong => Err(Refusal::WrongCredentials),
            Verdict::Away => Err(Refusal::Unchecked),
        }
    }
}

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reviews({:?})", self.reviewer)
    }
}

#[cfg(test)]
mod tests;
