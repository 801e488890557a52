//! Which rule covers a repository: the most specific path, found in as many steps as the name has components,
//! however many rules there are.

use std::{borrow::Cow, collections::HashMap};

use oci::RepoName;

/// Values by path.
#[derive(Debug)]
pub(crate) struct Paths<T> {
    exact: HashMap<Box<str>, T>,
    /// By what stands before `/*`; empty for `*`.
    below: HashMap<Box<str>, T>,
}

/// What a value is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Covered<'a> {
    Alone(&'a str),
    Below(&'a str),
    All,
}

impl Covered<'_> {
    /// The first text after it in bytewise order.
    fn end(self) -> Option<String> {
        match self {
            Self::Alone(name) => Some(format!("{name}\0")),
            // What comes after a slash.
            Self::Below(above) => Some(format!("{above}0")),
            Self::All => None,
        }
    }
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
        self.covering(repository.as_str()).map(|(value, _)| value)
    }

    /// The same of any text, which may begin a name or stand between names.
    pub(crate) fn covering<'a>(&self, text: &'a str) -> Option<(&T, Covered<'a>)> {
        if let Some(value) = self.exact.get(text) {
            return Some((value, Covered::Alone(text)));
        }
        let mut name = text;
        while let Some((above, _)) = name.rsplit_once('/') {
            if let Some(value) = self.below.get(above) {
                return Some((value, Covered::Below(above)));
            }
            name = above;
        }
        self.below.get("").map(|value| (value, Covered::All))
    }

    /// The first text from `from` on whose value, or that it has none, is `open`, in bytewise order; `begins` is where the
    /// first path that is open begins from there on.
    pub(crate) fn next_open(
        &self,
        from: &str,
        open: impl Fn(Option<&T>) -> bool,
        begins: Option<&str>,
    ) -> Option<String> {
        let mut at = Cow::Borrowed(from);
        // Out of all that is shut around it.
        let outside = loop {
            let covering = self.covering(&at);
            if open(covering.as_ref().map(|(value, _)| *value)) {
                break Some(at);
            }
            match covering.and_then(|(_, covered)| covered.end()) {
                Some(end) => at = Cow::Owned(end),
                None => break None,
            }
        };
        let begins = begins.map(Cow::Borrowed);
        [outside, begins].into_iter().flatten().min().map(Cow::into_owned)
    }

    /// Where the names begin that each path is about, in bytewise order, with its value.
    pub(crate) fn beginnings(&self) -> Vec<(String, &T)> {
        let exact = self.exact.iter().map(|(name, value)| (name.to_string(), value));
        let below = self.below.iter().map(|(above, value)| {
            (if above.is_empty() { String::new() } else { format!("{above}/") }, value)
        });
        let mut all: Vec<_> = exact.chain(below).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
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
