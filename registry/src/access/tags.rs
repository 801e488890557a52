//! Which tags of a path stay where they are.

use channel::policy::{Mutability, Tags};
use oci::Tag;

/// What stands before the digest of what a tag is about.
const ABOUT: [&str; 2] = ["sha256-", "sha512-"];
/// So many of the digest's digits. Those of SHA-512 are cut, for a tag has at most 128 characters (referrers tag schema).
const DIGITS: usize = 64;

/// Decides for each tag.
#[derive(Debug, Default)]
pub(super) struct Immutable {
    /// None where all tags may move.
    except: Option<Box<[String]>>,
}

impl Immutable {
    pub(super) fn of(tags: &Tags) -> Self {
        match tags.mutability {
            Mutability::Mutable => Self::default(),
            Mutability::Immutable => Self { except: Some(tags.except.clone().into()) },
        }
    }

    /// Whether a tag stays where it is once it is there.
    pub(super) fn holds(&self, tag: &Tag) -> bool {
        let tag = tag.as_str();
        self.except.as_ref().is_some_and(|except| {
            !is_about_digest(tag) && !except.iter().any(|pattern| matches(pattern.as_bytes(), tag.as_bytes()))
        })
    }
}

/// Tags that clients move with each signature, attestation or referrer that they add to a manifest: its digest, with or
/// without a suffix such as `.sig` (the referrers tag schema, cosign).
fn is_about_digest(tag: &str) -> bool {
    ABOUT.iter().any(|algorithm| {
        let Some((digest, suffix)) =
            tag.strip_prefix(algorithm).and_then(|rest| rest.split_at_checked(DIGITS))
        else {
            return false;
        };
        let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        digest.bytes().all(is_digit) && (suffix.is_empty() || suffix.starts_with('.'))
    })
}

/// Whether a text is as a pattern says, in which `*` is anything. Looks back to the last `*` alone, so that no pattern
/// takes long.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                star = Some((at + 1, read));
                at += 1;
            }
            (Some(wanted), _) if *wanted == text[read] => {
                at += 1;
                read += 1;
            }
            (_, Some((after, from))) => {
                star = Some((after, from + 1));
                at = after;
                read = from + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("latest", "latest", true)]
    #[case("latest", "latest2", false)]
    #[case("*", "anything", true)]
    #[case("dev-*", "dev-", true)]
    #[case("dev-*", "dev-1", true)]
    #[case("dev-*", "x-dev-1", false)]
    #[case("*-rc*", "1.0-rc1-rc", true)]
    #[case("*-rc", "1.0-rc-rc", true)]
    #[case("a*b*c", "a-b-b-c", true)]
    #[case("a*b*c", "a-c-b", false)]
    #[case("", "a", false)]
    fn patterns(#[case] pattern: &str, #[case] tag: &str, #[case] expected: bool) {
        assert_eq!(matches(pattern.as_bytes(), tag.as_bytes()), expected);
    }

    #[rstest]
    #[case("v1", true)]
    #[case("latest", false)]
    #[case(&format!("sha256-{}", "a".repeat(64)), false)]
    #[case(&format!("sha256-{}.sig", "0".repeat(64)), false)]
    #[case(&format!("sha512-{}.att", "b".repeat(64)), false)]
    #[case(&format!("sha512-{}", "a".repeat(120)), true)]
    #[case(&format!("sha256-{}", "a".repeat(63)), true)]
    #[case(&format!("sha256-{}", "A".repeat(64)), true)]
    #[case(&format!("sha256-{}-v1", "a".repeat(64)), true)]
    fn all_stay_but_exceptions_and_signatures(#[case] tag: &str, #[case] stays: bool) {
        let tags = Tags { mutability: Mutability::Immutable, except: vec!["latest".into()] };
        let tag = tag.parse().unwrap();
        assert_eq!(Immutable::of(&tags).holds(&tag), stays);
        assert!(!Immutable::of(&Tags { mutability: Mutability::Mutable, ..tags }).holds(&tag));
    }
}
