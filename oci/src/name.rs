//! Repository names, tags and references: a value of these types always matches the specification's grammar.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, InvalidDigest};

/// Longest repository name. The specification sets no bound; clients do, at 255 with the host.
pub const MAX_NAME: usize = 255;
/// Longest tag.
pub const MAX_TAG: usize = 128;

/// A repository's name: `team/app`.
///
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`, at most [`MAX_NAME`] bytes. No
/// component starts with a dot, a dash or an underscore.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoName(String);

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// What names a manifest in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By a name that may move.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

/// Text that is no repository name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a repository name: up to {MAX_NAME} characters of components separated by `/`, each of lowercase letters \
     and digits, with single `.`, `_`, `__` or dashes between them"
)]
pub struct InvalidName;

/// Text that is no tag.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a tag: up to {MAX_TAG} letters, digits, `_`, `.` and `-`, not starting with `.` or `-`")]
pub struct InvalidTag;

/// Text that is neither a tag nor a digest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// Without a colon, so meant as a tag.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// With a colon, so meant as a digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl RepoName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() <= MAX_NAME && text.split('/').all(is_component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName)
        }
    }
}

/// Runs of letters and digits with separators between them, never at an end.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-');
    let Some(inner) = text.strip_prefix(alphanumeric).and_then(|rest| {
        // A single character is a component by itself.
        if rest.is_empty() { Some(rest) } else { rest.strip_suffix(alphanumeric) }
    }) else {
        return false;
    };
    inner.split(alphanumeric).filter(|run| !run.is_empty()).all(is_separator)
}

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let other = |c: char| first(c) || c == '.' || c == '-';
        if text.len() <= MAX_TAG && text.starts_with(first) && text.chars().all(other) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTag)
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    /// A tag never contains a colon, a digest always does.
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl TryFrom<String> for RepoName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<RepoName> for String {
    fn from(name: RepoName) -> Self {
        name.0
    }
}

impl TryFrom<String> for Tag {
    type Error = InvalidTag;

    fn try_from(text: String) -> Result<Self, InvalidTag> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one_letter("a")]
    #[case::digits("0/1")]
    #[case::separators("a.b/c_d/e__f/g-h/i---j")]
    #[case::words_of_the_api("blobs/uploads/manifests/tags/list")]
    #[case::deep("a/b/c/d/e/f/g/h/i/j/k")]
    fn names_that_hold(#[case] name: &str) {
        assert_eq!(name.parse::<RepoName>().unwrap().as_str(), name);
    }

    #[rstest]
    #[case::nothing("")]
    #[case::upper_case("App")]
    #[case::parent("a/../b")]
    #[case::here("./a")]
    #[case::two_dots("a..b")]
    #[case::three_underscores("a___b")]
    #[case::mixed_separators("a._b")]
    #[case::leading_separator("-a")]
    #[case::trailing_separator("a-")]
    #[case::hidden("a/.git")]
    #[case::reserved_folder("a/_blobs")]
    #[case::leading_slash("/a")]
    #[case::trailing_slash("a/")]
    #[case::double_slash("a//b")]
    #[case::nul("a\0b")]
    #[case::encoded("a%2fb")]
    #[case::not_ascii("ä")]
    fn names_that_do_not(#[case] name: &str) {
        assert_eq!(name.parse::<RepoName>(), Err(InvalidName));
    }

    #[test]
    fn length_is_bounded() {
        assert!("a".repeat(MAX_NAME).parse::<RepoName>().is_ok());
        assert!("a".repeat(MAX_NAME + 1).parse::<RepoName>().is_err());
        assert!("a".repeat(MAX_TAG).parse::<Tag>().is_ok());
        assert!("a".repeat(MAX_TAG + 1).parse::<Tag>().is_err());
    }

    proptest! {
        #[test]
        fn the_grammar_is_accepted(
            name in r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}){0,4}",
            tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}",
        ) {
            prop_assert_eq!(name.parse::<RepoName>().unwrap().to_string(), name);
            prop_assert_eq!(tag.parse::<Tag>().unwrap().to_string(), tag);
        }

        #[test]
        fn whatever_is_accepted_is_safe_as_a_path(text in r"[a-z./_\-A-Z%\x00]{0,12}") {
            if let Ok(name) = text.parse::<RepoName>() {
                for component in name.as_str().split('/') {
                    prop_assert!(component.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()));
                    prop_assert!(!component.contains(".."));
                }
            }
            if let Ok(tag) = text.parse::<Tag>() {
                prop_assert!(!tag.as_str().starts_with('.') && !tag.as_str().contains('/'));
            }
        }
    }
}
