//! Each repository's manifests: their records against their content, and all that they need.

use std::{collections::HashSet, fs, path::PathBuf};

use oci::{
    Digest, Manifest, RepoName,
    digest::ALGORITHMS,
    manifest::{IMAGE, INDEX},
};

use super::{Check, Finding, Repair, length, repositories::not_held};
use crate::storage::{
    Error, IoContext as _,
    fs::{Store, folder, layout, manifests::Record, read_if_there},
};

impl Check<'_> {
    pub(super) fn manifests(&mut self, repository: &RepoName) -> Result<(), Error> {
        for algorithm in ALGORITHMS {
            let manifests = self.store.layout.repository(repository).manifests(algorithm);
            for name in folder::entries(&manifests)? {
                let name = name.at("list", &manifests)?;
                match layout::of_hex(algorithm, &name) {
                    Some(digest) => self.examine(Some(repository), Some(&digest), |store| {
                        manifest(store, repository, &digest)
                    })?,
                    None => self.foreign(&manifests.join(name)),
                }
                if !(self.go_on)() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn manifest(store: &Store, repository: &RepoName, digest: &Digest) -> Result<Vec<Finding>, Error> {
    let path = store.layout.repository(repository).manifest(digest);
    let record = match store.record(repository, digest) {
        Ok(None) => return Ok(Vec::new()),
        Err(Error::Damaged { .. }) => None,
        record => record?,
    };
    let Some(bytes) = read_if_there(&store.layout.content(digest))? else {
        let needed = store.needed_by(repository, digest)?;
        let repair = if needed.is_some() { Repair::Push } else { Repair::Quarantine };
        let what = "The content of this manifest is lost: push it again.".to_owned();
        return Ok(vec![Finding::damage(path, what, repair)]);
    };
    let Some(should) = read(record.as_ref(), &bytes) else {
        let what = "The content of this manifest is none.".to_owned();
        return Ok(vec![Finding::damage(path, what, Repair::Quarantine)]);
    };
    let mut found = Vec::new();
    if record.as_ref() != Some(&should) {
        let json = serde_json::to_vec(&should).map_err(Error::Encode)?;
        let what = "The record is not what the manifest says.".to_owned();
        found.push(Finding::damage(path.clone(), what, Repair::Write(json)));
    }
    let entries: Vec<PathBuf> = should.entries(&store.layout.repository(repository), digest);
    let is_missing = |entry: &PathBuf| !fs::exists(entry).unwrap_or(true);
    let missing: Vec<_> = entries.into_iter().filter(is_missing).collect();
    if !missing.is_empty() {
        let what = format!("{} entries that lead to this manifest are missing.", missing.len());
        found.push(Finding::damage(path.clone(), what, Repair::Mark(missing)));
    }
    found.extend(not_held(store, repository, digest)?);
    // Only a push can bring these: the same content elsewhere is not this repository's.
    let absent: HashSet<_> = should.absent.iter().collect();
    for needed in should.needs.iter().filter(|needed| !absent.contains(needed)) {
        found.extend(lacking(store, repository, &path, needed)?);
    }
    Ok(found)
}

/// What a record of these bytes says. Where the old one can't be read the type is in the bytes, or plain from them.
fn read(record: Option<&Record>, bytes: &[u8]) -> Option<Record> {
    let kinds = match record {
        Some(record) => vec![Some(record.media_type.as_str())],
        None => vec![None, Some(IMAGE), Some(INDEX)],
    };
    let manifest = kinds.into_iter().find_map(|kind| Manifest::parse(kind, bytes).ok());
    let absent = record.map(|record| record.absent.clone()).unwrap_or_default();
    manifest.map(|manifest| Record { absent, ..Record::of(manifest, bytes) })
}

/// That the repository has not what one of its manifests needs.
fn lacking(
    store: &Store,
    repository: &RepoName,
    path: &std::path::Path,
    needed: &Digest,
) -> Result<Vec<Finding>, Error> {
    if store.holds(repository, needed)? {
        return Ok(Vec::new());
    }
    let Some(length) = length(&store.layout.content(needed))? else {
        let what = format!("This manifest needs {needed}, which is lost: push it again.");
        return Ok(vec![Finding::damage(path.to_owned(), what, Repair::Push)]);
    };
    let mark = store.layout.repository(repository).blob(needed);
    let holder = store.layout.holder(needed, repository);
    let what = format!("A manifest needs {needed}, which is there, but not in its repository.");
    Ok(vec![
        Finding::damage(holder.clone(), what.clone(), Repair::Mark(vec![holder])),
        Finding::damage(mark, what, Repair::Write(format!("{length}\n").into_bytes())),
    ])
}
