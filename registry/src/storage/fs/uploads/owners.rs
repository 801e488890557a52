//! Whose sessions are under way: nobody gets more than half of all that there may be, so that one client that begins them
//! and goes away leaves enough for others. Each session says whose it is, so that a start knows it too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use oci::{Algorithm, RepoName};

use super::{
    super::{Store, folder},
    room::{MAKE_ROOM, MAX_UPLOADS},
};
use crate::storage::{Error, UploadId};

#[derive(Debug, Default)]
pub(super) struct Owners(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    sessions: HashMap<UploadId, Arc<str>>,
    owners: HashMap<Arc<str>, Owner>,
}

#[derive(Debug, Default)]
struct Owner {
    sessions: usize,
    /// When it was last tried to end some.
    made_room: Option<Instant>,
}

impl Owners {
    pub(super) fn forget(&self, id: UploadId) {
        let mut known = self.lock();
        let Known { sessions, owners } = &mut *known;
        let Some(name) = sessions.remove(&id) else { return };
        if let Some(owner) = owners.get_mut(&name) {
            owner.sessions -= 1;
            if owner.sessions == 0 {
                owners.remove(&name);
            }
        }
    }

    fn add(&self, id: UploadId, name: &Arc<str>) {
        let mut known = self.lock();
        known.owners.entry(Arc::clone(name)).or_default().sessions += 1;
        known.sessions.insert(id, Arc::clone(name));
    }

    fn count(&self, name: &str) -> usize {
        self.lock().owners.get(name).map_or(0, |owner| owner.sessions)
    }

    /// An owner's sessions, once in a while.
    fn that_may_end(&self, name: &str) -> Vec<UploadId> {
        let mut known = self.lock();
        let Known { sessions, owners } = &mut *known;
        let Some(owner) = owners.get_mut(name) else { return Vec::new() };
        if owner.made_room.is_some_and(|last| last.elapsed() < MAKE_ROOM) {
            return Vec::new();
        }
        owner.made_room = Some(Instant::now());
        sessions.iter().filter(|(_, of)| &***of == name).map(|(id, _)| *id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Begins a session that counts as its owner's.
    pub(crate) fn begin_upload(
        &self,
        owner: &Arc<str>,
        repository: RepoName,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        self.leave_others_room(owner, MAX_UPLOADS / 2)?;
        let id = self.create_upload_of(Some(owner), repository, algorithm)?;
        self.uploads.owners.add(id, owner);
        Ok(id)
    }

    /// Looks whose the sessions are that a former run has left.
    pub(in super::super) fn know_owners(&self) -> Result<(), Error> {
        for name in folder::names(&self.layout.uploads())? {
            let Ok(id) = name.parse() else { continue };
            match self.any_session(id) {
                Ok(session) => {
                    if let Some(owner) = session.and_then(|session| session.owner) {
                        self.uploads.owners.add(id, &owner.into());
                    }
                }
                Err(error) => tracing::warn!(upload = %id, %error, "an upload counts as nobody's"),
            }
        }
        Ok(())
    }

    /// Refuses an owner more than `most` sessions, unless some of its own were left alone.
    fn leave_others_room(&self, owner: &str, most: usize) -> Result<(), Error> {
        let owners = &self.uploads.owners;
        if owners.count(owner) >= most {
            self.end_abandoned_uploads(owners.that_may_end(owner).into_iter(), usize::MAX)?;
        }
        match owners.count(owner) {
            count if count < most => Ok(()),
            count => Err(Error::TooManyOwnUploads(count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, SystemTime},
    };

    use super::*;

    #[test]
    fn one_owner_leaves_room_for_others_and_gets_it_back() {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path()).unwrap();
        let repository: RepoName = "a".parse().unwrap();
        let (one, other) = (Arc::from("one"), Arc::from("other"));
        let begin = |owner| store.begin_upload(owner, repository.clone(), Algorithm::Sha256).unwrap();
        let is_refused = |owner: &str| match store.leave_others_room(owner, 3) {
            Err(Error::TooManyOwnUploads(3)) => true,
            refused => refused.map(|()| false).unwrap(),
        };
        let mut sessions: Vec<_> = (0..3).map(|_| begin(&one)).collect();
        assert!(is_refused("one") && !is_refused("other"));
        begin(&other);
        assert!(store.cancel_upload(&repository, sessions.remove(0)).unwrap());
        assert!(!is_refused("one"));
        sessions.push(begin(&one));
        let abandoned = File::open(store.layout.upload(sessions[0]).join("data")).unwrap();
        abandoned.set_modified(SystemTime::now() - Duration::from_secs(4000)).unwrap();
        assert!(is_refused("one"), "it is not looked for all the time");
        store.uploads.owners.lock().owners.get_mut("one").unwrap().made_room = None;
        assert!(!is_refused("one"));
        assert_eq!(store.upload_received(&repository, sessions[0]).unwrap(), None);
        // What goes on keeps its owner, also where another run does.
        let busy = store.busy.try_take(sessions[1]).unwrap();
        store.open_upload(&repository, sessions[1], busy).unwrap().unwrap().suspend().unwrap();
        drop(store);
        let store = Store::open(root.path()).unwrap();
        assert_eq!((store.uploads.owners.count("one"), store.uploads.owners.count("other")), (2, 1));
        for id in &sessions[1..] {
            assert!(store.cancel_upload(&repository, *id).unwrap());
        }
        assert_eq!(store.uploads.owners.count("one"), 0);
        assert_eq!(store.uploads.owners.lock().owners.len(), 1, "who has none is forgotten");
    }
}
