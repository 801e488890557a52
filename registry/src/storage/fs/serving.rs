//! Content that is compared with its digest before, or while, it is served; and how much room there is for more.

use std::{fs::File, io::Read as _};

use bytes::Bytes;
use oci::Digest;

use super::Store;
use crate::storage::{Error, IoContext as _};

impl Store {
    /// A small blob, whole and with the right digest; none where it is not.
    pub(crate) fn read_blob(&self, digest: &Digest, file: &File) -> Result<Option<Bytes>, Error> {
        let content = self.layout.content(digest);
        let mut bytes = Vec::new();
        { file }.read_to_end(&mut bytes).at("read", &content)?;
        if Digest::of(digest.algorithm(), &bytes) == *digest {
            return Ok(Some(bytes.into()));
        }
        self.is_damaged(digest, file);
        Ok(None)
    }

    /// Takes content out of service that was found not to match its digest.
    pub(crate) fn is_damaged(&self, digest: &Digest, file: &File) {
        tracing::error!(%digest, "content does not match its digest");
        match file.metadata() {
            Ok(found) => drop(self.quarantine(digest, &found)),
            Err(error) => tracing::error!(%digest, %error, "failed to look at damaged content"),
        }
    }

    /// Bytes that can still be written, and those that the whole file system has.
    pub(crate) fn room(&self) -> Result<(u64, u64), Error> {
        let root = self.layout.root();
        let stat = rustix::fs::statvfs(root).map_err(std::io::Error::from).at("look at", root)?;
        Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
    }

    /// Why nothing more is written.
    pub(crate) fn is_full(&self) -> Error {
        Error::Full { action: "keep the reserve free on", path: self.layout.root().to_owned() }
    }
}
