//! What is known of the journal while it is open; decides, and waits for nothing.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use super::lane::{Lane, Sealed, Unwritten};

/// How long a record lies there at most before a checkpoint begins.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct State {
    /// The two files.
    pub(super) lanes: [Lane; 2],
    /// Where records go.
    pub(super) current: usize,
    /// Bytes in one file at which changes wait for a checkpoint; at half of it one begins.
    pub(super) most: u64,
    pub(super) waiting: Batch,
    pub(super) is_writing: bool,
    pub(super) trust: Trust,
    /// When the next checkpoint was first needed.
    pub(super) since: Option<Instant>,
    pub(super) is_closing: bool,
}

/// Records that are written with one sync.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Sealed>,
    bytes: u64,
    /// The file that has them, or why none has.
    pub(super) outcome: Arc<OnceLock<io::Result<usize>>>,
}

#[derive(Debug)]
pub(super) enum Trust {
    Good,
    /// Until both files are begun anew.
    Doubtful(io::Error),
    /// Until what is here is done again, for which a start had no room.
    Behind(io::Error),
    /// Until the next start.
    Lost(io::Error),
}

/// What stands in a record's way.
pub(super) enum Obstacle {
    /// A checkpoint removes it.
    Passing,
    Lasting(io::Error),
}

impl State {
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        if let Some(error) = self.trust.lasting() {
            return Some(Obstacle::Lasting(error));
        }
        match &self.trust {
            Trust::Doubtful(_) => Some(Obstacle::Passing),
            Trust::Good if self.lanes[self.current].end() + self.waiting.bytes >= self.most => {
                Some(Obstacle::Passing)
            }
            _ => None,
        }
    }

    /// Takes note of what became of so many records.
    pub(super) fn wrote(
        &mut self,
        lane: usize,
        records: usize,
        written: Result<(), Unwritten>,
    ) -> io::Result<usize> {
        match written {
            Ok(()) => {
                self.lanes[lane].applying += records;
                self.since.get_or_insert_with(Instant::now);
                Ok(lane)
            }
            Err(Unwritten::Nothing(error)) => Err(error),
            Err(Unwritten::Perhaps(error)) => {
                self.doubt(&error);
                Err(error)
            }
        }
    }

    pub(super) fn doubt(&mut self, error: &io::Error) {
        if self.trust.lasting().is_none() {
            self.trust = Trust::Doubtful(again(error));
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Not where the last one failed: the next is to come a while later.
    pub(super) fn is_due_now(&self) -> bool {
        matches!(self.trust, Trust::Good) && self.lanes[self.current].end() >= self.most / 2
    }

    /// None where there is nothing to do.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let since = self.since?;
        Some(if self.is_due_now() { Duration::ZERO } else { LONGEST.saturating_sub(since.elapsed()) })
    }
}

impl Batch {
    pub(super) fn add(&mut self, record: Sealed) -> Arc<OnceLock<io::Result<usize>>> {
        self.bytes += record.len();
        self.records.push(record);
        Arc::clone(&self.outcome)
    }
}

impl Trust {
    pub(super) fn error(&self) -> io::Error {
        match self {
            Self::Good => io::ErrorKind::Other.into(),
            Self::Doubtful(error) | Self::Behind(error) | Self::Lost(error) => again(error),
        }
    }

    /// Why nothing is taken, where no checkpoint changes that.
    pub(super) fn lasting(&self) -> Option<io::Error> {
        match self {
            Self::Good | Self::Doubtful(_) => None,
            Self::Behind(error) | Self::Lost(error) => Some(again(error)),
        }
    }
}

/// Errors of the system can't be cloned.
pub(super) fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
