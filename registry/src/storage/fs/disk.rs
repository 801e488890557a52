//! Every change of files and folders goes through here, so that tests can let any single one fail.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
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

    pub(super) fn create_new(&self, path: &Path) -> io::Result<File> {
        self.create_new_with(path, 0o666)
    }

    /// With these permissions, less what the process's mask takes away.
    pub(super) fn create_new_with(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.step()?;
        File::options().write(true).create_new(true).mode(mode).open(path)
    }

    pub(super) fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.step() {
            // What fails may have written something.
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        file.write_all(bytes)
    }

    pub(super) fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.step()?;
        file.set_len(length)
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.step()?;
        file.sync_all()
    }

    /// Puts the names in a folder on the disk.
    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = File::open(folder)?;
        self.sync(&folder)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        fs::rename(from, to)
    }

    pub(super) fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::create_dir(path)
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_file(path)
    }

    /// Fails where there is something in it.
    pub(super) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_dir(path)
    }

    pub(super) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_dir_all(path)
    }
}

#[cfg(test)]
pub(super) mod faults {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use rustix::io::Errno;

    /// Counts steps and fails the ones it is told to.
    #[derive(Debug, Default)]
    pub(crate) struct Faults(Mutex<Plan>);

    #[derive(Debug, Default)]
    struct Plan {
        steps: usize,
        /// The first step that fails, how many do, and how.
        fail: Option<(usize, usize, Errno)>,
    }

    impl Faults {
        pub(super) fn step(&self) -> io::Result<()> {
            let mut plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            *self.0.lock().unwrap() = Plan { steps: 0, fail: Some((first, count, errno)) };
        }

        /// Ends all failing; says how many steps there were since the plan.
        pub(crate) fn heal(&self) -> usize {
            let mut plan = self.0.lock().unwrap();
            plan.fail = None;
            plan.steps
        }
    }
}
