//! What lies in each path of the policy: counted once where somebody asks or there is a quota, then kept up with each
//! push and removal. Lives in memory only: a restart counts anew.
//!
//! Flow: who changes a repository holds an [`Entry`] from before the first file is touched until after the last one,
//! and says first which content comes or goes ([`Entry::take_in`], [`Entry::take_out`]). Content counts while the shelf
//! holds it or an entry has to do with it, so that of several who bring the same only one pays, and what comes
//! while it goes elsewhere stays counted. When the last entry that has to do with it ends, a look at the shelf decides.
//!
//! Guarantees: bytes are never fewer than lie there, and with a quota, which is asked before anything is stored, never
//! more than that. Counting waits for entries to end, and new ones wait for counting, in that path alone; reading waits
//! for neither. Who begins an entry holds the locks of its repository and its content already.

mod account;
mod entry;

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError},
    time::{Instant, SystemTime},
};

use oci::{Digest, RepoName, Tag};

use self::account::Account;
pub(super) use self::entry::Entry;
use super::{Error, Governing};

/// What is counted: where the content lies.
pub(super) trait Shelf {
    /// Whether content is in a repository that a path governs; `near` is one where it may well be.
    fn holds(&self, scope: &Scope, near: &RepoName, digest: &Digest) -> Result<bool, Error>;

    /// Counts all that is in the repositories that a path governs. Nothing comes and goes there meanwhile.
    fn count(&self, scope: &Scope) -> Result<Tally, Error>;
}

/// The repositories that one path governs.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) governing: Arc<Governing>,
    pub(super) index: usize,
}

impl Scope {
    pub(super) fn governed(&self) -> &super::governing::Governed {
        &self.governing.all()[self.index]
    }

    pub(super) fn has(&self, repository: &RepoName) -> bool {
        self.governing.of(repository) == Some(self.index)
    }
}

/// What lies in a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Of distinct content.
    pub(crate) bytes: u64,
    pub(crate) tags: u64,
    pub(crate) last_push: Option<LastPush>,
}

impl Tally {
    /// Takes note of a push, if it is the last one.
    pub(super) fn pushed(&mut self, push: LastPush) {
        let rank = |push: &LastPush| (push.time, push.tag.is_some());
        if self.last_push.as_ref().is_none_or(|last| rank(last) <= rank(&push)) {
            self.last_push = Some(push);
        }
    }
}

/// The last manifest that came, or the last tag that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastPush {
    pub(crate) time: SystemTime,
    pub(crate) tag: Option<Tag>,
    pub(crate) digest: Digest,
}

/// The accounts of the paths of the policy that decides.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Read as long as an entry lasts.
    book: RwLock<Book>,
    wanted: Mutex<Arc<Governing>>,
}

#[derive(Debug, Default)]
struct Book {
    governing: Arc<Governing>,
    /// In the order of the paths.
    accounts: Vec<Arc<Account>>,
}

impl Ledger {
    /// Goes by another policy. False where entries of the former one have not ended yet: then [`Self::turn`] has to be
    /// called where it may block.
    pub(super) fn govern(&self, governing: Arc<Governing>) -> bool {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = governing;
        match self.book.try_write() {
            Ok(book) => self.turn_page(book),
            Err(TryLockError::Poisoned(book)) => self.turn_page(book.into_inner()),
            Err(TryLockError::WouldBlock) => return false,
        }
        true
    }

    /// Goes by the newest policy when all entries of the former one have ended; blocks.
    pub(super) fn turn(&self) {
        self.turn_page(self.book.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Paths that are about the same repositories as before keep their accounts.
    fn turn_page(&self, mut book: RwLockWriteGuard<'_, Book>) {
        let governing = Arc::clone(&self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        let former: std::collections::HashMap<_, _> = book
            .governing
            .all()
            .iter()
            .zip(&book.accounts)
            .map(|(one, account)| (&*one.path, (one, account)))
            .collect();
        let accounts = governing.all().iter().map(|one| match former.get(&*one.path) {
            Some((former, account)) if former.is_about_the_same(one) => Arc::clone(account),
            _ => Arc::default(),
        });
        let accounts = accounts.collect();
        *book = Book { governing, accounts };
    }

    fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a push to a repository. Counts first where there is a quota and nobody has.
    pub(super) fn push<'a>(&'a self, store: &'a dyn Shelf, to: &RepoName) -> Result<Entry<'a>, Error> {
        self.begin(store, to, true)
    }

    /// For taking something from a repository.
    pub(super) fn removal<'a>(&'a self, store: &'a dyn Shelf, from: &RepoName) -> Result<Entry<'a>, Error> {
        self.begin(store, from, false)
    }

    fn begin<'a>(
        &'a self,
        store: &'a dyn Shelf,
        repository: &RepoName,
        is_push: bool,
    ) -> Result<Entry<'a>, Error> {
        loop {
            let book = self.book();
            let Some(index) = book.governing.of(repository) else {
                return Ok(Entry::new(book, None, store, repository));
            };
            let has_quota = is_push && book.governing.all()[index].quota.is_some();
            if book.accounts[index].begin(has_quota) {
                return Ok(Entry::new(book, Some(index), store, repository));
            }
            // A new policy does not wait for counting.
            let (account, scope) = book.account(index);
            drop(book);
            account.settle(|| store.count(&scope))?;
        }
    }

    /// What lies in each path, in their order. Counts what is not counted yet until a time; what is left by then is
    /// left out.
    pub(super) fn usage(&self, store: &dyn Shelf, until: Instant) -> Vec<(String, Tally)> {
        let accounts: Vec<_> = {
            let book = self.book();
            (0..book.accounts.len()).map(|index| book.account(index)).collect()
        };
        let tally = |(account, scope): (Arc<Account>, Scope)| {
            let path = scope.governed().path.clone();
            if !account.is_counted()
                && Instant::now() < until
                && let Err(error) = account.settle(|| store.count(&scope))
            {
                tracing::error!(path, %error, "failed to count what lies in a path");
            }
            Some((path, account.tally()?))
        };
        accounts.into_iter().filter_map(tally).collect()
    }

    pub(super) fn governing(&self) -> Arc<Governing> {
        Arc::clone(&self.book().governing)
    }

    /// Somebody changed files without saying so: all is counted anew.
    pub(super) fn forget(&self) {
        self.book().accounts.iter().for_each(|account| account.doubt());
    }
}

impl Book {
    fn account(&self, index: usize) -> (Arc<Account>, Scope) {
        let scope = Scope { governing: Arc::clone(&self.governing), index };
        (Arc::clone(&self.accounts[index]), scope)
    }
}

#[cfg(test)]
mod tests;
