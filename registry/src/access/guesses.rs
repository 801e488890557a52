//! Slows down who guesses: each source gets some wrong attempts at each name at once and then one every few seconds.
//!
//! Nobody is locked out: other sources and other names are not affected, generated secrets that are right always
//! pass (see [`super`]), and so do passwords that were right a moment ago. Memory is bounded: where there are too
//! many guessers, those who guessed least are forgotten first.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Wrong attempts that are free.
const BURST: f64 = 10.0;
/// Wrong attempts are forgiven one by one, each after this time.
const FORGIVEN: Duration = Duration::from_secs(6);
/// However often somebody tried, this is what is remembered of it.
const MOST: f64 = 2.0 * BURST;
/// Sources and names that are remembered.
const REMEMBERED: usize = 4096;

/// One name tried from one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guesser(u64);

#[derive(Debug, Default)]
pub(super) struct Guesses {
    keys: RandomState,
    tried: Mutex<HashMap<u64, Tried>>,
}

#[derive(Clone, Copy, Debug)]
struct Tried {
    wrong: f64,
    at: Instant,
}

impl Tried {
    fn now(self, now: Instant) -> f64 {
        let forgiven = now.saturating_duration_since(self.at).as_secs_f64() / FORGIVEN.as_secs_f64();
        (self.wrong - forgiven).max(0.0)
    }
}

impl Guesses {
    pub(super) fn guesser(&self, source: IpAddr, name: &[u8]) -> Guesser {
        Guesser(self.keys.hash_one((channel::tls::network(source), name)))
    }

    /// How long somebody has to wait who has tried too often.
    pub(super) fn must_wait(&self, guesser: Guesser, now: Instant) -> Option<Duration> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = tried.get(&guesser.0)?.now(now);
        let too_many = wrong + 1.0 - BURST;
        (too_many > 0.0).then(|| FORGIVEN.mul_f64(too_many))
    }

    /// Remembers a wrong attempt.
    pub(super) fn wrong(&self, guesser: Guesser, now: Instant) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.len() >= REMEMBERED && !tried.contains_key(&guesser.0) {
            make_room(&mut tried, now);
        }
        let entry = tried.entry(guesser.0).or_insert(Tried { wrong: 0.0, at: now });
        *entry = Tried { wrong: (entry.now(now) + 1.0).min(MOST), at: now };
    }
}

fn make_room(tried: &mut HashMap<u64, Tried>, now: Instant) {
    tried.retain(|_, tried| tried.now(now) > 0.0);
    if tried.len() >= REMEMBERED {
        let least = tried.iter().min_by(|a, b| a.1.now(now).total_cmp(&b.1.now(now)));
        if let Some(&least) = least.map(|(key, _)| key) {
            tried.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn one_source_and_name_is_slowed_and_no_other() {
        let table = Guesses::default();
        let now = Instant::now();
        let guesser = table.guesser(HERE, b"admin");
        for _ in 0..10 {
            assert_eq!(table.must_wait(guesser, now), None);
            table.wrong(guesser, now);
        }
        assert_eq!(table.must_wait(guesser, now), Some(FORGIVEN));
        let others = [("127.0.0.2", "admin"), ("127.0.0.1", "other"), ("2001:db8::1", "admin")];
        for (source, name) in others {
            let other = table.guesser(source.parse().unwrap(), name.as_bytes());
            assert_eq!(table.must_wait(other, now), None, "{source} {name}");
        }
        let later = now + FORGIVEN;
        assert_eq!(table.must_wait(guesser, later), None, "one more");
        table.wrong(guesser, later);
        assert!(table.must_wait(guesser, later).is_some());
        for _ in 0..1000 {
            table.wrong(guesser, later);
        }
        assert!(table.must_wait(guesser, later).unwrap() <= Duration::from_secs(70), "never for long");
    }

    #[test]
    fn addresses_of_one_client_are_one_source() {
        let same = |a: &str, b: &str| {
            channel::tls::network(a.parse().unwrap()) == channel::tls::network(b.parse().unwrap())
        };
        assert!(same("2001:db8::1", "2001:db8::ffff:2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }

    #[test]
    fn memory_is_bounded_and_a_flood_of_names_hides_no_guesser() {
        let table = Guesses::default();
        let now = Instant::now();
        let guesser = table.guesser(HERE, b"admin");
        (0..10).for_each(|_| table.wrong(guesser, now));
        for name in 0..3 * REMEMBERED {
            table.wrong(table.guesser(HERE, name.to_string().as_bytes()), now);
        }
        assert!(table.tried.lock().unwrap().len() <= REMEMBERED);
        assert!(table.must_wait(guesser, now).is_some());
    }
}
