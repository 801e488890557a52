//! Basic authentication (RFC 7617): a username without a colon, then a secret.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, header};

/// Some clients leave the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client presents. Not printed anywhere.
pub(super) struct Credentials {
    pub(super) username: Vec<u8>,
    pub(super) secret: Vec<u8>,
}

/// Reads the Authorization header; none where it is missing or anything else.
pub(super) fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut username = BASE64.decode(encoded.trim()).ok()?;
    let colon = username.iter().position(|&byte| byte == b':')?;
    let secret = username.split_off(colon + 1);
    username.pop();
    Some(Credentials { username, secret })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn parse(value: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).ok()?);
        credentials(&headers).map(|credentials| (credentials.username, credentials.secret))
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
