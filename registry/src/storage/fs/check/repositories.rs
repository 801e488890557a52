//! Each repository: its blobs and its tags.

use oci::{Digest, Reference, RepoName, Tag, digest::ALGORITHMS};

use super::{Check, Finding, Repair, length};
use crate::storage::{
    Error, IoContext as _,
    fs::{Store, folder, layout},
};

impl Check<'_> {
    pub(super) fn repositories(&mut self) -> Result<(), Error> {
        let store = self.store;
        store.walk_all(&mut |repository| {
            self.blobs(&repository)?;
            self.manifests(&repository)?;
            self.tags(&repository)?;
            self.deletions(&repository)?;
            self.entries(&repository)?;
            Ok((self.go_on)())
        })
    }

    fn blobs(&mut self, repository: &RepoName) -> Result<(), Error> {
        let blobs = self.store.layout.repository(repository).blobs();
        for algorithm in ALGORITHMS {
            let blobs = blobs.join(algorithm.as_str());
            for name in folder::entries(&blobs)? {
                let name = name.at("list", &blobs)?;
                match layout::of_hex(algorithm, &name) {
                    Some(digest) => self
                        .examine(Some(repository), Some(&digest), |store| blob(store, repository, &digest))?,
                    None => self.foreign(&blobs.join(name)),
                }
                if !(self.go_on)() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn tags(&mut self, repository: &RepoName) -> Result<(), Error> {
        let tags = self.store.layout.repository(repository).tags();
        for name in folder::entries(&tags)? {
            let name = name.at("list", &tags)?;
            match name.parse::<Tag>() {
                Ok(tag) => {
                    self.examine(Some(repository), None, |store| self::tag(store, repository, &tag))?;
                }
                Err(_) => self.foreign(&tags.join(name)),
            }
            if !(self.go_on)() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn deletions(&mut self, repository: &RepoName) -> Result<(), Error> {
        let deletions = self.store.layout.repository(repository).deletions();
        for name in folder::entries(&deletions)? {
            let name = name.at("list", &deletions)?;
            if name.parse::<Reference>().is_ok() {
                self.examine(Some(repository), None, |store| deletion(store, repository, &name))?;
            } else {
                self.foreign(&deletions.join(name));
            }
            if !(self.go_on)() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A name that nobody here gave.
    pub(super) fn foreign(&mut self, path: &std::path::Path) {
        let what = "Nothing of a registry has such a name.".to_owned();
        let problem = self.problem(super::Severity::Leftover, path, what, None);
        (self.report)(problem);
    }
}

fn blob(store: &Store, repository: &RepoName, digest: &Digest) -> Result<Vec<Finding>, Error> {
    let mark = store.layout.repository(repository).blob(digest);
    let size = match store.marked_size(repository, digest) {
        Ok(None) => return Ok(Vec::new()),
        Err(Error::Damaged { .. }) => None,
        size => size?,
    };
    let mut found = Vec::new();
    // Content has been looked at before: what is there is whole, and it is the mark that is wrong.
    match length(&store.layout.content(digest))? {
        None => {
            let needed = store.needed_by(repository, digest)?;
            let repair = if needed.is_some() { Repair::Push } else { Repair::Quarantine };
            let what = "The content of this blob is lost: push it again.".to_owned();
            found.push(Finding::damage(mark, what, repair));
        }
        Some(length) if size != Some(length) => {
            let what = format!("This blob has {length} bytes, which its mark does not say.");
            found.push(Finding::damage(mark, what, Repair::Write(format!("{length}\n").into_bytes())));
        }
        Some(_) => {}
    }
    found.extend(not_held(store, repository, digest)?);
    Ok(found)
}

/// Where content is not known to be held by the repository, collection would take it.
pub(super) fn not_held(
    store: &Store,
    repository: &RepoName,
    digest: &Digest,
) -> Result<Option<Finding>, Error> {
    let holder = store.layout.holder(digest, repository);
    if length(&holder)?.is_some() {
        return Ok(None);
    }
    let what = format!("{repository} has {digest}, but is not among its holders.");
    Ok(Some(Finding::damage(holder.clone(), what, Repair::Mark(vec![holder]))))
}

fn deletion(store: &Store, repository: &RepoName, name: &str) -> Result<Vec<Finding>, Error> {
    let path = store.layout.repository(repository).deletion(name);
    if store.is_back(repository, name)? {
        let what = "What was deleted is there again.".to_owned();
        return Ok(vec![Finding::leftover(path, what, Repair::Remove)]);
    }
    match store.deletion(repository, name) {
        Err(Error::Damaged { .. }) => {
            let what = "This record of a deletion can't be read: others may bring back what was deleted.";
            Ok(vec![Finding::damage(path, what.to_owned(), Repair::Quarantine)])
        }
        found => found.map(|_| Vec::new()),
    }
}

fn tag(store: &Store, repository: &RepoName, tag: &Tag) -> Result<Vec<Finding>, Error> {
    let folder = store.layout.repository(repository);
    let path = folder.tag(tag);
    let digest = match store.resolve(repository, tag) {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some(digest)) => digest,
        Err(Error::Damaged { .. }) => {
            let what = "This tag does not hold a digest.".to_owned();
            return Ok(vec![Finding::damage(path, what, Repair::Quarantine)]);
        }
        Err(error) => return Err(error),
    };
    if store.gone(repository)?.contains(&digest) {
        return Ok(Vec::new());
    }
    if length(&folder.manifest(&digest))?.is_none() {
        let what = format!("This tag points to {digest}, which the repository has not.");
        return Ok(vec![Finding::damage(path, what, Repair::Quarantine)]);
    }
    let entry = folder.tagged_by(&digest, tag);
    if length(&entry)?.is_some() {
        return Ok(Vec::new());
    }
    let what = format!("Nothing leads back from {digest} to its tag `{tag}`.");
    Ok(vec![Finding::damage(entry.clone(), what, Repair::Mark(vec![entry]))])
}
