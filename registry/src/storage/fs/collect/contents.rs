//! Content that no repository holds.
//!
//! Whether it is held is one look into its folder below `holders/`. That folder changes when a holder comes or goes, so
//! that its time says since when there is none.

use std::{fs, io, path::Path, time::SystemTime};

use oci::{Algorithm, Digest, RepoName, digest::ALGORITHMS};

use super::{Kind, Run};
use crate::storage::{
    Error, IoContext as _,
    fs::{folder, layout},
};

impl Run<'_> {
    pub(super) fn contents(&mut self) -> Result<(), Error> {
        for algorithm in ALGORITHMS {
            let (contents, holders) =
                (self.store.layout.contents(algorithm), self.store.layout.all_holders(algorithm));
            for shard in folder::names(&contents)? {
                if !self.shard(algorithm, &contents.join(shard), |_| true)? {
                    return Ok(());
                }
            }
            // Of content that never came, or is lost.
            for shard in folder::names(&holders)? {
                if !self.shard(algorithm, &holders.join(shard), |content| !content.exists())? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn shard(
        &mut self,
        algorithm: Algorithm,
        shard: &Path,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<bool, Error> {
        for name in folder::entries(shard)? {
            if !(self.go_on)() {
                return Ok(false);
            }
            if let Some(digest) = layout::of_hex(algorithm, &name.at("list", shard)?)
                && wanted(&self.store.layout.content(&digest))
            {
                self.content(&digest)?;
            }
        }
        Ok(true)
    }

    fn content(&mut self, digest: &Digest) -> Result<(), Error> {
        if self.unheld(digest)?.is_none() {
            return Ok(());
        }
        let store = self.store;
        let Some(nobody_holds) = store.locks.try_release(digest) else {
            return Ok(());
        };
        let Some(bytes) = self.unheld(digest)? else {
            return Ok(());
        };
        let content = store.layout.content(digest);
        let tmp = store.durable.tmp_name();
        let there = fs::exists(&content).at("look at", &content)?;
        if !self.is_dry {
            let holders = store.layout.holders(digest);
            for name in folder::names(&holders)? {
                store.durable.forget(&holders.join(name))?;
            }
            store.durable.remove_if_empty(&holders)?;
            if there {
                // Out of the way at once: giving back the space of something large takes a while.
                store.durable.disk.rename(&content, &tmp).at("rename", &content)?;
            }
        }
        drop(nobody_holds);
        if there {
            if !self.is_dry {
                store.durable.forget(&tmp)?;
            }
            self.report(Kind::Content, &content, bytes);
        }
        Ok(())
    }

    /// The size of content that has not been held for the grace time; zero where there are only holders that hold
    /// nothing. None where it stays.
    fn unheld(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let touched = |path: &Path| match fs::metadata(path) {
            Ok(metadata) => Ok(Some((metadata.len(), metadata.modified().at("look at", path)?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("look at", path),
        };
        let content = touched(&self.store.layout.content(digest))?;
        let holders = touched(&self.store.layout.holders(digest))?;
        let is_old = |found: Option<(u64, SystemTime)>| found.is_none_or(|(_, touched)| self.is_old(touched));
        if !is_old(content) || !is_old(holders) || self.is_held(digest)? {
            return Ok(None);
        }
        Ok(Some(content.map_or(0, |(bytes, _)| bytes)))
    }

    fn is_held(&self, digest: &Digest) -> Result<bool, Error> {
        let store = self.store;
        let holds = |repository: &RepoName| {
            // What would have gone before in a run that is not dry.
            let would_go = || {
                Ok(self.is_dry
                    && store.record(repository, digest)?.is_none()
                    && self.is_unneeded(repository, digest)?)
            };
            Ok(store.holds(repository, digest)? && !would_go()?)
        };
        Ok(store.find_holder(digest, holds)?.is_some())
    }
}
