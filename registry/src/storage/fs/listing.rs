//! The names of large folders in order, so that a page costs what it holds: read and sorted once into a file that has no
//! name itself. Those of folders that change with every push are kept up with what changes, others are good as long as
//! the folder's times stay. Never the truth, only a faster way to it.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    ops::Bound,
    os::unix::fs::FileExt as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use super::{Store, durable::is_gone, folder, locks::lock};
use crate::storage::{Error, IoContext as _};

/// Smaller folders are read each time.
const LARGE: usize = 2048;
/// Folders that are remembered.
const LISTINGS: usize = 16;
/// Changes that are remembered of one; after more it is read again.
const CHANGES: usize = 4096;
/// Bytes of the longest name that file systems have, and of what ends it.
const LONGEST: usize = 257;
/// A folder that was changed so lately may be changed once more without getting another time.
const SETTLED: Duration = Duration::from_millis(100);
/// Read at once.
const PIECE: usize = 16 << 10;

/// At most as many names as were asked for, and whether there are more.
type Page = (Vec<String>, bool);

#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<HashMap<PathBuf, Arc<Listing>>>);

#[derive(Debug, Default)]
struct Listing {
    sorted: Mutex<Option<Sorted>>,
    /// Since somebody began to read the folder: which names came (true) and went.
    changes: Mutex<BTreeMap<String, bool>>,
}

impl Listings {
    /// A name has come to a folder, or gone from it.
    pub(super) fn note(&self, folder: &Path, name: &str, is_there: bool) {
        let mut listings = lock(&self.0);
        let Some(listing) = listings.get(folder) else { return };
        let mut changes = lock(&listing.changes);
        changes.insert(name.to_owned(), is_there);
        let is_too_much = changes.len() > CHANGES;
        drop(changes);
        if is_too_much {
            listings.remove(folder);
        }
    }

    /// Something else was done to a folder.
    pub(super) fn forget(&self, folder: &Path) {
        lock(&self.0).remove(folder);
    }

    pub(super) fn forget_all(&self) {
        lock(&self.0).clear();
    }

    fn get(&self, folder: &Path) -> Option<Arc<Listing>> {
        lock(&self.0).get(folder).cloned()
    }

    fn begin(&self, folder: &Path) -> Arc<Listing> {
        let mut listings = lock(&self.0);
        if listings.len() >= LISTINGS
            && let Some(any) = listings.keys().next().cloned()
        {
            listings.remove(&any);
        }
        Arc::clone(listings.entry(folder.to_owned()).or_default())
    }
}

/// Folders as they were when their names were put in order.
#[derive(Debug, Default)]
pub(super) struct Steady {
    folders: Mutex<HashMap<PathBuf, (Times, Arc<Sorted>)>>,
    making: Mutex<()>,
}

/// What a folder gets anew when a name comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    inode: (u64, u64),
    modified: SystemTime,
    changed: (i64, i64),
}

impl Times {
    /// None where there is no such folder.
    fn of(folder: &Path) -> Result<Option<Self>, Error> {
        let found = match fs::metadata(folder) {
            Err(error) if is_gone(&error) => return Ok(None),
            found => found.at("look at", folder)?,
        };
        let modified = found.modified().at("look at", folder)?;
        let inode = (found.dev(), found.ino());
        Ok(Some(Self { inode, modified, changed: (found.ctime(), found.ctime_nsec()) }))
    }

    /// Whether the next change is sure to make them others.
    fn are_settled(&self, now: SystemTime) -> bool {
        now.duration_since(self.modified).is_ok_and(|since| since > SETTLED)
    }
}

impl Steady {
    /// None where it is not known, or is not what it was.
    fn get(&self, folder: &Path) -> Result<Option<Arc<Sorted>>, Error> {
        let Some((then, sorted)) = lock(&self.folders).get(folder).cloned() else { return Ok(None) };
        Ok((Times::of(folder)? == Some(then)).then_some(sorted))
    }

    #[cfg(test)]
    pub(super) fn knows(&self, folder: &Path) -> bool {
        self.get(folder).unwrap().is_some()
    }

    fn keep(&self, folder: &Path, times: Times, sorted: Sorted) {
        let mut folders = lock(&self.folders);
        if folders.len() >= LISTINGS
            && let Some(any) = folders.keys().next().cloned()
        {
            folders.remove(&any);
        }
        folders.insert(folder.to_owned(), (times, Arc::new(sorted)));
    }
}

impl Store {
    /// What `expand` makes of a folder's names, after `last` in bytewise order, and whether there is more: at least `n`
    /// where there are so many. Costs what the page holds unless the folder is small or has changed since the last time.
    pub(super) fn steady_page(
        &self,
        folder: &Path,
        last: Option<&str>,
        n: usize,
        expand: impl Fn(String, &mut Vec<String>),
    ) -> Result<Page, Error> {
        if let Some(sorted) = self.steady.get(folder)? {
            return sorted.page(last, n, &BTreeMap::new()).at("read", folder);
        }
        // Reading costs the same however many are wanted, and who goes on will want more.
        let (page, more, count) = folder::expanded_page(folder, last, n.max(LARGE), &expand)?;
        if count >= LARGE {
            self.put_in_order(folder, expand)?;
        }
        Ok((page, more))
    }

    fn put_in_order(&self, folder: &Path, expand: impl Fn(String, &mut Vec<String>)) -> Result<(), Error> {
        // All names are in memory for a moment, and one folder's at a time.
        let Ok(_alone) = self.steady.making.try_lock() else { return Ok(()) };
        let Some(times) = Times::of(folder)?.filter(|times| times.are_settled(SystemTime::now())) else {
            return Ok(());
        };
        let mut names = Vec::new();
        for name in folder::entries(folder)? {
            expand(name.at("list", folder)?, &mut names);
        }
        names.sort_unstable();
        match Sorted::of(&names, &self.durable.tmp_name()) {
            Ok(sorted) => self.steady.keep(folder, times, sorted),
            Err(error) => tracing::warn!(%error, "names can't be kept in order"),
        }
        Ok(())
    }

    /// The first `n` names after `last` in bytewise order.
    pub(super) fn page(&self, folder: &Path, last: Option<&str>, n: usize) -> Result<Page, Error> {
        let listing = if let Some(listing) = self.listings.get(folder) {
            listing
        } else {
            let (page, more, count) = folder::counted_page(folder, last, n)?;
            if count < LARGE {
                return Ok((page, more));
            }
            self.listings.begin(folder)
        };
        let mut sorted = lock(&listing.sorted);
        if sorted.is_none() {
            match Sorted::make(folder, &self.durable.tmp_name()) {
                Ok(made) => *sorted = Some(made),
                Err(error) => {
                    tracing::warn!(%error, "names can't be kept in order");
                    self.listings.forget(folder);
                    return folder::page(folder, last, n);
                }
            }
        }
        match &*sorted {
            Some(sorted) => sorted.page(last, n, &lock(&listing.changes)).at("read", folder),
            None => folder::page(folder, last, n),
        }
    }
}

/// Names in order, a line each.
#[derive(Debug)]
struct Sorted {
    file: File,
    length: u64,
}

impl Sorted {
    fn make(folder: &Path, tmp: &Path) -> Result<Self, Error> {
        let mut names = folder::names(folder)?;
        names.sort_unstable();
        Self::of(&names, tmp)
    }

    fn of(names: &[String], tmp: &Path) -> Result<Self, Error> {
        let write = || {
            let file = File::options().read(true).write(true).create_new(true).open(tmp)?;
            fs::remove_file(tmp)?;
            let mut lines = BufWriter::new(&file);
            // What is longer is no name of ours.
            for name in names.iter().filter(|name| name.len() < LONGEST) {
                writeln!(lines, "{name}")?;
            }
            lines.flush()?;
            drop(lines);
            let length = file.metadata()?.len();
            Ok(Self { file, length })
        };
        write().at("write", tmp)
    }

    fn page(&self, last: Option<&str>, n: usize, changes: &BTreeMap<String, bool>) -> io::Result<Page> {
        let mut lines = Lines { sorted: self, offset: self.after(last)?, piece: Vec::new() };
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut changes = changes.range::<str, _>((after, Bound::Unbounded)).peekable();
        let mut names = Vec::with_capacity(n + 1);
        let mut line = lines.next()?;
        while names.len() <= n {
            let change = changes.peek().copied();
            let is_line = match (&line, change) {
                (None, None) => break,
                (Some(line), Some((name, _))) => line < name,
                (line, None) => line.is_some(),
                (None, _) => false,
            };
            if is_line {
                names.extend(line);
                line = lines.next()?;
            } else {
                // A change has the last word on its name.
                if change.is_some_and(|(name, _)| line.as_ref() == Some(name)) {
                    line = lines.next()?;
                }
                names.extend(change.filter(|(_, is_there)| **is_there).map(|(name, _)| name.clone()));
                changes.next();
            }
        }
        let more = names.len() > n;
        names.truncate(n);
        Ok((names, more))
    }

    /// Where the first line after `last` begins.
    fn after(&self, last: Option<&str>) -> io::Result<u64> {
        let Some(last) = last else { return Ok(0) };
        let (mut low, mut high) = (0, self.length);
        while low < high {
            let middle = u64::midpoint(low, high);
            let (start, line) = self.line_from(middle)?;
            if start < high && line.as_str() <= last {
                low = start + line.len() as u64 + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The first line that begins at `offset` or later, and where.
    fn line_from(&self, offset: u64) -> io::Result<(u64, String)> {
        let from = offset.saturating_sub(1);
        let mut window = [0; 2 * LONGEST];
        let n = read(&self.file, &mut window, from)?;
        let ends = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n');
        let skip = if offset == 0 { 0 } else { ends(&window[..n]).map_or(n, |end| end + 1) };
        let line = &window[skip..n];
        let line = &line[..ends(line).unwrap_or(line.len())];
        Ok((from + skip as u64, String::from_utf8_lossy(line).into_owned()))
    }
}

/// Reads line by line.
struct Lines<'a> {
    sorted: &'a Sorted,
    /// Where what comes after `piece` begins.
    offset: u64,
    /// Read, in reverse order of lines.
    piece: Vec<String>,
}

impl Lines<'_> {
    fn next(&mut self) -> io::Result<Option<String>> {
        if self.piece.is_empty() && self.offset < self.sorted.length {
            let mut bytes = [0; PIECE];
            let n = read(&self.sorted.file, &mut bytes, self.offset)?;
            let whole = bytes[..n].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            if whole == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = String::from_utf8_lossy(&bytes[..whole]);
            self.piece = text.lines().rev().map(str::to_owned).collect();
            self.offset += whole as u64;
        }
        Ok(self.piece.pop())
    }
}

/// As many bytes as there are, at most the buffer's.
fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read_at(&mut buffer[n..], offset + n as u64) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c]{1,3}", "[a-c]{120,128}"]
    }

    proptest! {
        #[test]
        fn pages_are_those_of_the_folder_with_its_changes(
            names in prop::collection::btree_set(name(), 0..200),
            changes in prop::collection::btree_map(name(), any::<bool>(), 0..50),
            last in prop::option::of(name()),
            n in 0..20_usize,
        ) {
            let tmp = tempfile::tempdir().unwrap();
            let folder = tmp.path().join("folder");
            fs::create_dir(&folder).unwrap();
            for name in &names {
                fs::write(folder.join(name), "").unwrap();
            }
            let sorted = Sorted::make(&folder, &tmp.path().join("tmp")).unwrap();
            let mut now: BTreeSet<_> = names;
            for (name, is_there) in &changes {
                if *is_there { now.insert(name.clone()) } else { now.remove(name) };
            }
            let after: Vec<_> = now.into_iter().filter(|name| Some(name) > last.as_ref()).collect();
            let expected = after.iter().take(n).cloned().collect::<Vec<_>>();
            let page = sorted.page(last.as_deref(), n, &changes).unwrap();
            prop_assert_eq!(page, (expected, after.len() > n));
        }
    }
}
