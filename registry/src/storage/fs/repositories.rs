//! The list of repositories: those that hold a manifest, or are known for what was deleted there, sorted bytewise. A page costs what it holds and the
//! folders on the way to it, of which large ones are kept in order; for who may see few of many no more than that, but for a
//! look at each one that is shut within a path that they may see.

use oci::{RepoName, digest::ALGORITHMS};

use super::{Store, folder, layout::Repository};
use crate::storage::{
    Error, Holding,
    walk::{self, Look, Walk, everything},
};

/// Read at once of a large folder.
const STEPS: usize = 256;

impl Store {
    /// At most `n` repositories after `last`, and whether there are more. `next` says of any text which one, from there on,
    /// is the first that may be among them.
    pub(crate) fn repositories(
        &self,
        holding: Holding,
        last: Option<&str>,
        n: usize,
        next: impl Fn(&str) -> Option<String>,
    ) -> Result<(Vec<RepoName>, bool), Error> {
        let mut found = Vec::new();
        self.walk(Walk::after(last), &next, &mut |repository| {
            let folder = self.layout.repository(&repository);
            let is_listed = match holding {
                Holding::Manifests => has_manifests(&folder)?,
                Holding::Records => !folder::is_empty(&folder.deletions())? && !has_manifests(&folder)?,
            };
            if is_listed {
                found.push(repository);
            }
            Ok(found.len() <= n)
        })?;
        let more = found.len() > n;
        found.truncate(n);
        Ok((found, more))
    }

    /// Number of repositories: counted where nobody has yet, then kept up.
    pub(crate) fn count_repositories(&self) -> Result<u64, Error> {
        self.filled.count(|| {
            self.walk_all(&mut |repository| {
                // So that what is found is still so when it is noted.
                let _no_deletes = self.locks.push(&repository);
                if has_manifests(&self.layout.repository(&repository))? {
                    self.filled.note(&repository, true);
                }
                Ok(true)
            })
        })
    }

    /// A manifest went, or something of which nobody knows what it left; whoever says so has the repository's lock.
    pub(super) fn look_for_manifests(&self, repository: &RepoName) {
        match has_manifests(&self.layout.repository(repository)) {
            Ok(is_filled) => self.filled.note(repository, is_filled),
            Err(error) => {
                tracing::warn!(%repository, %error, "repositories will be counted anew");
                self.filled.forget();
            }
        }
    }

    /// Calls `each` with every name, sorted, whether there is anything under just that name or not, until it says no.
    pub(super) fn walk_all(
        &self,
        each: &mut dyn FnMut(RepoName) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.walk(Walk::after(None), &everything, each).map(drop)
    }

    /// The same with the names that a walk leads to. False where `each` said no.
    pub(super) fn walk(
        &self,
        mut walk: Walk,
        next: &dyn Fn(&str) -> Option<String>,
        each: &mut dyn FnMut(RepoName) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        while let Some(look) = walk.next(next) {
            match look {
                Look::At(repository) => {
                    if !each(repository)? {
                        return Ok(false);
                    }
                }
                Look::In { prefix, after } => {
                    let folder = self.layout.repositories().join(&prefix);
                    let (steps, more) = self.steady_page(&folder, after.as_deref(), STEPS, walk::steps)?;
                    walk.found(prefix, &steps, more);
                }
            }
        }
        Ok(true)
    }
}

pub(super) fn has_manifests(repository: &Repository) -> Result<bool, Error> {
    for algorithm in ALGORITHMS {
        if !folder::is_empty(&repository.manifests(algorithm))? {
            return Ok(true);
        }
    }
    Ok(false)
}
