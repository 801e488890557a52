//! The Authorization header: Basic (RFC 7617: a username without a colon, then a secret) and Bearer (RFC 6750).

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderValue;

/// Some clients leave the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client presents. Not printed anywhere.
pub(crate) struct Credentials {
    pub(crate) username: Vec<u8>,
    pub(crate) secret: Vec<u8>,
}

/// A username and secret; none where the header is anything else.
pub(super) fn credentials(header: &HeaderValue) -> Option<Credentials> {
    let encoded = of_scheme(header, "basic")?;
    let mut username = BASE64.decode(encoded).ok()?;
    let colon = username.iter().position(|&byte| byte == b':')?;
    let secret = username.split_off(colon + 1);
    username.pop();
    Some(Credentials { username, secret })
}

/// A token; none where the header is anything else.
pub(super) fn bearer(header: &HeaderValue) -> Option<&str> {
    of_scheme(header, "bearer")
}

fn of_scheme<'a>(header: &'a HeaderValue, wanted: &str) -> Option<&'a str> {
    let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(value: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        credentials(&HeaderValue::from_str(value).ok()?)
            .map(|credentials| (credentials.username, credentials.secret))
    }

    #[test]
    fn forms_in_use() {
        let expected = Some((b"admin".to_vec(), b"a:b".to_vec()));
        for value in ["Basic YWRtaW46YTpi", "basic YWRtaW46YTpi", "BASIC  YWRtaW46YTpi"] {
            assert_eq!(parse(value), expected, "{value}");
        }
        assert_eq!(parse("Basic OmE="), Some((vec![], b"a".to_vec())));
        assert_eq!(parse("Basic OmE"), parse("Basic OmE="), "without padding");
    }

    #[test]
    fn anything_else_is_nothing() {
        for value in ["", "Basic", "Basic ", "Basic ????", "Basic YWRtaW4=", "Bearer YTpi", "YTpi"] {
            assert_eq!(parse(value), None, "{value}");
        }
    }

    #[test]
    fn tokens() {
        let parse = |value| bearer(&HeaderValue::from_static(value)).map(str::to_owned);
        assert_eq!(parse("Bearer abc.def"), Some("abc.def".to_owned()));
        assert_eq!(parse("bearer  abc"), Some("abc".to_owned()));
        assert_eq!(parse("Basic YTpi"), None);
        assert_eq!(parse("Bearer"), None);
    }

    proptest! {
        #[test]
        fn round_trip(username in "[^:]{0,20}", secret in ".{0,20}") {
            let encoded = BASE64.encode(format!("{username}:{secret}"));
            prop_assert_eq!(parse(&format!("Basic {encoded}")), Some((username.into_bytes(), secret.into_bytes())));
        }

        #[test]
        fn parsing_never_panics(value in "(Basic )?[ -~]{0,30}") {
            let _ = parse(&value);
        }
    }
}
