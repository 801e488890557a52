//! Which path of the policy governs which repository, and how much may lie there.

use std::sync::Arc;

use oci::RepoName;

use super::{Error, ledger::Scope};
use crate::paths::Paths;

/// The paths of one policy. Each repository is governed by the most specific one alone, or by none.
#[derive(Debug, Default)]
pub(crate) struct Governing {
    indexes: Paths<usize>,
    governed: Vec<Governed>,
}

/// One path.
#[derive(Debug)]
pub(crate) struct Governed {
    pub(crate) path: String,
    pub(crate) quota: Option<u64>,
    /// Paths below it, which govern what is theirs.
    but: Vec<String>,
}

impl Governing {
    /// Of paths that are good for a policy, each once.
    pub(crate) fn new<'a>(paths: impl Iterator<Item = (&'a str, Option<u64>)>) -> Self {
        let paths: Vec<_> = paths.collect();
        let mut sorted: Vec<_> = paths.iter().map(|(path, _)| *path).collect();
        sorted.sort_unstable();
        let mut governing = Self::default();
        for (path, quota) in paths {
            if governing.indexes.add(path, governing.governed.len()).is_ok() {
                let but = path.strip_suffix('*').map(|above| below(&sorted, above, path)).unwrap_or_default();
                governing.governed.push(Governed { path: path.to_owned(), quota, but });
            }
        }
        governing
    }

    pub(crate) fn all(&self) -> &[Governed] {
        &self.governed
    }

    /// Which of them governs a repository.
    pub(crate) fn of(&self, repository: &RepoName) -> Option<usize> {
        self.indexes.most_specific(repository).copied()
    }

    /// Fails where so many bytes are more than a repository's quota, whatever is there.
    pub(super) fn check(&self, repository: &RepoName, bytes: u64) -> Result<(), Error> {
        let governed = self.of(repository).map(|index| &self.governed[index]);
        match governed.and_then(|governed| Some((&governed.path, governed.quota?))) {
            Some((path, quota)) if bytes > quota => {
                Err(Error::OverQuota { path: path.clone(), needed: bytes, used: None, quota })
            }
            _ => Ok(()),
        }
    }

    /// What a path governs, or would govern if it were one of them. None where it can't be one.
    pub(super) fn with(self: &Arc<Self>, path: &str) -> Option<Scope> {
        if let Some(index) = self.find(path) {
            return Some(Scope { governing: Arc::clone(self), index });
        }
        let paths = self.governed.iter().map(|governed| (governed.path.as_str(), governed.quota));
        let governing = Arc::new(Self::new(paths.chain([(path, None)])));
        let index = governing.find(path)?;
        Some(Scope { governing, index })
    }

    /// Where a path is among them.
    pub(crate) fn find(&self, path: &str) -> Option<usize> {
        self.governed.iter().position(|governed| governed.path == path)
    }
}

impl Governed {
    /// The one repository that it is about, unless it is about all below it.
    pub(crate) fn only(&self) -> Option<RepoName> {
        self.path.parse().ok()
    }

    /// What all names begin with that it is about, where it is not about one only: empty, or ending in `/`.
    pub(crate) fn prefix(&self) -> &str {
        self.path.trim_end_matches('*')
    }

    /// Whether both are about the same repositories.
    pub(crate) fn is_about_the_same(&self, other: &Self) -> bool {
        self.path == other.path && self.but == other.but
    }
}

fn below(sorted: &[&str], above: &str, itself: &str) -> Vec<String> {
    let first = sorted.partition_point(|path| *path < above);
    let below = sorted[first..].iter().take_while(|path| path.starts_with(above));
    below.filter(|path| **path != itself).map(|path| (*path).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn governing(paths: &[&'static str]) -> Governing {
        Governing::new(paths.iter().map(|path| (*path, None)))
    }

    #[test]
    fn paths_are_about_the_same_while_none_below_comes_or_goes() {
        let before = governing(&["*", "team/*", "team/app", "other"]);
        let same = |after: &Governing| -> Vec<_> {
            let same = after.all().iter().filter(|one| {
                before.find(&one.path).is_some_and(|index| before.all()[index].is_about_the_same(one))
            });
            same.map(|one| one.path.clone()).collect()
        };
        assert_eq!(
            same(&governing(&["other", "team/app", "team/*", "*"])),
            ["other", "team/app", "team/*", "*"]
        );
        assert_eq!(same(&governing(&["*", "team/*", "team/app"])), ["team/*", "team/app"]);
        assert_eq!(same(&governing(&["*", "team/*", "team/web/*", "other"])), ["other"]);
    }

    #[test]
    fn the_most_specific_path_governs() {
        let governing = governing(&["team/*", "team/app"]);
        let path =
            |name: &str| governing.of(&name.parse().unwrap()).map(|index| &*governing.all()[index].path);
        assert_eq!(path("team/app"), Some("team/app"));
        assert_eq!(path("team/app/web"), Some("team/*"));
        assert_eq!(path("other"), None);
        assert_eq!(governing.all()[1].only(), Some("team/app".parse().unwrap()));
        assert_eq!((governing.all()[0].only(), governing.all()[0].prefix()), (None, "team/"));
    }
}
