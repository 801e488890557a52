//! The files of the feed: segments that follow each other, an entry a line. The oldest one goes where there are too many.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::cursor::Epoch;
use crate::storage::{
    Error, IoContext as _,
    fs::{durable::Durable, folder},
};

/// Bytes after which another segment begins.
const SEGMENT: u64 = 4 << 20;
/// Segments that are kept: some 200,000 entries.
const SEGMENTS: usize = 16;

/// What is written, and what of it may be read.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    pub(super) epoch: Epoch,
    /// Where each segment begins. The last one is being written.
    segments: VecDeque<u64>,
    writer: Option<File>,
    pub(super) end: u64,
    /// Where entries begin whose changes are not visible yet.
    pub(super) announced: BTreeSet<u64>,
}

impl Log {
    /// Another epoch, of which nothing is on the disk yet.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            epoch: Epoch::random(),
            segments: VecDeque::new(),
            writer: None,
            end: 0,
            announced: BTreeSet::new(),
        }
    }

    /// Goes on with what is there; none where that is not whole.
    pub(super) fn resume(folder: &Path, durable: &Durable) -> Result<Option<Self>, Error> {
        let Some((epoch, segments)) = list(folder)? else {
            return Ok(None);
        };
        let mut log = Self { epoch, ..Self::new(folder) };
        for start in segments {
            let path = log.path(start);
            if log.segments.back().is_some() && log.end != start {
                return Ok(None);
            }
            log.end = start + fs::metadata(&path).at("look at", &path)?.len();
            log.segments.push_back(start);
        }
        let Some(&last) = log.segments.back() else { return Ok(None) };
        let path = log.path(last);
        let file = File::options().append(true).open(&path).at("open", &path)?;
        // What was being written when the process ended was of a change that had not begun.
        let bytes = fs::read(&path).at("read", &path)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        if whole < bytes.len() {
            durable.disk.truncate(&file, whole as u64).at("cut", &path)?;
        }
        log.end = last + whole as u64;
        log.writer = Some(file);
        Ok(Some(log))
    }

    fn path(&self, start: u64) -> PathBuf {
        self.folder.join(format!("{}-{start:016x}", self.epoch))
    }

    /// Where the oldest entry is.
    pub(super) fn start(&self) -> u64 {
        self.segments.front().copied().unwrap_or(self.end)
    }

    /// Up to where all changes are visible.
    pub(super) fn visible(&self) -> u64 {
        self.announced.first().copied().unwrap_or(self.end)
    }

    /// The file with what comes after an offset, where in it that is, and how many bytes of it may be read.
    pub(super) fn after(&self, offset: u64) -> Option<(PathBuf, u64, u64)> {
        let index = self.segments.iter().rposition(|start| *start <= offset)?;
        let start = self.segments[index];
        let end = self.segments.get(index + 1).copied().unwrap_or(self.end).min(self.visible());
        Some((self.path(start), offset - start, end.saturating_sub(offset)))
    }

    /// Appends lines; where they begin.
    pub(super) fn append(&mut self, durable: &Durable, lines: &[u8]) -> Result<u64, Error> {
        let is_full = self.segments.back().is_some_and(|start| self.end - start >= SEGMENT);
        let file = match &mut self.writer {
            Some(file) if !is_full => file,
            _ => self.begin_segment(durable)?,
        };
        durable.disk.write(file, lines).at("append to", &self.folder)?;
        let start = self.end;
        self.end += lines.len() as u64;
        Ok(start)
    }

    pub(super) fn begin_segment(&mut self, durable: &Durable) -> Result<&mut File, Error> {
        let path = self.path(self.end);
        let file = durable.disk.create_new(&path).at("create", &path)?;
        self.segments.push_back(self.end);
        while self.segments.len() > SEGMENTS
            && let Some(oldest) = self.segments.pop_front()
        {
            durable.forget(&self.path(oldest))?;
        }
        Ok(self.writer.insert(file))
    }

    /// Puts all of it on the disk.
    pub(super) fn sync(&self, durable: &Durable) -> Result<(), Error> {
        for path in self.segments.iter().map(|start| self.path(*start)) {
            let file = File::open(&path).at("open", &path)?;
            durable.disk.sync_data(&file).at("sync", &path)?;
        }
        durable.disk.sync_folder(&self.folder).at("sync", &self.folder)
    }
}

/// The epoch of the segments in a folder and where each begins, in order; none where there is not just one epoch.
fn list(folder: &Path) -> Result<Option<(Epoch, Vec<u64>)>, Error> {
    let mut segments = Vec::new();
    let mut epoch = None;
    for name in folder::names(folder)? {
        let Some((of, start)) = parse(&name) else { continue };
        if epoch.replace(of).is_some_and(|other| other != of) {
            return Ok(None);
        }
        segments.push(start);
    }
    segments.sort_unstable();
    Ok(epoch.map(|epoch| (epoch, segments)))
}

fn parse(name: &str) -> Option<(Epoch, u64)> {
    let (epoch, start) = name.split_once('-')?;
    Some((epoch.parse().ok()?, u64::from_str_radix(start, 16).ok()?))
}

/// Takes all segments away.
pub(super) fn clear(folder: &Path, durable: &Durable) -> Result<(), Error> {
    for name in folder::names(folder)?.iter().filter(|name| parse(name).is_some()) {
        durable.forget(&folder.join(name))?;
    }
    Ok(())
}

/// Bytes of a file; none where it is gone.
pub(super) fn read(path: &Path, offset: u64, length: usize) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open", path),
    };
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).at("read", path)?;
    Ok(Some(bytes))
}
