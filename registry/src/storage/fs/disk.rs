//! Every change of files and folders goes through here, so that tests can let any single one fail.

use std::{
    fs::{self, File},
    io::{self, IoSlice, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

/// The disk as it is; in tests also one that fails.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: std::sync::Arc<faults::Faults>,
}

impl Disk {
    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        self.faults.step()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only tests have something to do here")]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    /// Before something that takes room on the disk.
    #[cfg(test)]
    fn take_room(&self) -> io::Result<()> {
        self.faults.take_room()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only tests have something to do here")]
    fn take_room(&self) -> io::Result<()> {
        Ok(())
    }

    /// Tells tests what was done.
    #[cfg(test)]
    fn note(&self, done: impl FnOnce() -> faults::Done) {
        self.faults.note(done);
    }

    pub(super) fn create_new(&self, path: &Path) -> io::Result<File> {
        self.create_new_with(path, 0o666)
    }

    /// With these permissions, less what the process's mask takes away.
    pub(super) fn create_new_with(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.step()?;
        self.take_room()?;
        let file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        #[cfg(test)]
        self.note(|| faults::Done::Created(path.to_owned()));
        Ok(file)
    }

    /// Over whatever had that name.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        self.take_room()?;
        let file = File::create(path)?;
        #[cfg(test)]
        self.note(|| faults::Done::Created(path.to_owned()));
        Ok(file)
    }

    pub(super) fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.write_pieces(file, &[bytes])
    }

    /// Writes them one after the other, many with one system call.
    pub(super) fn write_pieces(&self, file: &mut File, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
        let mut left = &mut slices[..];
        if let Err(error) = self.step().and_then(|()| self.take_room()) {
            // What fails may have written something.
            let first = pieces.first().map_or(&[][..], AsRef::as_ref);
            file.write_all(&first[..first.len() / 2])?;
            return Err(error);
        }
        // Takes away those that are empty, also before the first one.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        #[cfg(test)]
        for piece in pieces {
            self.note(|| faults::Done::Wrote(faults::path(file), piece.as_ref().to_owned()));
        }
        Ok(())
    }

    pub(super) fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.step()?;
        file.set_len(length)?;
        #[cfg(test)]
        self.note(|| faults::Done::Truncated(faults::path(file), length));
        Ok(())
    }

    /// Opens a file for writing, making it where it is not there. Nobody else on the machine reads it.
    pub(super) fn open_or_create(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        #[cfg(test)]
        let is_new = !path.exists();
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        #[cfg(test)]
        if is_new {
            self.note(|| faults::Done::Created(path.to_owned()));
        }
        Ok(file)
    }

    /// Writes over what is there, or behind it.
    pub(super) fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.step() {
            // What fails may have written something.
            file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        file.write_all_at(bytes, offset)?;
        #[cfg(test)]
        self.note(|| faults::Done::WroteAt(faults::path(file), offset, bytes.to_owned()));
        Ok(())
    }

    /// Puts a file's content on the disk.
    pub(super) fn sync_data(&self, file: &File) -> io::Result<()> {
        self.step()?;
        file.sync_data()?;
        #[cfg(test)]
        self.note(|| faults::Done::Synced(faults::path(file)));
        Ok(())
    }

    /// Puts everything on the disk that its file system has, the root open since the start.
    pub(super) fn sync_everything(&self, root: &File) -> io::Result<()> {
        self.step()?;
        rustix::fs::syncfs(root)?;
        // Also out of the disk's own memory, which not every file system sees to.
        root.sync_all()?;
        #[cfg(test)]
        self.note(|| faults::Done::SyncedAll);
        Ok(())
    }

    /// Puts the names in a folder on the disk.
    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.step()?;
        File::open(folder)?.sync_all()?;
        #[cfg(test)]
        self.note(|| faults::Done::Synced(folder.to_owned()));
        Ok(())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        fs::rename(from, to)?;
        #[cfg(test)]
        self.note(|| faults::Done::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Gives a file another name.
    pub(super) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.take_room()?;
        fs::hard_link(from, to)?;
        #[cfg(test)]
        self.note(|| faults::Done::Linked(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        if !path.exists() {
            self.take_room()?;
        }
        fs::create_dir(path)?;
        #[cfg(test)]
        self.note(|| faults::Done::MadeFolder(path.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_file(path)?;
        #[cfg(test)]
        self.note(|| faults::Done::Removed(path.to_owned()));
        Ok(())
    }

    /// Fails where there is something in it.
    pub(super) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_dir(path)?;
        #[cfg(test)]
        self.note(|| faults::Done::Removed(path.to_owned()));
        Ok(())
    }

    pub(super) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_dir_all(path)?;
        #[cfg(test)]
        self.note(|| faults::Done::Removed(path.to_owned()));
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod faults {
    use std::{
        fs::{self, File},
        io,
        os::fd::AsRawFd as _,
        path::PathBuf,
        sync::{Mutex, MutexGuard, PoisonError},
    };

    use rustix::io::Errno;

    /// What was done to the disk. Nothing of it but what was synced has to be there after a power failure.
    #[derive(Clone, Debug)]
    pub(crate) enum Done {
        Created(PathBuf),
        MadeFolder(PathBuf),
        /// Appended.
        Wrote(PathBuf, Vec<u8>),
        /// At this place.
        WroteAt(PathBuf, u64, Vec<u8>),
        Truncated(PathBuf, u64),
        Synced(PathBuf),
        /// All files and all folders.
        SyncedAll,
        Renamed(PathBuf, PathBuf),
        /// The file, and the name that it has now, too.
        Linked(PathBuf, PathBuf),
        /// With everything in it.
        Removed(PathBuf),
    }

    /// Which name an open file has now.
    pub(super) fn path(file: &File) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("what is open has a link there")
    }

    /// Counts steps and fails the ones it is told to, or writes down what was done.
    #[derive(Debug, Default)]
    pub(crate) struct Faults(Mutex<Plan>);

    #[derive(Debug, Default)]
    struct Plan {
        steps: usize,
        /// The first step that fails, how many do, and how.
        fail: Option<(usize, usize, Errno)>,
        /// How much can still be made, or written, before the disk is full.
        room: Option<usize>,
        done: Option<Vec<Done>>,
    }

    impl Faults {
        pub(super) fn step(&self) -> io::Result<()> {
            let mut plan = self.lock();
            plan.steps += 1;
            match plan.fail {
                Some((first, count, errno)) if (first..first.saturating_add(count)).contains(&plan.steps) => {
                    Err(errno.into())
                }
                _ => Ok(()),
            }
        }

        /// From now on lets `count` steps fail, the `first` of them counted from 1.
        pub(crate) fn plan(&self, first: usize, count: usize, errno: Errno) {
            *self.lock() = Plan { fail: Some((first, count, errno)), ..Plan::default() };
        }

        pub(super) fn take_room(&self) -> io::Result<()> {
            match &mut self.lock().room {
                Some(0) => Err(Errno::NOSPC.into()),
                Some(room) => {
                    *room -= 1;
                    Ok(())
                }
                None => Ok(()),
            }
        }

        /// From now on there is room for so many files, folders and writes.
        pub(crate) fn leave_room(&self, room: usize) {
            *self.lock() = Plan { room: Some(room), ..Plan::default() };
        }

        /// Ends all failing; says how many steps there were since the plan.
        pub(crate) fn heal(&self) -> usize {
            let mut plan = self.lock();
            plan.fail = None;
            plan.room = None;
            plan.steps
        }

        /// From now on everything that is done is written down.
        pub(crate) fn record(&self) {
            *self.lock() = Plan { done: Some(Vec::new()), ..Plan::default() };
        }

        pub(super) fn note(&self, done: impl FnOnce() -> Done) {
            if let Some(list) = &mut self.lock().done {
                list.push(done());
            }
        }

        /// What was written down so far.
        pub(crate) fn done(&self) -> Vec<Done> {
            self.lock().done.clone().unwrap_or_default()
        }

        fn lock(&self) -> MutexGuard<'_, Plan> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
