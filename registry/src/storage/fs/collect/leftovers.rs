//! What a crash or a client that went away left.

use std::{fs, path::Path, time::Duration};

use super::{Kind, Run, is_older};
use crate::storage::{
    Error, IoContext as _, UploadId,
    fs::{durable::SPARE, folder},
};

/// Clients pause between the requests of a session, and no request writes a small file for so long: no grace time is
/// shorter than this.
const LEAST: Duration = Duration::from_secs(600);
/// Who began an upload and sent nothing has nothing to lose.
const EMPTY: Duration = Duration::from_secs(3600);

impl Run<'_> {
    pub(super) fn uploads(&mut self) -> Result<(), Error> {
        let uploads = self.store.layout.uploads();
        for name in folder::entries(&uploads)? {
            if !(self.go_on)() {
                return Ok(());
            }
            if let Ok(id) = name.at("list", &uploads)?.parse() {
                self.upload(id)?;
            }
        }
        Ok(())
    }

    /// Ends one where it is abandoned.
    pub(in crate::storage::fs) fn upload(&mut self, id: UploadId) -> Result<(), Error> {
        let folder = self.store.layout.upload(id);
        if self.abandoned(&folder).is_none() {
            return Ok(());
        }
        let bytes = {
            // A session that a request works on now is not abandoned.
            let Some(_busy) = self.store.busy.try_take(id) else {
                return Ok(());
            };
            let Some(bytes) = self.abandoned(&folder) else {
                return Ok(());
            };
            if !self.is_dry {
                match self.store.remove_upload(id) {
                    // Its client has cancelled it.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                    removed => removed.at("remove", &folder)?,
                }
            }
            bytes
        };
        self.report(Kind::Upload, &folder, bytes);
        Ok(())
    }

    /// The bytes of a session that received nothing for long.
    fn abandoned(&self, folder: &Path) -> Option<u64> {
        let data = fs::metadata(folder.join("data"));
        let bytes = data.as_ref().map_or(0, fs::Metadata::len);
        let touched = data.or_else(|_| fs::metadata(folder)).and_then(|metadata| metadata.modified()).ok()?;
        let grace = if bytes == 0 { self.grace.min(EMPTY) } else { self.grace };
        is_older(touched, grace.max(LEAST)).then_some(bytes)
    }

    pub(super) fn leftovers(&mut self) -> Result<(), Error> {
        let tmp = self.store.layout.tmp();
        for name in folder::entries(&tmp)? {
            let name = name.at("list", &tmp)?;
            let path = tmp.join(&name);
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if name.starts_with(SPARE)
                || !metadata.modified().is_ok_and(|touched| is_older(touched, self.grace.max(LEAST)))
            {
                continue;
            }
            if !self.is_dry {
                if metadata.is_dir() {
                    self.store.durable.disk.remove_tree(&path).at("remove", &path)?;
                } else {
                    self.store.durable.forget(&path)?;
                }
            }
            self.report(Kind::Leftover, &path, metadata.len());
        }
        Ok(())
    }
}
