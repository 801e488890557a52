//! How many can be connected at once, in all and from one address. Where it gets full, who is connected and does
//! nothing goes first, so that nobody keeps others out by holding connections open.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    activity::Activity,
    waiting::{LOOK, MANY, STALLED, TOO_MANY, Waiting},
};

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    of_one_address: usize,
    taken: Mutex<Taken>,
    freed: Notify,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    all: HashMap<u64, Holder>,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Holder {
    address: IpAddr,
    activity: Arc<Activity>,
    evicted: CancellationToken,
}

/// Somebody's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    pub(super) activity: Arc<Activity>,
    /// Somebody else needs the place.
    pub(super) evicted: CancellationToken,
}

/// There is no place.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    /// Nobody is idle.
    Everywhere,
    /// Nobody from that address is idle, which has all that it may have.
    ForThisAddress,
}

impl Places {
    pub(super) fn new(most: usize, of_one_address: usize) -> Arc<Self> {
        let (taken, freed, waiting) = (Mutex::default(), Notify::new(), Arc::default());
        Arc::new(Self { most, of_one_address, taken, freed, waiting })
    }

    /// Ends connections where too many answers wait for clients that take nothing.
    pub(super) async fn relieve(self: Arc<Self>) {
        loop {
            self.waiting.many().await;
            while self.waiting.are_many() {
                self.taken().evict_stalled();
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// A place for a connection from there, as soon as there is one. None where that address has too many.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            match self.try_take(peer) {
                Ok(place) => return Some(place),
                Err(Full::ForThisAddress) => return None,
                Err(Full::Everywhere) => freed.await,
            }
        }
    }

    fn try_take(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Full> {
        let address = channel::tls::network(peer);
        let mut taken = self.taken();
        if taken.by_address.get(&address).is_some_and(|count| *count >= self.of_one_address) {
            taken.evict(Some(address)).ok_or(Full::ForThisAddress)?;
        } else if taken.all.len() >= self.most {
            taken.evict(None).or_else(|| taken.evict_from_crowd(address)).ok_or(Full::Everywhere)?;
        }
        taken.next += 1;
        let (number, activity, evicted) =
            (taken.next, Activity::new(Arc::clone(&self.waiting)), CancellationToken::new());
        let holder = Holder { address, activity: Arc::clone(&activity), evicted: evicted.clone() };
        taken.all.insert(number, holder);
        *taken.by_address.entry(address).or_default() += 1;
        Ok(Place { places: Arc::clone(self), number, activity, evicted })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Ends the connection that has been idle for longest, there or anywhere.
    fn evict(&mut self, address: Option<IpAddr>) -> Option<()> {
        let candidates =
            self.all.iter().filter(|(_, holder)| address.is_none_or(|address| address == holder.address));
        let idle = candidates.filter_map(|(number, holder)| Some((holder.activity.idle_since()?, *number)));
        let (_, number) = idle.min()?;
        self.remove(number)?.evicted.cancel();
        Some(())
    }

    /// Ends the oldest connection of the address that has most, if it has more than this one would.
    fn evict_from_crowd(&mut self, address: IpAddr) -> Option<()> {
        let own = self.by_address.get(&address).copied().unwrap_or_default();
        let (crowd, count) = self.by_address.iter().max_by_key(|(_, count)| **count)?;
        if *count <= own + 1 {
            return None;
        }
        let of_crowd = self.all.iter().filter(|(_, holder)| holder.address == *crowd);
        let oldest = of_crowd.map(|(number, _)| *number).min()?;
        self.remove(oldest)?.evicted.cancel();
        Some(())
    }

    /// Ends those who have left answers waiting for longest, until no more wait than may. What waits on a connection that
    /// was told to end already does not count.
    fn evict_stalled(&mut self) {
        let waiting = self.all.iter().filter_map(|(number, holder)| {
            let (since, count) = holder.activity.waiting()?;
            Some((since, *number, count))
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        let mut left: usize = waiting.iter().map(|(_, _, count)| count).sum();
        for (since, number, count) in waiting {
            if left <= if since.elapsed() >= STALLED { MANY } else { TOO_MANY } {
                return;
            }
            left -= count;
            if let Some(holder) = self.remove(number) {
                holder.evicted.cancel();
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Holder> {
        let holder = self.all.remove(&number)?;
        if let Some(count) = self.by_address.get_mut(&holder.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&holder.address);
            }
        }
        Some(holder)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(self.number);
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::{super::activity::Protocol, *};

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn who_has_been_idle_for_longest_goes_first() {
        let places = Places::new(3, 2);
        let take = |last| places.try_take(address(last));
        let (first, second) = (take(1).unwrap(), take(1).unwrap());
        let busy = first.activity.begin(Protocol::Http1);
        let third = take(1).unwrap();
        assert!(second.evicted.is_cancelled(), "the address may have two, and one is busy");
        let _busy_too = third.activity.begin(Protocol::Http1);
        assert_eq!(take(1).unwrap_err(), Full::ForThisAddress);
        let other = take(2).unwrap();
        let another = take(3).unwrap();
        assert!(other.evicted.is_cancelled(), "there are three places");
        let _also_busy = another.activity.begin(Protocol::Http1);
        assert_eq!(take(3).unwrap_err(), Full::Everywhere);
        drop(busy);
        drop(second);
        assert!(take(2).is_ok() && first.evicted.is_cancelled());
    }

    #[test]
    fn a_crowd_of_one_address_makes_place_for_others() {
        let places = Places::new(4, 3);
        let crowd: Vec<_> = (0..3).map(|_| places.try_take(address(1)).unwrap()).collect();
        let _busy: Vec<_> = crowd.iter().map(|place| place.activity.begin(Protocol::Http1)).collect();
        let other = places.try_take(address(2)).unwrap();
        let _other_busy = other.activity.begin(Protocol::Http1);
        let third = places.try_take(address(3)).unwrap();
        assert!(crowd[0].evicted.is_cancelled() && !crowd[1].evicted.is_cancelled());
        let _third_busy = third.activity.begin(Protocol::Http1);
        let fourth = places.try_take(address(4)).unwrap();
        assert!(crowd[1].evicted.is_cancelled());
        let _fourth_busy = fourth.activity.begin(Protocol::Http1);
        assert_eq!(places.try_take(address(5)).unwrap_err(), Full::Everywhere, "nobody has more than one");
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_next_place() {
        let places = Places::new(1, 1);
        let place = places.take(address(1)).await.unwrap();
        let busy = place.activity.begin(Protocol::Http1);
        assert!(places.take(address(1)).await.is_none(), "it has one");
        let mut waiting = Box::pin(places.take(address(2)));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop((busy, place));
        assert!(waiting.await.is_some());
        assert!(places.taken().by_address.is_empty(), "nothing is left of who has gone");
    }
}
