//! An entry: somebody changes a repository, and says what comes and goes.

use std::sync::RwLockReadGuard;

use oci::{Digest, RepoName};

use super::{
    Book, LastPush, Shelf, Tally,
    account::{Pending, State},
};
use crate::storage::Error;

/// Something is being changed in a repository.
pub(in crate::storage) struct Entry<'a> {
    book: RwLockReadGuard<'a, Book>,
    /// None where no path governs the repository.
    index: Option<usize>,
    store: &'a dyn Shelf,
    repository: RepoName,
    /// What it has to do with.
    contents: Vec<Digest>,
    /// What came is there, and nothing was to go.
    is_kept: bool,
    /// Something failed halfway: nobody knows how many tags there are.
    is_doubtful: bool,
}

impl<'a> Entry<'a> {
    pub(super) fn new(
        book: RwLockReadGuard<'a, Book>,
        index: Option<usize>,
        store: &'a dyn Shelf,
        repository: &RepoName,
    ) -> Self {
        Self {
            book,
            index,
            store,
            repository: repository.clone(),
            contents: Vec::new(),
            is_kept: false,
            is_doubtful: false,
        }
    }

    /// Content is about to come. An error where the path's quota has no room for it.
    pub(in crate::storage) fn take_in(&mut self, digest: &Digest, size: u64) -> Result<(), Error> {
        let quota = self.index.and_then(|index| self.book.governing.all()[index].quota);
        self.count(digest, size, quota)
    }

    /// Content is about to go.
    pub(in crate::storage) fn take_out(&mut self, digest: &Digest, size: u64) -> Result<(), Error> {
        self.count(digest, size, None)
    }

    fn count(&mut self, digest: &Digest, size: u64, quota: Option<u64>) -> Result<(), Error> {
        let Some((account, scope)) = self.index.map(|index| self.book.account(index)) else {
            return Ok(());
        };
        let mut state = account.state();
        let State { counted: Some(tally), pending, .. } = &mut *state else {
            return Ok(());
        };
        if let Some(known) = pending.get_mut(digest) {
            known.entries += 1;
        } else {
            let is_new = !self.store.holds(&scope, &self.repository, digest)?;
            let after = tally.bytes.saturating_add(if is_new { size } else { 0 });
            if let Some(quota) = quota.filter(|quota| is_new && after > *quota) {
                let path = scope.governed().path.clone();
                return Err(Error::OverQuota { path, needed: size, used: Some(tally.bytes), quota });
            }
            tally.bytes = after;
            pending.insert(digest.clone(), Pending { size, entries: 1, is_doubtful: false });
        }
        self.contents.push(digest.clone());
        Ok(())
    }

    /// All that was to come is there.
    pub(in crate::storage) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// A tag may have come or gone, or not.
    pub(in crate::storage) fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// So many tags came, or went.
    pub(in crate::storage) fn tags(&mut self, came: usize, went: usize) {
        self.note(|tally| tally.tags = (tally.tags + came as u64).saturating_sub(went as u64));
    }

    pub(in crate::storage) fn pushed(&mut self, push: LastPush) {
        self.note(|tally| tally.pushed(push));
    }

    fn note(&self, change: impl FnOnce(&mut Tally)) {
        if let Some(index) = self.index
            && let Some(tally) = &mut self.book.accounts[index].state().counted
        {
            change(tally);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let Some((account, scope)) = self.index.map(|index| self.book.account(index)) else {
            return;
        };
        let is_gone = |digest: &Digest| match self.store.holds(&scope, &self.repository, digest) {
            Ok(is_there) => !is_there,
            Err(error) => {
                tracing::warn!(%digest, %error, "it counts as there, until all is counted anew");
                false
            }
        };
        if self.is_doubtful {
            account.doubt();
        }
        account.end(&self.contents, self.is_kept, is_gone);
    }
}
