//! What a registry asks for with 401: the header `WWW-Authenticate` (RFC 9110, 11.6.1; RFC 6750, 3).

/// One way to prove who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Username and password with each request.
    Basic,
    /// A token, which is to be had elsewhere.
    Bearer {
        /// Where.
        realm: String,
        /// What for.
        service: Option<String>,
        /// For which rights.
        scope: Option<String>,
    },
}

/// All ways that are understood here, in their order. What can't be read is left out.
#[must_use]
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header;
    let mut current: Option<(String, Vec<(String, String)>)> = None;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else { break };
        let word = word.to_ascii_lowercase();
        if let Some((value, after)) = after.trim_start().strip_prefix('=').and_then(value) {
            if let Some((_, parameters)) = &mut current {
                parameters.push((word, value));
            }
            rest = after;
        } else {
            challenges.extend(current.replace((word, Vec::new())).and_then(understand));
            rest = after;
        }
    }
    challenges.extend(current.and_then(understand));
    challenges
}

fn understand((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let get = |wanted: &str| {
        let found = parameters.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") })
        }
        _ => None,
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token, or text in quotes, in which a backslash stands before what is meant as it is.
fn value(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) }
    }

    #[rstest]
    #[case::berth(
        r#"Bearer realm="https://a/token",service="berth",scope="repository:a:pull,push",error="invalid_token""#,
        &[bearer("https://a/token", Some("berth"), Some("repository:a:pull,push"))]
    )]
    #[case::basic(r#"Basic realm="berth", charset="UTF-8""#, &[Challenge::Basic])]
    #[case::bare("basic", &[Challenge::Basic])]
    #[case::both(r#"Basic realm="x", bearer  Realm = "y" , service=z"#, &[Challenge::Basic, bearer("y", Some("z"), None)])]
    #[case::unknown(r#"Negotiate, Digest realm="x", nonce="Basic", Bearer realm=y"#, &[bearer("y", None, None)])]
    #[case::escapes(r#"Bearer realm="a\"b\\c, Basic""#, &[bearer(r#"a"b\c, Basic"#, None, None)])]
    #[case::no_realm(r#"Bearer service="x""#, &[])]
    #[case::unfinished(r#"Bearer realm="x"#, &[])]
    #[case::nothing("", &[])]
    fn challenges(#[case] header: &str, #[case] expected: &[Challenge]) {
        assert_eq!(parse(header), expected);
    }

    proptest! {
        #[test]
        fn what_is_asked_is_understood(
            realm in "[a-z:/.]{1,20}", scope in proptest::option::of("[a-z:,/ ]{1,20}"), before in any::<bool>(),
        ) {
            let before = if before { "Basic realm=\"x\", " } else { "" };
            let after = scope.as_ref().map(|scope| format!(", scope=\"{scope}\"")).unwrap_or_default();
            let header = format!("{before}Bearer realm=\"{realm}\"{after}");
            prop_assert_eq!(parse(&header).pop(), Some(bearer(&realm, None, scope.as_deref())));
        }

        #[test]
        fn parsing_never_panics(header in r#"([a-zA-Z]{1,8}|[ ,="\\é]){0,24}"#) {
            let _ = parse(&header);
        }
    }
}
