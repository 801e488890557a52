//! The account of one path.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use oci::Digest;

use super::Tally;
use crate::storage::Error;

/// What is known of one path.
#[derive(Debug, Default)]
pub(super) struct Account {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    is_counting: bool,
    /// How often what is known was said not to be right.
    doubts: u64,
    /// The same when it was counted.
    settled: u64,
    /// Entries that have begun and not ended.
    active: usize,
    /// Content that they have to do with.
    pub(super) pending: HashMap<Digest, Pending>,
    /// None until it is counted. Is not set while there are entries, which go by it to their end, right or not.
    pub(super) counted: Option<Tally>,
}

/// Content that comes or goes. It is counted.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) size: u64,
    pub(super) entries: usize,
    /// It has to be looked for in the end.
    pub(super) is_doubtful: bool,
}

impl State {
    fn is_counted(&self) -> bool {
        self.counted.is_some() && self.settled == self.doubts
    }
}

impl Account {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an entry. False where it has to be counted first, or is being counted: then [`Self::settle`] comes first.
    pub(super) fn begin(&self, must_be_counted: bool) -> bool {
        let mut state = self.state();
        let may = !state.is_counting && (state.is_counted() || !must_be_counted);
        state.active += usize::from(may);
        may
    }

    /// Ends an entry that had to do with these contents.
    pub(super) fn end(&self, contents: &[Digest], is_kept: bool, is_gone: impl Fn(&Digest) -> bool) {
        let mut state = self.state();
        let State { pending, counted, .. } = &mut *state;
        for digest in contents {
            let Some(known) = pending.get_mut(digest) else { continue };
            known.entries -= 1;
            known.is_doubtful |= !is_kept;
            if known.entries > 0 {
                continue;
            }
            let is_gone = known.is_doubtful && is_gone(digest);
            if let (Some(known), Some(tally)) = (pending.remove(digest), counted.as_mut())
                && is_gone
            {
                tally.bytes = tally.bytes.saturating_sub(known.size);
            }
        }
        state.active -= 1;
        self.changed.notify_all();
    }

    /// Counts, if nobody has or does, when all entries have ended.
    pub(super) fn settle(&self, count: impl FnOnce() -> Result<Tally, Error>) -> Result<(), Error> {
        let state = self.state();
        let wait = |state: &mut State| state.is_counting;
        let mut state = self.changed.wait_while(state, wait).unwrap_or_else(PoisonError::into_inner);
        if state.is_counted() {
            return Ok(());
        }
        state.is_counting = true;
        let counting = Counting(self);
        let wait = |state: &mut State| state.active > 0;
        let state = self.changed.wait_while(state, wait).unwrap_or_else(PoisonError::into_inner);
        let doubts = state.doubts;
        drop(state);
        let tally = count()?;
        let mut state = self.state();
        (state.counted, state.settled) = (Some(tally), doubts);
        drop(state);
        drop(counting);
        Ok(())
    }

    pub(super) fn is_counted(&self) -> bool {
        self.state().is_counted()
    }

    pub(super) fn tally(&self) -> Option<Tally> {
        self.state().counted.clone()
    }

    /// It has to be counted anew.
    pub(super) fn doubt(&self) {
        self.state().doubts += 1;
    }
}

/// Lets others go on, also where counting failed.
struct Counting<'a>(&'a Account);

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.0.state().is_counting = false;
        self.0.changed.notify_all();
    }
}
