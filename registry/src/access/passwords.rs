//! Passwords that people chose: bcrypt is slow on purpose, so it runs off the runtime, few at once, and what was right
//! is remembered for a while, under a hash that nobody can compute without this process's key.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Computations at once; more would take the cores from those who transfer.
const AT_ONCE: usize = 2;
/// Attempts that wait for their turn; more are sent away.
const WAITING: usize = 64;
/// Of one address, so that it keeps nobody else out.
const WAITING_OF_ONE: usize = WAITING / 2;
/// Passwords that are remembered.
const REMEMBERED: usize = 1024;
/// For how long.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

pub(super) struct Passwords {
    places: Arc<Semaphore>,
    queue: Semaphore,
    crowds: Arc<Crowds>,
    key: Hmac<Sha256>,
    right: Mutex<HashMap<[u8; 32], Instant>>,
}

/// A place to compute in.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _crowd: OneOf,
}

/// How many wait or compute of each address.
type Crowds = Mutex<HashMap<IpAddr, usize>>;

/// One who waits or computes.
struct OneOf {
    crowds: Arc<Crowds>,
    address: IpAddr,
}

impl OneOf {
    /// None where there are enough of that address.
    fn join(crowds: &Arc<Crowds>, address: IpAddr) -> Option<Self> {
        let mut all = crowds.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = all.entry(address).or_default();
        if *crowd >= WAITING_OF_ONE {
            return None;
        }
        *crowd += 1;
        drop(all);
        Some(Self { crowds: Arc::clone(crowds), address })
    }
}

impl Drop for OneOf {
    fn drop(&mut self) {
        let mut all = self.crowds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(crowd) = all.get_mut(&self.address) {
            *crowd -= 1;
            if *crowd == 0 {
                all.remove(&self.address);
            }
        }
    }
}

impl Passwords {
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Semaphore::new(WAITING),
            crowds: Arc::default(),
            key: Hmac::new_from_slice(&key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length")),
            right: Mutex::default(),
        })
    }

    /// Whether this was right a short while ago.
    pub(super) fn remember(&self, hash: &str, secret: &[u8]) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(&self.name(hash, secret)).is_some_and(|since| since.elapsed() < LIFETIME)
    }

    /// Waits for a turn; none where too many wait already, from everywhere or from there.
    pub(super) async fn enter(&self, source: IpAddr) -> Option<Place> {
        let crowd = OneOf::join(&self.crowds, channel::tls::network(source))?;
        let _waiting = self.queue.try_acquire().ok()?;
        let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some(Place { _permit: permit, _crowd: crowd })
    }

    /// Computes. `keep` says whether a right one is remembered.
    pub(super) async fn check(&self, place: Place, hash: Arc<str>, secret: &[u8], keep: bool) -> bool {
        let name = self.name(&hash, secret);
        let secret = secret.to_vec();
        let computed = tokio::task::spawn_blocking(move || {
            // Held until the computation ends, also where nobody waits for it any more.
            let _place = place;
            bcrypt::verify(&secret, &hash).unwrap_or(false)
        });
        let right = computed.await.unwrap_or(false);
        if right && keep {
            self.keep(name);
        }
        right
    }

    fn keep(&self, name: [u8; 32]) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= REMEMBERED {
            right.retain(|_, since| since.elapsed() < LIFETIME);
        }
        if right.len() >= REMEMBERED
            && let Some(&oldest) = right.iter().min_by_key(|(_, since)| **since).map(|(name, _)| name)
        {
            right.remove(&oldest);
        }
        right.insert(name, Instant::now());
    }

    /// With the hash in it, a password that was changed is another one.
    fn name(&self, hash: &str, secret: &[u8]) -> [u8; 32] {
        let mut mac = self.key.clone();
        mac.update(hash.as_bytes());
        mac.update(b"\0");
        mac.update(secret);
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: usize) -> IpAddr {
        [10, 0, 0, u8::try_from(last).unwrap()].into()
    }

    async fn check(passwords: &Passwords, hash: &str, secret: &[u8]) -> bool {
        let place = passwords.enter(address(0)).await.unwrap();
        passwords.check(place, hash.into(), secret, true).await
    }

    #[tokio::test]
    async fn what_was_right_is_remembered_and_nothing_else() {
        let passwords = Passwords::new().unwrap();
        let hash = bcrypt::hash("right", 4).unwrap();
        assert!(!check(&passwords, &hash, b"wrong").await);
        assert!(!passwords.remember(&hash, b"wrong") && !passwords.remember(&hash, b"right"));
        assert!(check(&passwords, &hash, b"right").await);
        assert!(passwords.remember(&hash, b"right"));
        let changed = bcrypt::hash("right", 4).unwrap();
        assert!(!passwords.remember(&changed, b"right"), "the same password under another hash");
    }

    #[tokio::test]
    async fn few_compute_and_few_wait() {
        let passwords = Arc::new(Passwords::new().unwrap());
        let enter = |last| passwords.enter(address(last));
        let places = [enter(0).await.unwrap(), enter(0).await.unwrap()];
        let waiting: Vec<_> = (0..WAITING)
            .map(|n| {
                let passwords = Arc::clone(&passwords);
                tokio::spawn(async move { passwords.enter(address(1 + n % 2)).await.is_some() })
            })
            .collect();
        while passwords.queue.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(enter(3).await.is_none(), "one too many");
        drop(places);
        for waiting in waiting {
            assert!(waiting.await.unwrap());
        }
        assert!(enter(3).await.is_some());
    }

    #[test]
    fn one_address_is_not_the_whole_crowd() {
        let crowds: Arc<Crowds> = Arc::default();
        let mut all: Vec<_> =
            (0..WAITING_OF_ONE).map(|_| OneOf::join(&crowds, address(1)).unwrap()).collect();
        assert!(OneOf::join(&crowds, address(1)).is_none());
        assert!(OneOf::join(&crowds, address(2)).is_some());
        all.pop();
        assert!(OneOf::join(&crowds, address(1)).is_some());
        drop(all);
        assert!(crowds.lock().unwrap().is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let passwords = Passwords::new().unwrap();
        for n in 0..2 * REMEMBERED {
            passwords.keep(passwords.name("hash", n.to_string().as_bytes()));
        }
        assert_eq!(passwords.right.lock().unwrap().len(), REMEMBERED);
        assert!(passwords.remember("hash", (2 * REMEMBERED - 1).to_string().as_bytes()));
    }
}
