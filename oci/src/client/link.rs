//! The header `Link` of lists that come in pages (RFC 8288).

use http::{HeaderMap, header};

/// Path and query of the next page. The host is not taken from the answer: a registry behind a proxy may not know its
/// own name, and none has a reason to send a client elsewhere.
#[must_use]
pub(super) fn next(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(links).find(|(_, parameters)| is_next(parameters)).and_then(|(target, _)| path(target))
}

/// Targets and what follows each of them.
fn links(value: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some((target, after)) = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        let end = after.find('<').unwrap_or(after.len());
        let (parameters, more) = after.split_at(end);
        found.push((target, parameters));
        rest = more;
    }
    found
}

fn is_next(parameters: &str) -> bool {
    parameters.split([';', ',']).filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let relations = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel")
            && relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

/// None where it is neither absolute nor begins with a slash.
fn path(target: &str) -> Option<String> {
    let target = match target.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => target,
    };
    (target.starts_with('/') && !target.starts_with("//")).then(|| target.to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"</v2/a/tags/list?n=5&last=b>; rel="next""#, Some("/v2/a/tags/list?n=5&last=b"))]
    #[case("<https://inside:5000/v2/_catalog?last=b>; rel=next", Some("/v2/_catalog?last=b"))]
    #[case(r#"</1>; rel="prev", </2>; title="x"; rel="last NEXT""#, Some("/2"))]
    #[case(r#"</1>; rel="prev""#, None)]
    #[case("<//other.example/v2/>; rel=next", None)]
    #[case("<https://nothing>; rel=next", None)]
    #[case("<relative>; rel=next", None)]
    #[case("nonsense", None)]
    fn next_pages(#[case] value: &'static str, #[case] expected: Option<&str>) {
        let headers = HeaderMap::from_iter([(header::LINK, HeaderValue::from_static(value))]);
        assert_eq!(next(&headers).as_deref(), expected);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(value in r#"[<>a-z/;=", :é]{0,32}"#) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                let _ = next(&HeaderMap::from_iter([(header::LINK, value)]));
            }
        }
    }
}
