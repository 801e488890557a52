//! Upload sessions: a folder each, in which the data grows; the running hash lies beside it between requests.
//!
//! The data's length is the truth. A hash that was not put down before a crash is caught up from the data, so that
//! a session goes on after a restart where it stood.

mod held;
mod owners;
mod room;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use bytes::Bytes;
use oci::{Algorithm, Digest, Hasher, RepoName, digest::Paused};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(super) use self::room::Count;
use super::{Store, disk::Disk, read_if_there};
use crate::storage::{Error, Finished, IoContext as _, UploadId, busy::Guard};

/// Read at once while catching up with a hash.
const CATCH_UP: usize = 256 << 10;

/// Smaller data goes through the journal, together with what names it.
#[cfg(not(test))]
const LARGE: u64 = 128 << 10;
/// So that tests have both, which let each step fail.
#[cfg(test)]
const LARGE: u64 = 6;
/// In a session's folder: a [`Session`].
const SESSION: &str = "session.json";

/// What is kept between the requests of a session.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    repository: RepoName,
    /// As whose it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// The run of the server that put the hash down. After another one, which may have ended with a power failure, what
    /// the hash took in may not be what lies on the disk.
    #[serde(default)]
    run: String,
    /// Bytes of the data that `hash` has taken in.
    hashed: u64,
    hash: Paused,
}

/// A session that one request has for itself.
#[derive(Debug)]
pub(crate) struct Upload {
    id: UploadId,
    repository: RepoName,
    owner: Option<String>,
    folder: PathBuf,
    data: File,
    disk: Disk,
    hasher: Hasher,
    received: u64,
    /// What it had received before this request.
    began: u64,
    _busy: Guard,
}

impl Upload {
    pub(crate) fn id(&self) -> UploadId {
        self.id
    }

    /// Bytes received so far, in all requests.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Takes in the next bytes. After an error it is as if this request had never been.
    pub(crate) fn append(&mut self, pieces: &[Bytes]) -> Result<(), Error> {
        if let Err(error) = self.disk.write_pieces(&mut self.data, pieces) {
            // Where this fails too, the bytes that are left count as received: they are what the client sent.
            let _ = self.disk.truncate(&self.data, self.began);
            return Err(error).at("write", data(&self.folder));
        }
        for piece in pieces {
            self.hasher.update(piece);
            self.received += piece.len() as u64;
        }
        Ok(())
    }

    /// The repository that it is for.
    pub(crate) fn repository(&self) -> &RepoName {
        &self.repository
    }

    /// Bytes received in this request.
    pub(crate) fn appended(&self) -> u64 {
        self.received - self.began
    }

    /// Forgets this request.
    pub(crate) fn roll_back(self) -> Result<(), Error> {
        self.disk.truncate(&self.data, self.began).at("truncate", data(&self.folder))
    }

    /// Puts the hash down until the next request. Nothing is lost where that fails, it is only caught up later; but where
    /// the session was cancelled meanwhile, or ended because there were too many, everything is.
    pub(crate) fn suspend(self) -> Result<(), Error> {
        let session = Session {
            repository: self.repository,
            owner: self.owner,
            run: this_run().to_owned(),
            hashed: self.received,
            hash: self.hasher.pause(),
        };
        match write_session(&self.disk, &self.folder, &session) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::SessionLost),
            Err(error) => tracing::warn!(upload = %self.id, %error, "failed to put an upload's hash down"),
            Ok(()) => {}
        }
        Ok(())
    }
}

impl Store {
    #[cfg(test)]
    pub(crate) fn create_upload(
        &self,
        repository: RepoName,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        self.create_upload_of(None, repository, algorithm)
    }

    fn create_upload_of(
        &self,
        owner: Option<&str>,
        repository: RepoName,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        self.make_room_for_upload(room::MAX_UPLOADS)?;
        let id = UploadId::random();
        let folder = self.layout.upload(id);
        let session = Session {
            repository,
            owner: owner.map(str::to_owned),
            run: this_run().to_owned(),
            hashed: 0,
            hash: Hasher::new(algorithm).pause(),
        };
        let spare = self.uploads.take_spare();
        let made = spare.clone().unwrap_or_else(|| self.durable.tmp_name());
        let disk = &self.durable.disk;
        let create = || {
            if spare.is_none() {
                disk.create_folder(&made)?;
            }
            disk.create_new(&data(&made))?;
            disk.write(&mut disk.create(&made.join(SESSION))?, &serde_json::to_vec(&session)?)?;
            disk.rename(&made, &folder)
        };
        create().at("create", &folder).inspect_err(|_| {
            let _ = fs::remove_dir_all(&made);
        })?;
        self.uploads.add();
        Ok(id)
    }

    /// Bytes received by a session of this repository.
    pub(crate) fn upload_received(&self, repository: &RepoName, id: UploadId) -> Result<Option<u64>, Error> {
        let folder = self.layout.upload(id);
        if self.session(repository, id)?.is_none() {
            return Ok(None);
        }
        match fs::metadata(data(&folder)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("look at", data(&folder)),
        }
    }

    /// Takes a session up, for the request that holds `busy`.
    pub(crate) fn open_upload(
        &self,
        repository: &RepoName,
        id: UploadId,
        busy: Guard,
    ) -> Result<Option<Upload>, Error> {
        let Some(session) = self.session(repository, id)? else {
            return Ok(None);
        };
        let folder = self.layout.upload(id);
        let path = data(&folder);
        let mut data = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("open", path),
        };
        let (hasher, received) = catch_up(&session, &mut data).at("read", path)?;
        Ok(Some(Upload {
            id,
            repository: session.repository,
            owner: session.owner,
            folder,
            data,
            disk: self.durable.disk.clone(),
            hasher,
            received,
            began: received,
            _busy: busy,
        }))
    }

    /// Ends a session: its data becomes a blob of the repository if it has this digest, and goes away if not.
    pub(crate) fn finish_upload(&self, upload: Upload, digest: &Digest) -> Result<Finished, Error> {
        let Upload { id, repository, owner: _, folder, mut data, disk: _, hasher, received, began: _, _busy } =
            upload;
        let path = self::data(&folder);
        let actual = if digest.algorithm() == hasher.algorithm() {
            hasher.finish()
        } else {
            let mut hasher = Hasher::new(digest.algorithm());
            hash_from(0, &mut data, &mut hasher).at("read", &path)?;
            hasher.finish()
        };
        if actual != *digest {
            self.cancel_upload(&repository, id)?;
            return Ok(Finished::Mismatch(actual));
        }
        let is_large = received > LARGE;
        if is_large && let Err(error) = self.sync_data(&data, &path) {
            let _ = self.remove_upload(id);
            return Err(error);
        }
        let _it_stays = self.locks.hold(digest);
        let mut entry = self.ledger.push(self, &repository)?;
        if let Err(error) = entry.take_in(digest, received) {
            let _ = self.remove_upload(id);
            return Err(error);
        }
        let content = self.layout.content(digest);
        let mut change = self.durable.change();
        let nobody_judges = self.locks.place(digest);
        let moved = if is_large {
            self.durable.rename(&path, &content)
        } else {
            let bytes = all_of(&mut data, received).at("read", &path)?;
            change.adopt(&path, &content, &bytes)
        };
        match moved {
            // Cancelled by another request.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Finished::Unknown);
            }
            moved => moved?,
        }
        let marked = self.mark_blob(&mut change, &repository, digest, received);
        let stored = marked.and_then(|()| change.commit());
        drop(nobody_judges);
        if let Err(error) = stored {
            let _ = self.remove_upload(id);
            return Err(error);
        }
        entry.keep();
        // What a crash leaves of the folder goes with the abandoned ones.
        let _ = self.recycle_upload(id);
        Ok(Finished::Stored)
    }

    /// Puts data on the disk while nobody waits for its digest's lock. Where that fails nothing can be built on the file:
    /// the system tells of lost pages once and then takes them for clean.
    fn sync_data(&self, data: &File, path: &Path) -> Result<(), Error> {
        self.durable.disk.sync_data(data).at("sync", path)
    }

    /// Ends a session without a blob; false where there is none.
    pub(crate) fn cancel_upload(&self, repository: &RepoName, id: UploadId) -> Result<bool, Error> {
        if self.session(repository, id)?.is_none() {
            return Ok(false);
        }
        match self.remove_upload(id) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).at("remove", self.layout.upload(id))
            }
            _ => Ok(true),
        }
    }

    /// Whether there is all that it takes to go on with a session.
    pub(super) fn is_session(&self, id: UploadId) -> Result<bool, Error> {
        let folder = self.layout.upload(id);
        let session = self.any_session(id)?;
        Ok(session.is_some() && fs::exists(data(&folder)).at("look at", &folder)?)
    }

    fn session(&self, repository: &RepoName, id: UploadId) -> Result<Option<Session>, Error> {
        Ok(self.any_session(id)?.filter(|session| session.repository == *repository))
    }

    fn any_session(&self, id: UploadId) -> Result<Option<Session>, Error> {
        let json = read_if_there(&self.layout.upload(id).join(SESSION))?;
        // A session that a power failure tore is one that never was: nothing of it was acknowledged for good.
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }
}

/// Names this run of the server.
fn this_run() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| Uuid::new_v4().to_string())
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn write_session(disk: &Disk, folder: &Path, session: &Session) -> io::Result<()> {
    let new = folder.join("session.json.new");
    disk.write(&mut disk.create(&new)?, &serde_json::to_vec(session)?)?;
    disk.rename(&new, &folder.join(SESSION))
}

/// The hash of all the data, and the data's length.
fn catch_up(session: &Session, data: &mut File) -> io::Result<(Hasher, u64)> {
    let length = data.metadata()?.len();
    let resumed =
        Hasher::resume(&session.hash).filter(|_| session.run == this_run() && session.hashed <= length);
    let (mut hasher, offset) = match resumed {
        Some(hasher) => (hasher, session.hashed),
        None => (Hasher::new(session.hash.algorithm()), 0),
    };
    let length = hash_from(offset, data, &mut hasher)?;
    Ok((hasher, length))
}

/// What was received, which is so much.
fn all_of(data: &mut File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    data.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Takes in everything from `offset` to the end; says where the end is.
pub(super) fn hash_from(offset: u64, data: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut end = data.seek(SeekFrom::Start(offset))?;
    let left = data.metadata()?.len().saturating_sub(offset);
    // With nothing left one byte shows that this is still so.
    let mut buffer = vec![0; usize::try_from(left).map_or(CATCH_UP, |left| left.clamp(1, CATCH_UP))];
    loop {
        match data.read(&mut buffer)? {
            0 => return Ok(end),
            n => {
                hasher.update(&buffer[..n]);
                end += n as u64;
            }
        }
    }
}
