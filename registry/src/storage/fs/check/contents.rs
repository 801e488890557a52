//! Content against the digest that is its name.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    path::Path,
};

use oci::{Algorithm, Digest, Hasher, digest::ALGORITHMS};

use super::{Check, Severity};
use crate::storage::{
    Error, IoContext as _,
    fs::{folder, layout},
};

/// Read at once.
const PIECE: usize = 256 << 10;

impl Check<'_> {
    pub(super) fn contents(&mut self) -> Result<(), Error> {
        for algorithm in ALGORITHMS {
            let contents = self.store.layout.contents(algorithm);
            for shard in folder::names(&contents)? {
                let shard = contents.join(shard);
                for name in folder::entries(&shard)? {
                    self.content(algorithm, &shard, &name.at("list", &shard)?);
                    if !(self.go_on)() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn content(&mut self, algorithm: Algorithm, shard: &Path, name: &str) {
        let path = shard.join(name);
        let digest =
            layout::of_hex(algorithm, name).filter(|digest| self.store.layout.content(digest) == path);
        let Some(digest) = digest else {
            return self.foreign(&path);
        };
        match self.hash(&digest, &path) {
            Ok(None) => {}
            Ok(Some((found, actual))) => self.damaged(&digest, &path, &found, &actual),
            // Collected meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("Content can't be read: {error}.");
                let problem = self.problem(Severity::Damage, &path, what, None);
                (self.report)(problem);
            }
        }
    }

    /// Of content that does not match: which file it is, and its digest.
    fn hash(&mut self, digest: &Digest, path: &Path) -> io::Result<Option<(Metadata, Digest)>> {
        let mut file = File::open(path)?;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut piece = vec![0; PIECE];
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 || !(self.go_on)() {
                break;
            }
            hasher.update(&piece[..n]);
        }
        if !(self.go_on)() {
            return Ok(None);
        }
        let actual = hasher.finish();
        let found = file.metadata()?;
        Ok((actual != *digest).then_some((found, actual)))
    }

    /// Out of service, unless it has been replaced meanwhile.
    fn damaged(&mut self, digest: &Digest, path: &Path, found: &Metadata, actual: &Digest) {
        if !self.store.quarantine(digest, found) {
            return;
        }
        let what = format!("Content is damaged: its digest is {actual}.");
        let problem = self.problem(Severity::Damage, path, what, Some("moved to quarantine"));
        (self.report)(problem);
    }
}
