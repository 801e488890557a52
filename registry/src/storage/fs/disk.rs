//! Every change of files and folders goes through here, so that tests can let any single one fail.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::together;
use crate::storage::{Error, IoContext as _};

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
        let file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        #[cfg(test)]
        self.note(|| faults::Done::Created(path.to_owned()));
        Ok(file)
    }

    /// Over whatever had that name.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        let file = File::create(path)?;
        #[cfg(test)]
        self.note(|| faults::Done::Created(path.to_owned()));
        Ok(file)
    }

    pub(super) fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.step() {
            // What fails may have written something.
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        file.write_all(bytes)?;
        #[cfg(test)]
        self.note(|| faults::Done::Wrote(faults::path(file), bytes.to_owned()));
        Ok(())
    }

    pub(super) fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.step()?;
        file.set_len(length)?;
        #[cfg(test)]
        self.note(|| faults::Done::Truncated(faults::path(file), length));
        Ok(())
    }

    /// Puts files, and the names in folders, on the disk, all at the same time.
    pub(super) fn sync_together(&self, things: Vec<(File, PathBuf)>) -> Result<(), Error> {
        let (mut files, mut paths) = (Vec::new(), Vec::new());
        for (file, path) in things {
            self.step().at("sync", &path)?;
            files.push(file);
            paths.push(path);
        }
        match together::sync_all(files).into_iter().next() {
            None => {
                #[cfg(test)]
                for path in paths {
                    self.note(|| faults::Done::Synced(path));
                }
                Ok(())
            }
            Some((place, error)) => Err(error).at("sync", &paths[place]),
        }
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
        fs::hard_link(from, to)?;
        #[cfg(test)]
        self.note(|| faults::Done::Linked(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
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
        Truncated(PathBuf, u64),
        Synced(PathBuf),
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
            *self.lock() = Plan { steps: 0, fail: Some((first, count, errno)), done: None };
        }

        /// Ends all failing; says how many steps there were since the plan.
        pub(crate) fn heal(&self) -> usize {
            let mut plan = self.lock();
            plan.fail = None;
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
