//! Patterns of repositories: `*` is anything within one step of the path, `**` anything.

/// Whether a list of patterns lets this repository pass; an empty one lets everything.
pub(super) fn passes(patterns: &[String], repository: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern.as_bytes(), repository.as_bytes()))
}

/// Whether what passes may lie below this path.
pub(super) fn may_pass_below(patterns: &[String], path: &str) -> bool {
    let below = format!("{path}/");
    let may = |pattern: &String| {
        let literal = pattern.split('*').next().unwrap_or_default();
        literal.starts_with(&below) || below.starts_with(literal)
    };
    patterns.is_empty() || patterns.iter().any(may)
}

/// In steps of the pattern's length times the text's at most, whatever the pattern.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // `reached[n]`: what was read of the pattern can stand for the first n bytes of the text.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut rest = pattern;
    while let [first, more @ ..] = rest {
        let anything = rest.starts_with(b"**");
        if *first == b'*' {
            for n in 0..text.len() {
                reached[n + 1] |= reached[n] && (anything || text[n] != b'/');
            }
        } else {
            for n in (0..text.len()).rev() {
                reached[n + 1] = reached[n] && text[n] == *first;
            }
            reached[0] = false;
        }
        rest = if anything { &more[1..] } else { more };
    }
    reached[text.len()]
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("team/app", "team/app", true)]
    #[case("team/app", "team/app2", false)]
    #[case("team/*", "team/app", true)]
    #[case("team/*", "team/app/x", false)]
    #[case("team/*", "team", false)]
    #[case("team/**", "team/app/x", true)]
    #[case("**", "a/b/c", true)]
    #[case("*", "a/b", false)]
    #[case("*/app", "team/app", true)]
    #[case("**/app", "a/b/app", true)]
    #[case("**/app", "app", false)]
    #[case("team/a*p-*", "team/app-v2", true)]
    #[case("a***b", "a/x/b", true)]
    #[case("", "", true)]
    #[case("*", "", true)]
    fn patterns(#[case] pattern: &str, #[case] repository: &str, #[case] expected: bool) {
        assert_eq!(matches(pattern.as_bytes(), repository.as_bytes()), expected);
    }

    #[rstest]
    #[case(&[], true)]
    #[case(&["**"], true)]
    #[case(&["**/app"], true)]
    #[case(&["mirror/**"], true)]
    #[case(&["mir*/**"], true)]
    #[case(&["mirror/team/app"], true)]
    #[case(&["team/**"], false)]
    #[case(&["mirror2/**", "team/*"], false)]
    #[case(&["team/*", "m*"], true)]
    fn what_may_lie_below_a_path(#[case] patterns: &[&str], #[case] expected: bool) {
        let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        assert_eq!(may_pass_below(&patterns, "mirror"), expected);
    }

    #[test]
    fn no_pattern_lets_everything_pass() {
        assert!(passes(&[], "team/app"));
        assert!(!passes(&["other".into()], "team/app"));
        assert!(passes(&["other".into(), "team/*".into()], "team/app"));
    }
}
