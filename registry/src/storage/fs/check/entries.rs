//! Entries of the indexes that nothing stands behind: a crash leaves them, whoever meets one ignores it.

use std::path::PathBuf;

use oci::{Algorithm, Digest, RepoName, Tag, digest::ALGORITHMS};

use super::{Check, Finding, Repair};
use crate::storage::{
    Error, IoContext as _,
    fs::{
        Store, folder, ignoring_damage,
        layout::{self, INDEXES, NEEDED, REFERRERS},
    },
};

impl Check<'_> {
    pub(super) fn entries(&mut self, repository: &RepoName) -> Result<(), Error> {
        for index in INDEXES {
            for algorithm in ALGORITHMS {
                self.index(repository, index, algorithm)?;
            }
        }
        Ok(())
    }

    fn index(
        &mut self,
        repository: &RepoName,
        index: &'static str,
        algorithm: Algorithm,
    ) -> Result<(), Error> {
        let folder = self.store.layout.repository(repository).folder().join(index).join(algorithm.as_str());
        for hex in folder::entries(&folder)? {
            let hex = hex.at("list", &folder)?;
            let Some(digest) = layout::of_hex(algorithm, &hex) else {
                self.foreign(&folder.join(hex));
                continue;
            };
            let folder = folder.join(hex);
            for name in folder::entries(&folder)? {
                let name = name.at("list", &folder)?;
                let path = folder.join(&name);
                self.examine(Some(repository), None, |store| {
                    let is_true = is_true(store, repository, index, &digest, &name)?;
                    Ok(if is_true { Vec::new() } else { vec![stale(path.clone())] })
                })?;
                if !(self.go_on)() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Entries of holders, and the content that they hold.
    pub(super) fn holders(&mut self) -> Result<(), Error> {
        for algorithm in ALGORITHMS {
            let holders = self.store.layout.all_holders(algorithm);
            for shard in folder::names(&holders)? {
                let shard = holders.join(shard);
                for hex in folder::entries(&shard)? {
                    let hex = hex.at("list", &shard)?;
                    match layout::of_hex(algorithm, &hex) {
                        Some(digest) => self.holders_of(&digest)?,
                        None => self.foreign(&shard.join(hex)),
                    }
                    if !(self.go_on)() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn holders_of(&mut self, digest: &Digest) -> Result<(), Error> {
        let folder = self.store.layout.holders(digest);
        for name in folder::entries(&folder)? {
            let name = name.at("list", &folder)?;
            let path = folder.join(&name);
            self.examine(None, Some(digest), |store| {
                let repository = layout::as_repository(&name);
                let holds = repository.map(|repository| store.holds(&repository, digest)).transpose()?;
                Ok(if holds == Some(true) { Vec::new() } else { vec![stale(path.clone())] })
            })?;
        }
        Ok(())
    }
}

/// Whether an entry is what the manifest or tag says that it stands for.
fn is_true(
    store: &Store,
    repository: &RepoName,
    index: &str,
    digest: &Digest,
    name: &str,
) -> Result<bool, Error> {
    if index != NEEDED && index != REFERRERS {
        let Ok(tag) = name.parse::<Tag>() else { return Ok(false) };
        return Ok(ignoring_damage(store.resolve(repository, &tag))?.as_ref() == Some(digest));
    }
    let Some(manifest) = layout::as_digest(name) else { return Ok(false) };
    let record = ignoring_damage(store.record(repository, &manifest))?;
    Ok(record.is_some_and(|record| {
        if index == NEEDED { record.needs.contains(digest) } else { record.subject.as_ref() == Some(digest) }
    }))
}

fn stale(path: PathBuf) -> Finding {
    Finding::leftover(path, "Nothing stands behind this entry.".to_owned(), Repair::Remove)
}
