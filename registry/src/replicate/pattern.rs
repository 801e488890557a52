//! Patterns of repositories and tags. Matching takes time in proportion to pattern and text, whatever is written.

use std::str::FromStr;

/// A pattern: `*` is anything within one step of a path, `**` is anything. In tags, which have no steps, both are the
/// same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(String);

/// Text that can match nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no pattern: give a name, in which `*` stands for anything within one step and `**` for anything"
)]
pub(super) struct InvalidPattern(String);

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"*/._-:".contains(&byte);
        if text.is_empty() || text.starts_with('/') || text.ends_with('/') || !text.bytes().all(usual) {
            return Err(InvalidPattern(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Pattern {
    /// As written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// It names one thing.
    pub(super) fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        // Positions in the text that the pattern's beginning can have led to.
        let text = text.as_bytes();
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        let mut rest = self.0.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            let deep = first == b'*' && tail.first() == Some(&b'*');
            rest = if deep { &tail[1..] } else { tail };
            reached = if first == b'*' { stretch(&reached, text, deep) } else { step(&reached, text, first) };
        }
        reached[text.len()]
    }
}

fn step(reached: &[bool], text: &[u8], byte: u8) -> Vec<bool> {
    let mut next = vec![false; reached.len()];
    for (at, &here) in text.iter().enumerate() {
        next[at + 1] = reached[at] && here == byte;
    }
    next
}

fn stretch(reached: &[bool], text: &[u8], deep: bool) -> Vec<bool> {
    let mut next = reached.to_vec();
    for (at, &here) in text.iter().enumerate() {
        next[at + 1] |= next[at] && (deep || here != b'/');
    }
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("team/app", "team/app", true)]
    #[case("team/app", "team/app2", false)]
    #[case("team/*", "team/app", true)]
    #[case("team/*", "team/app/web", false)]
    #[case("team/**", "team/app/web", true)]
    #[case("team/**", "team", false)]
    #[case("**", "team/app", true)]
    #[case("*", "team/app", false)]
    #[case("**/app", "a/b/app", true)]
    #[case("*-v1*", "release-v1.2", true)]
    #[case("v*.*", "v1", false)]
    #[case("***", "a/b", true)]
    fn what_matches(#[case] pattern: &str, #[case] text: &str, #[case] expected: bool) {
        assert_eq!(pattern.parse::<Pattern>().unwrap().matches(text), expected);
    }

    #[test]
    fn what_is_none() {
        for text in ["", "/a", "a/", "a b", "a?", "[a]"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_what_is_wider(text in "[a-z/]{1,12}", at in 0..12_usize) {
            prop_assume!(!text.starts_with('/') && !text.ends_with('/'));
            let pattern: Pattern = text.parse().unwrap();
            prop_assert!(pattern.matches(&text) && pattern.is_literal());
            let at = at.min(text.len());
            let wider = format!("{}**{}", &text[..at], &text[at..]);
            if let Ok(pattern) = wider.parse::<Pattern>() {
                prop_assert!(pattern.matches(&text) && !pattern.is_literal());
            }
        }

        #[test]
        fn matching_is_that_of_a_simple_definition(pattern in "[ab*/]{1,6}", text in "[ab/]{0,6}") {
            if let Ok(parsed) = pattern.parse::<Pattern>() {
                prop_assert_eq!(parsed.matches(&text), simple(pattern.as_bytes(), text.as_bytes()));
            }
        }
    }

    fn simple(pattern: &[u8], text: &[u8]) -> bool {
        let ends = |slash: bool| move |&end: &usize| slash || !text[..end].contains(&b'/');
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => {
                (0..=text.len()).filter(ends(true)).any(|end| simple(rest, &text[end..]))
            }
            [b'*', rest @ ..] => (0..=text.len()).filter(ends(false)).any(|end| simple(rest, &text[end..])),
            [byte, rest @ ..] => text.first() == Some(byte) && simple(rest, &text[1..]),
        }
    }
}
