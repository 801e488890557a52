//! What a change does, as bytes: one step after the other, each of which can be done again without changing anything.
//!
//! ```text
//! mark    0, path
//! write   1, path, when (8 bytes of seconds, 4 of nanoseconds), length (4), content
//! remove  2, path
//! path    length (2), bytes, relative to the root
//! ```

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::lane::Sealed;

const MARK: u8 = 0;
const WRITE: u8 = 1;
const REMOVE: u8 = 2;

/// All steps of a change.
#[derive(Debug, Default)]
pub(in super::super) struct Record(Vec<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Step<'a> {
    /// An empty file is there, or whatever was before.
    Mark(&'a Path),
    Write {
        path: &'a Path,
        time: SystemTime,
        bytes: &'a [u8],
    },
    /// Nothing is there.
    Remove(&'a Path),
}

impl Record {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in super::super) fn add(&mut self, step: &Step<'_>) {
        match step {
            Step::Mark(path) => self.begin(MARK, path),
            Step::Remove(path) => self.begin(REMOVE, path),
            Step::Write { path, time, bytes } => {
                let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                self.begin(WRITE, path);
                self.0.extend(since.as_secs().to_le_bytes());
                self.0.extend(since.subsec_nanos().to_le_bytes());
                self.0.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
                self.0.extend(*bytes);
            }
        }
    }

    fn begin(&mut self, kind: u8, path: &Path) {
        let path = path.as_os_str().as_bytes();
        self.0.push(kind);
        self.0.extend(u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.0.extend(path);
    }

    /// None where it is too long to be written.
    pub(super) fn seal(self) -> Option<Sealed> {
        Sealed::new(self.0)
    }

    /// None where these are not the bytes of a record.
    pub(in super::super) fn steps(mut bytes: &[u8]) -> Option<Vec<Step<'_>>> {
        let mut steps = Vec::new();
        while !bytes.is_empty() {
            let (step, rest) = read(bytes)?;
            steps.push(step);
            bytes = rest;
        }
        Some(steps)
    }
}

fn read(bytes: &[u8]) -> Option<(Step<'_>, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (path, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let path = Path::new(OsStr::from_bytes(path));
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    match *kind {
        MARK => Some((Step::Mark(path), rest)),
        REMOVE => Some((Step::Remove(path), rest)),
        WRITE => {
            let (secs, rest) = rest.split_first_chunk()?;
            let (nanos, rest) = rest.split_first_chunk()?;
            let since = Duration::from_secs(u64::from_le_bytes(*secs))
                .checked_add(Duration::from_nanos(u32::from_le_bytes(*nanos).into()))?;
            let time = UNIX_EPOCH.checked_add(since)?;
            let (length, rest) = rest.split_first_chunk()?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            Some((Step::Write { path, time, bytes }, rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_were_written() {
        let steps = [
            Step::Mark(Path::new("a/b")),
            Step::Write { path: Path::new("a/c"), time: UNIX_EPOCH + Duration::new(7, 8), bytes: b"content" },
            Step::Remove(Path::new("d")),
        ];
        let mut record = Record::default();
        for step in &steps {
            record.add(step);
        }
        assert_eq!(Record::steps(&record.0).unwrap(), steps);
        assert_eq!(Record::steps(&record.0[..record.0.len() - 1]), None);
        assert_eq!(Record::steps(&[9, 0, 0]), None);
    }

    #[test]
    fn no_step_leads_out_of_the_root() {
        for path in ["../a", "/a", "a/../../b"] {
            let mut record = Record::default();
            record.add(&Step::Remove(Path::new(path)));
            assert_eq!(Record::steps(&record.0), None, "{path}");
        }
    }
}
