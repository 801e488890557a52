//! The list of repositories: those that hold a manifest, sorted bytewise. A page costs what it holds and the
//! folders on the way to it, of which large ones are kept in order; for who may see few of them also a look at each one
//! between.

use std::sync::atomic::Ordering;

use oci::{RepoName, digest::ALGORITHMS};

use super::{Store, folder, layout::Repository};
use crate::storage::Error;

/// Read at once of a large folder.
const STEPS: usize = 256;

impl Store {
    /// At most `n` repositories after `last` that `wanted` accepts, and whether there are more.
    pub(crate) fn repositories(
        &self,
        last: Option<&str>,
        n: usize,
        wanted: impl Fn(&RepoName) -> bool,
    ) -> Result<(Vec<RepoName>, bool), Error> {
        let mut found = Vec::new();
        self.walk("", last, &mut |repository| {
            if wanted(&repository) && has_manifests(&self.layout.repository(&repository))? {
                found.push(repository);
            }
            Ok(found.len() <= n)
        })?;
        let more = found.len() > n;
        found.truncate(n);
        Ok((found, more))
    }

    /// Number of repositories; counted again only after something changed.
    pub(crate) fn count_repositories(&self) -> Result<u64, Error> {
        let changes = self.changes.load(Ordering::Acquire);
        let mut counted = self.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match *counted {
            Some((when, count)) if when == changes => Ok(count),
            _ => {
                let mut count = 0;
                self.walk("", None, &mut |repository| {
                    count += u64::from(has_manifests(&self.layout.repository(&repository))?);
                    Ok(true)
                })?;
                *counted = Some((changes, count));
                Ok(count)
            }
        }
    }

    /// A manifest came or went.
    pub(super) fn repositories_changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Calls `each` with every name below `prefix` (empty, or ending in `/`) after `last`, sorted, whether there is
    /// anything under just that name or not, until it says no. False where it did.
    pub(super) fn walk(
        &self,
        prefix: &str,
        last: Option<&str>,
        each: &mut dyn FnMut(RepoName) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let folder = self.layout.repositories().join(prefix);
        let mut after = last.and_then(|last| Some(before(last.strip_prefix(prefix)?)));
        loop {
            let (steps, more) = self.steady_page(&folder, after.as_deref(), STEPS, steps)?;
            for step in &steps {
                let step = format!("{prefix}{step}");
                let go_on = if step.ends_with('/') {
                    let is_past = last.is_some_and(|last| last > step.as_str() && !last.starts_with(&step));
                    is_past || self.walk(&step, last, each)?
                } else {
                    match step.parse() {
                        Ok(name) if last.is_none_or(|last| step.as_str() > last) => each(name)?,
                        _ => true,
                    }
                };
                if !go_on {
                    return Ok(false);
                }
            }
            match steps.into_iter().next_back() {
                Some(step) if more => after = Some(step),
                _ => return Ok(true),
            }
        }
    }
}

/// `a` comes before `a-b`, and that before `a/b`: a repository and what is below it sort apart.
fn steps(name: String, to: &mut Vec<String>) {
    if !name.starts_with('_') {
        to.push(format!("{name}/"));
        to.push(name);
    }
}

/// After what all steps come that lead to something after `last`, which is below the same folder.
fn before(last: &str) -> String {
    match last.split_once('/') {
        // The step to what is below is one of them. Nothing in a name comes after this before a slash does.
        Some((name, _)) => format!("{name}.\u{7f}"),
        None => last.to_owned(),
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
