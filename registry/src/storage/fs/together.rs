//! Several things put on the disk at the same time: its journal is then written once for all of them rather than once
//! for each.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

/// Threads that help, for all requests together. A request that finds none idle does the work itself.
const HELPERS: usize = 12;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Helpers {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static HELP: Mutex<Helpers> = Mutex::new(Helpers { jobs: VecDeque::new(), threads: 0, idle: 0 });
static WORK: Condvar = Condvar::new();

/// Syncs all of them. Says for each of those that failed which one, by its place, and how.
pub(super) fn sync_all(files: Vec<File>) -> Vec<(usize, io::Error)> {
    let (sender, done) = mpsc::channel();
    let mut rest = Vec::new();
    for (place, file) in files.into_iter().enumerate() {
        let sender = sender.clone();
        let job = Box::new(move || {
            // Nobody listens only where the request has panicked.
            let _ = sender.send((place, file.sync_all()));
        });
        // The first one is for this thread.
        if place == 0 {
            rest.push(job as Job);
        } else {
            rest.extend(hand_over(job));
        }
    }
    drop(sender);
    for job in rest {
        job();
    }
    done.into_iter().filter_map(|(place, synced)| Some((place, synced.err()?))).collect()
}

/// Gives a job to a thread that has nothing else to do; back where there is none.
fn hand_over(job: Job) -> Option<Job> {
    let mut helpers = helpers();
    if helpers.idle <= helpers.jobs.len() {
        let hired =
            helpers.threads < HELPERS && thread::Builder::new().name("sync".into()).spawn(help).is_ok();
        if !hired {
            return Some(job);
        }
        helpers.threads += 1;
        helpers.idle += 1;
    }
    helpers.jobs.push_back(job);
    drop(helpers);
    WORK.notify_one();
    None
}

fn help() {
    let mut helpers = helpers();
    loop {
        match helpers.jobs.pop_front() {
            Some(job) => {
                helpers.idle -= 1;
                drop(helpers);
                job();
                helpers = self::helpers();
                helpers.idle += 1;
            }
            None => helpers = WORK.wait(helpers).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

fn helpers() -> MutexGuard<'static, Helpers> {
    HELP.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_are_all_synced() {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let files = (0..30).map(|_| tempfile::tempfile().unwrap()).collect();
                    assert!(sync_all(files).is_empty());
                });
            }
        });
    }

    #[test]
    fn what_fails_is_named() {
        // A socket can't be synced.
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = File::from(std::os::fd::OwnedFd::from(socket));
        let failed = sync_all(vec![tempfile::tempfile().unwrap(), socket, tempfile::tempfile().unwrap()]);
        assert_eq!(failed.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1]);
    }
}
