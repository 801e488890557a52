//! What there is only so much of, and of which nobody gets more than half: one client that takes all that it can get, and
//! then stands still, leaves enough for the others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// Who has waited for so long should come back later.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who takes a share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Login(Arc<str>),
    /// Of somebody without a login.
    Address(IpAddr),
}

impl Who {
    pub(super) fn of(login: Option<Arc<str>>, peer: IpAddr) -> Self {
        login.map_or_else(|| Self::Address(channel::tls::network(peer)), Self::Login)
    }

    /// Nobody else's.
    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Self::Login(login) => format!("login {login}").into(),
            Self::Address(address) => format!("address {address}").into(),
        }
    }
}

/// All there is of something.
#[derive(Debug)]
pub(super) struct Shares {
    all: Arc<Semaphore>,
    of_one: usize,
    /// Of those who have some, or wait for it.
    ones: Mutex<HashMap<Who, Weak<Semaphore>>>,
}

/// What one may take of it.
#[derive(Clone, Debug)]
pub(super) struct Share {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// What somebody has, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Shares {
    pub(super) fn new(all: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_one: all.div_ceil(2), ones: Mutex::default() }
    }

    pub(super) fn of(&self, who: &Who) -> Share {
        let mut ones = self.ones.lock().unwrap_or_else(PoisonError::into_inner);
        let own = ones.get(who).and_then(Weak::upgrade).unwrap_or_else(|| {
            ones.retain(|_, one| one.strong_count() > 0);
            let own = Arc::new(Semaphore::new(self.of_one));
            ones.insert(who.clone(), Arc::downgrade(&own));
            own
        });
        Share { own, all: Arc::clone(&self.all) }
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.all.available_permits()
    }
}

impl Share {
    /// Waits until there is so much.
    pub(super) async fn take(&self, count: u32) -> Result<Taken, Error> {
        let both = async {
            let own = Arc::clone(&self.own).acquire_many_owned(count).await.ok()?;
            let all = Arc::clone(&self.all).acquire_many_owned(count).await.ok()?;
            Some(Taken { own, all })
        };
        tokio::time::timeout(PATIENCE, both).await.ok().flatten().ok_or(Error::Busy)
    }
}

/// Memory for a body, of a share that is counted in KiB. It is taken as the body comes: who announces much and sends
/// nothing has none.
#[derive(Debug)]
pub(super) struct Memory {
    share: Share,
    /// Bytes that are taken at once.
    step: usize,
    taken: Option<Taken>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(share: Share, step: usize) -> Self {
        Self { share, step, taken: None, bytes: 0 }
    }

    /// Waits until there is as much as that.
    pub(super) async fn hold(&mut self, bytes: usize) -> Result<(), Error> {
        let wanted = bytes.next_multiple_of(self.step);
        if wanted <= self.bytes {
            return Ok(());
        }
        let kib = u32::try_from((wanted - self.bytes) / 1024).map_err(|_| Error::Busy)?;
        let more = self.share.take(kib).await?;
        self.bytes = wanted;
        match &mut self.taken {
            Some(taken) => {
                taken.own.merge(more.own);
                taken.all.merge(more.all);
            }
            none => *none = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn login(name: &str) -> Who {
        Who::Login(name.into())
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_gets_more_than_half() {
        let shares = Shares::new(4);
        let take = async |name| shares.of(&login(name)).take(1).await;
        let one = [take("one").await.unwrap(), take("one").await.unwrap()];
        assert!(matches!(take("one").await, Err(Error::Busy)));
        let _others = [take("two").await.unwrap(), take("three").await.unwrap()];
        assert!(matches!(take("four").await, Err(Error::Busy)), "there is no more");
        drop(one);
        take("one").await.unwrap();
        assert_eq!(shares.ones.lock().unwrap().len(), 3, "who has gone is forgotten");
    }

    #[tokio::test]
    async fn memory_is_taken_as_it_is_needed() {
        let shares = Shares::new(128);
        let mut memory = Memory::new(shares.of(&login("one")), 16 << 10);
        assert_eq!(shares.left(), 128);
        memory.hold(1).await.unwrap();
        memory.hold(16 << 10).await.unwrap();
        assert_eq!(shares.left(), 112);
        memory.hold(64 << 10).await.unwrap();
        assert_eq!(shares.left(), 64);
        assert!(memory.hold((64 << 10) + 1).now_or_never().is_none(), "that is more than half");
        drop(memory);
        assert_eq!(shares.left(), 128);
    }
}
