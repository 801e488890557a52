//! The feed: what was pushed and deleted, in the order in which it happened to each name, for those who follow.
//!
//! Flow: a change is announced, which appends its entries to a file, before anything of it is visible, and entries can
//! be read when it is: who reads one finds what it tells of, or what came later. A change that fails, or a process that
//! is killed in between, leaves an entry of what never was; whoever follows looks at what is there.
//!
//! Guarantees: nothing that was acknowledged is missing within an *epoch*, also after kill -9. Nothing waits for the
//! disk; so where the machine stopped before the process had ended in order, and where an entry could not be written,
//! another epoch begins, and cursors of the former one are not known any more.

mod cursor;
mod log;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use channel::feed::{Entry, Kind};
use oci::{Digest, RepoName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use self::cursor::Position;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::cursor::fuzz as fuzz_cursor;
use self::{cursor::Epoch, log::Log};
use super::{Store, durable::Durable, locks::lock, moves::Moves};
use crate::storage::{Error, stamp::Event};

/// Tells one run of the machine from the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What stands in place of that where everything is on the disk.
const CLEAN: &str = "clean";
/// Read at once.
const PIECE: u64 = 256 << 10;
/// Pieces that are read at the same time.
const READERS: usize = 4;

/// The feed of one root.
#[derive(Debug)]
pub(crate) struct Feed {
    folder: PathBuf,
    /// The run of the machine.
    boot: String,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    readers: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// That entries may not be on the disk stands there.
    is_marked: bool,
}

/// Entries after a position.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) entries: Vec<Entry>,
    pub(crate) next: Position,
    /// There was no more.
    pub(crate) is_end: bool,
}

/// Entries of a change that goes on. They can be read when this is dropped.
#[derive(Debug)]
pub(super) struct Announced<'a> {
    feed: &'a Feed,
    begin: Option<(Epoch, u64)>,
}

/// The id of the machine's run; where that can't be told, of this process's.
pub(super) fn boot_id() -> String {
    match fs::read_to_string(BOOT_ID) {
        Ok(id) => id.trim().to_owned(),
        Err(_) => uuid::Uuid::new_v4().to_string(),
    }
}

impl Feed {
    /// Goes on where it ended, in a folder that is there, unless something may be missing.
    pub(super) fn open(folder: &Path, durable: &Durable, boot: String) -> Result<Self, Error> {
        let former = super::read_if_there(&folder.join("boot"))?;
        // Where nothing is said nothing was ever appended.
        let is_whole =
            former.as_ref().is_none_or(|former| [CLEAN, &boot].map(str::as_bytes).contains(&&former[..]));
        let kept = if is_whole { Log::resume(folder, durable)? } else { None };
        let log = if let Some(log) = kept {
            log
        } else {
            log::clear(folder, durable)?;
            let mut log = Log::new(folder);
            match log.begin_segment(durable) {
                // The first entry begins it, if there is room by then.
                Err(error @ Error::Full { .. }) => {
                    tracing::warn!(%error, "the feed can't begin yet");
                    Log::new(folder)
                }
                begun => {
                    begun?;
                    log
                }
            }
        };
        let is_marked = former.is_some_and(|former| former == boot.as_bytes());
        let state = Mutex::new(State { log, is_marked });
        let (changed, readers) = (watch::Sender::new(()), Arc::new(Semaphore::new(READERS)));
        Ok(Self { folder: folder.to_owned(), boot, state, changed, readers })
    }

    /// Appends what is about to happen.
    pub(super) fn announce(&self, durable: &Durable, entries: &[Entry]) -> Announced<'_> {
        if entries.is_empty() {
            return Announced { feed: self, begin: None };
        }
        let mut state = lock(&self.state);
        let begin = match self.append(&mut state, durable, entries) {
            Ok(start) => {
                state.log.announced.insert(start);
                Some((state.log.epoch, start))
            }
            Err(error) => {
                tracing::error!(%error, "an entry is missing in the feed: whoever follows has to begin anew");
                self.end_epoch(&mut state, durable);
                None
            }
        };
        Announced { feed: self, begin }
    }

    fn append(&self, state: &mut State, durable: &Durable, entries: &[Entry]) -> Result<u64, Error> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry).map_err(Error::Encode)?;
            lines.push(b'\n');
        }
        if !state.is_marked {
            self.mark(durable, &self.boot)?;
            state.is_marked = true;
        }
        state.log.append(durable, &lines)
    }

    /// Taking files away works also where the disk is full.
    fn end_epoch(&self, state: &mut State, durable: &Durable) {
        state.log = Log::new(&self.folder);
        if let Err(error) = log::clear(&self.folder, durable) {
            tracing::error!(%error, "a feed that is not whole is left: remove the folder before the next start");
        }
    }

    /// Up to where all that happened is visible.
    pub(crate) fn present(&self) -> Position {
        let state = lock(&self.state);
        Position { epoch: state.log.epoch, offset: state.log.visible() }
    }

    /// The position that a cursor means; none where it is not known, or not any more.
    pub(crate) fn position(&self, cursor: &str) -> Option<Position> {
        lock(&self.state).log.epoch.open(cursor)
    }

    /// At most `n` entries after a position, of repositories that `wanted` accepts, and of those only the ones in the
    /// next piece of the files. None where the position is not known any more.
    pub(crate) fn read(
        &self,
        from: Position,
        n: usize,
        wanted: impl Fn(&RepoName) -> bool,
    ) -> Result<Option<Piece>, Error> {
        let (path, offset, length) = {
            let State { log, .. } = &*lock(&self.state);
            if from.epoch != log.epoch || from.offset > log.end || from.offset < log.start() {
                return Ok(None);
            }
            match log.after(from.offset) {
                Some(found) if found.2 > 0 => found,
                _ => return Ok(Some(Piece { entries: Vec::new(), next: from, is_end: true })),
            }
        };
        let length = usize::try_from(length.min(PIECE)).unwrap_or_default();
        let Some(bytes) = log::read(&path, offset, length)? else { return Ok(None) };
        let (mut entries, mut taken) = (Vec::new(), 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            if entries.len() == n {
                break;
            }
            let Some((repository, entry)) = parse(line) else {
                tracing::error!(path = %path.display(), "the feed is damaged");
                return Ok(None);
            };
            if wanted(&repository) {
                entries.push(entry);
            }
            taken += line.len() as u64;
        }
        // No entry is as long as a piece.
        Ok((taken > 0).then(|| Piece {
            entries,
            next: Position { offset: from.offset + taken, ..from },
            is_end: false,
        }))
    }

    /// Waits for a turn to read a piece, which lasts as long as what this returns.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        Arc::clone(&self.readers).acquire_owned().await.ok()
    }

    /// Hears of each change that became visible.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Bytes that can be read.
    pub(crate) fn bytes(&self) -> u64 {
        let state = lock(&self.state);
        state.log.visible().saturating_sub(state.log.start())
    }

    /// Puts everything on the disk, so that the next start goes on also where the machine stops meanwhile.
    pub(super) fn close(&self, durable: &Durable) -> Result<(), Error> {
        let mut state = lock(&self.state);
        if state.is_marked {
            state.log.sync(durable)?;
            // Where it fails it may stand there nevertheless.
            state.is_marked = false;
            self.mark(durable, CLEAN)?;
        }
        Ok(())
    }

    /// Not through the journal: where this fails, a push should not.
    fn mark(&self, durable: &Durable, boot: &str) -> Result<(), Error> {
        durable.write_at_once(&self.folder.join("boot"), boot.as_bytes())
    }
}

fn parse(line: &[u8]) -> Option<(RepoName, Entry)> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    Some((entry.repository.parse().ok()?, entry))
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        let Some((epoch, start)) = self.begin else { return };
        let mut state = lock(&self.feed.state);
        if state.log.epoch == epoch {
            state.log.announced.remove(&start);
        }
        drop(state);
        self.feed.changed.send_replace(());
    }
}

impl Store {
    /// Announces a push: each tag that moves, or else a new manifest that refers to another one.
    pub(super) fn announce_push(
        &self,
        repository: &RepoName,
        moves: &Moves<'_>,
        subject: Option<&Digest>,
        is_new: bool,
    ) -> Announced<'_> {
        let entry =
            |tag| Entry { subject: subject.map(Digest::to_string), ..entry(repository, tag, &moves.event) };
        let mut entries: Vec<_> = moves.tags.iter().map(|(tag, _)| entry(Some(tag.to_string()))).collect();
        if entries.is_empty() && is_new && subject.is_some() {
            entries.push(entry(None));
        }
        self.feed.announce(&self.durable, &entries)
    }

    /// Announces that tags go, and a manifest with them where it is named too.
    pub(super) fn announce_deletions(
        &self,
        repository: &RepoName,
        deletions: &[(String, Event)],
    ) -> Announced<'_> {
        let entry = |(name, event): &(String, Event)| {
            let tag = (name != event.digest.as_str()).then(|| name.clone());
            entry(repository, tag, event)
        };
        self.feed.announce(&self.durable, &deletions.iter().map(entry).collect::<Vec<_>>())
    }
}

fn entry(repository: &RepoName, tag: Option<String>, event: &Event) -> Entry {
    Entry {
        kind: if event.is_deletion { Kind::Delete } else { Kind::Push },
        repository: repository.to_string(),
        tag,
        digest: event.digest.to_string(),
        subject: None,
        stamp: (&event.stamp).into(),
    }
}

#[cfg(test)]
mod tests;
