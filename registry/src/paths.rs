//! Which rule covers a repository: the most specific path, found in as many steps as the name has components,
//! however many rules there are.

use std::collections::HashMap;

use oci::RepoName;

/// Values by path.
#[derive(Debug)]
pub(crate) struct Paths<T> {
    exact: HashMap<Box<str>, T>,
    /// By what stands before `/*`; empty for `*`.
    below: HashMap<Box<str>, T>,
}

/// Why a path is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotAdded {
    Invalid,
    Duplicate,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new() }
    }
}

impl<T> Paths<T> {
    /// `team/app`, `team/*` or `*`.
    pub(crate) fn add(&mut self, path: &str, value: T) -> Result<(), NotAdded> {
        let valid = |name: &str| name.parse::<RepoName>().is_ok();
        let former = match path.strip_suffix("/*") {
            Some(above) if valid(above) => self.below.insert(above.into(), value),
            None if path == "*" => self.below.insert("".into(), value),
            None if valid(path) => self.exact.insert(path.into(), value),
            _ => return Err(NotAdded::Invalid),
        };
        if former.is_some() { Err(NotAdded::Duplicate) } else { Ok(()) }
    }

    /// That of the repository itself, else of the longest path above it.
    pub(crate) fn most_specific(&self, repository: &RepoName) -> Option<&T> {
        let mut name = repository.as_str();
        if let Some(value) = self.exact.get(name) {
            return Some(value);
        }
        while let Some((above, _)) = name.rsplit_once('/') {
            if let Some(value) = self.below.get(above) {
                return Some(value);
            }
            name = above;
        }
        self.below.get("")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn paths(all: &[&'static str]) -> Paths<&'static str> {
        let mut paths = Paths::default();
        for path in all {
            paths.add(path, *path).unwrap();
        }
        paths
    }

    #[rstest]
    #[case("team/app", Some("team/app"))]
    #[case("team/other", Some("team/*"))]
    #[case("team/app/web", Some("team/app/*"))]
    #[case("team/app/web/deep", Some("team/app/*"))]
    #[case("team/apple", Some("team/*"))]
    #[case("team", None)]
    #[case("teams/app", None)]
    #[case("other", None)]
    fn the_most_specific_path_decides(#[case] name: &str, #[case] expected: Option<&str>) {
        let name = name.parse().unwrap();
        let mut paths = paths(&["team/app", "team/*", "team/app/*"]);
        assert_eq!(paths.most_specific(&name).copied(), expected);
        paths.add("*", "*").unwrap();
        assert_eq!(paths.most_specific(&name).copied(), expected.or(Some("*")));
    }

    #[rstest]
    #[case("")]
    #[case("/*")]
    #[case("**")]
    #[case("team*")]
    #[case("team/*/app")]
    #[case("Team/*")]
    #[case("team/")]
    #[case("../*")]
    fn what_is_no_path(#[case] path: &str) {
        assert_eq!(Paths::default().add(path, ()), Err(NotAdded::Invalid));
    }

    #[test]
    fn a_path_is_there_once() {
        assert_eq!(paths(&["a/*", "a"]).add("a/*", "a/*"), Err(NotAdded::Duplicate));
    }
}
