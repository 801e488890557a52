//! Which repositories and tags are copied, and under which name they arrive.

use std::collections::BTreeSet;

use channel::replication;
use oci::{
    Digest, Tag,
    copy::{InvalidPlatform, Platform},
};
use semver::{Version, VersionReq};

use super::pattern::{InvalidPattern, Pattern};

/// What passes.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    repositories: Vec<Pattern>,
    tags: Vec<Pattern>,
    exclude_tags: Vec<Pattern>,
    semver: Option<VersionReq>,
    pub(super) platforms: Vec<Platform>,
    pub(super) referrers: bool,
}

/// Filters that mean nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidFilters {
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    #[error(transparent)]
    Platform(#[from] InvalidPlatform),
    #[error("`{range}` is no range of versions: {source}. Give one such as `>=1.2, <2`")]
    Semver { range: String, source: semver::Error },
}

impl TryFrom<&replication::Filters> for Filters {
    type Error = InvalidFilters;

    fn try_from(filters: &replication::Filters) -> Result<Self, InvalidFilters> {
        let replication::Filters { repositories, tags, exclude_tags, semver, platforms, referrers } = filters;
        let patterns =
            |texts: &[String]| texts.iter().map(|text| text.parse()).collect::<Result<_, InvalidPattern>>();
        let semver = semver.as_ref().map(|range| {
            range.parse().map_err(|source| InvalidFilters::Semver { range: range.clone(), source })
        });
        Ok(Self {
            repositories: patterns(repositories)?,
            tags: patterns(tags)?,
            exclude_tags: patterns(exclude_tags)?,
            semver: semver.transpose()?,
            platforms: platforms.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            referrers: *referrers,
        })
    }
}

impl Filters {
    /// Patterns of repositories, if any.
    pub(super) fn repositories(&self) -> &[Pattern] {
        &self.repositories
    }

    pub(super) fn takes_repository(&self, name: &str) -> bool {
        self.repositories.is_empty() || self.repositories.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether a tag is copied for its own sake.
    pub(super) fn takes_tag(&self, tag: &Tag) -> bool {
        let tag = tag.as_str();
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(tag));
        let everything = self.tags.is_empty() && self.semver.is_none();
        let version = || self.semver.as_ref().is_some_and(|range| is_within(range, tag));
        subject_of(tag).is_none() && !any(&self.exclude_tags) && (everything || any(&self.tags) || version())
    }

    /// Of all tags those that hold signatures of what is copied (`sha256-….sig`). Lists of referrers, which have the same
    /// name without an ending, are not copied but kept up.
    pub(super) fn attached<'a>(
        &self,
        tags: impl IntoIterator<Item = &'a Tag>,
        copied: &BTreeSet<Digest>,
    ) -> Vec<Tag> {
        let everything = !self.selects_tags();
        let wanted = |tag: &&Tag| match subject_of(tag.as_str()) {
            Some((_, "")) | None => false,
            Some((subject, _)) => {
                self.referrers && (everything || copied.iter().any(|digest| digest.fallback_tag() == subject))
            }
        };
        tags.into_iter().filter(wanted).cloned().collect()
    }

    /// Whether only certain tags are copied.
    pub(super) fn selects_tags(&self) -> bool {
        !self.tags.is_empty() || self.semver.is_some() || !self.exclude_tags.is_empty()
    }

    /// What a tag says that it signs, where it can be told from it alone.
    pub(super) fn signed_by(tag: &Tag) -> Option<Digest> {
        let (subject, ending) = subject_of(tag.as_str())?;
        subject.replacen('-', ":", 1).parse().ok().filter(|_| !ending.is_empty())
    }

    /// Whether signatures have tags that this one is.
    pub(super) fn is_attached(tag: &Tag) -> bool {
        subject_of(tag.as_str()).is_some()
    }
}

/// `sha256-` and 64 hexadecimal digits, and what stands behind them.
fn subject_of(tag: &str) -> Option<(&str, &str)> {
    let digits = tag.strip_prefix("sha256-").or_else(|| tag.strip_prefix("sha512-"))?;
    let (digits, ending) = digits.split_at_checked(64)?;
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let ends = ending.is_empty() || ending.starts_with('.');
    (hexadecimal && ends).then(|| (&tag[..tag.len() - ending.len()], ending))
}

/// `1.2.3`, with or without a `v` before it and with what is left out at its end taken as 0.
fn is_within(range: &VersionReq, tag: &str) -> bool {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let full = match numbers.matches('.').count() {
        0 => format!("{numbers}.0.0{rest}"),
        1 => format!("{numbers}.0{rest}"),
        _ => text.to_owned(),
    };
    full.parse::<Version>().is_ok_and(|version| range.matches(&version))
}

/// The name at the target of a repository of the source.
pub(super) fn arrives_as(destination: &replication::Destination, name: &str) -> String {
    let replication::Destination { prefix, flatten } = destination;
    let steps: Vec<_> = name.split('/').collect();
    let without = usize::try_from(*flatten).unwrap_or(usize::MAX).min(steps.len() - 1);
    let name = steps[without..].join("/");
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

/// The other way round, where that is possible.
pub(super) fn came_from<'a>(destination: &replication::Destination, name: &'a str) -> Option<&'a str> {
    let prefix = destination.prefix.trim_matches('/');
    match (destination.flatten, prefix) {
        (0, "") => Some(name),
        (0, prefix) => name.strip_prefix(prefix)?.strip_prefix('/'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn filters(change: impl FnOnce(&mut replication::Filters)) -> Filters {
        let mut filters = replication::Filters::default();
        change(&mut filters);
        Filters::try_from(&filters).unwrap()
    }

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    #[test]
    fn tags() {
        let all = filters(|_| {});
        assert!(all.takes_tag(&tag("v1")) && all.takes_repository("a/b"));
        let some = filters(|filters| {
            filters.tags = vec!["v*".into()];
            filters.exclude_tags = vec!["*-rc*".into()];
        });
        assert!(
            some.takes_tag(&tag("v1")) && !some.takes_tag(&tag("v1-rc1")) && !some.takes_tag(&tag("latest"))
        );
        let versions = filters(|filters| {
            filters.tags = vec!["latest".into()];
            filters.semver = Some(">=1.2, <2".into());
        });
        for wanted in ["latest", "1.2.0", "v1.3", "1.9.9", "v1.2.3"] {
            assert!(versions.takes_tag(&tag(wanted)), "{wanted}");
        }
        for unwanted in ["1", "2.0.0", "v1.1.9", "1.3.0-rc1", "edge"] {
            assert!(!versions.takes_tag(&tag(unwanted)), "{unwanted}");
        }
    }

    #[test]
    fn signatures_go_with_what_they_sign() {
        let digest = |content: &str| Digest::of(oci::Algorithm::Sha256, content.as_bytes());
        let signature =
            |content: &str, ending: &str| tag(&format!("{}{ending}", digest(content).fallback_tag()));
        let tags = [tag("v1"), signature("a", ".sig"), signature("b", ".sig"), signature("a", "")];
        let copied = BTreeSet::from([digest("a")]);
        let all = filters(|_| {});
        assert!(!all.takes_tag(&tags[1]) && !all.takes_tag(&tags[3]));
        assert_eq!(all.attached(&tags, &copied), [tags[1].clone(), tags[2].clone()]);
        let some = filters(|filters| filters.tags = vec!["v*".into()]);
        assert_eq!(some.attached(&tags, &copied), [tags[1].clone()]);
        assert_eq!(Filters::signed_by(&tags[1]), Some(digest("a")));
        assert!(tags.iter().filter(|tag| Filters::signed_by(tag).is_some()).count() == 2);
        let none = filters(|filters| filters.referrers = false);
        assert!(none.attached(&tags, &copied).is_empty());
    }

    #[test]
    fn what_means_nothing() {
        let invalid = |change: fn(&mut replication::Filters)| {
            let mut filters = replication::Filters::default();
            change(&mut filters);
            Filters::try_from(&filters).unwrap_err().to_string()
        };
        assert!(invalid(|filters| filters.semver = Some("new".into())).contains("range"));
        assert!(invalid(|filters| filters.repositories = vec!["/a".into()]).contains("pattern"));
        assert!(invalid(|filters| filters.platforms = vec!["amd64".into()]).contains("platform"));
    }

    #[rstest]
    #[case("", 0, "a/b/c", "a/b/c")]
    #[case("mirror", 0, "a/b/c", "mirror/a/b/c")]
    #[case("mirror/", 2, "a/b/c", "mirror/c")]
    #[case("", 9, "a/b/c", "c")]
    fn names(#[case] prefix: &str, #[case] flatten: u32, #[case] name: &str, #[case] expected: &str) {
        let destination = replication::Destination { prefix: prefix.into(), flatten };
        assert_eq!(arrives_as(&destination, name), expected);
        if flatten == 0 {
            assert_eq!(came_from(&destination, expected), Some(name));
        } else {
            assert_eq!(came_from(&destination, expected), None);
        }
    }
}
