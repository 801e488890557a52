//! Which secrets look like a ServiceAccount's token for this registry, so that no others are shown to the cluster.
//!
//! Nothing that stands in such a token is believed: that is for the cluster to say, see [`super::reviews`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde::Deserialize;

use super::account::Account;

/// The largest token; usual ones have one KiB.
const LARGEST: usize = 16 << 10;

/// Looks like a token. Not printed anywhere.
pub(super) struct Presented<'a> {
    pub(super) token: &'a str,
    /// How much longer it says it lives; nothing where it has expired.
    pub(super) left: Duration,
    /// Whose it says it is.
    pub(super) claimed: Account,
}

#[derive(Deserialize)]
struct Claims {
    aud: Audience,
    exp: u64,
    sub: String,
}

/// One, or several (RFC 7519, 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A token of three parts that says that it is for this audience, and a ServiceAccount's.
pub(super) fn presented<'a>(secret: &'a [u8], audience: &str, now: SystemTime) -> Option<Presented<'a>> {
    let token = std::str::from_utf8(secret).ok().filter(|token| token.len() <= LARGEST)?;
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if [header, signature].iter().any(|part| part.is_empty() || !part.bytes().all(usual)) {
        return None;
    }
    let Claims { aud, exp, sub } = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
    let ours = match aud {
        Audience::One(one) => one == audience,
        Audience::Several(several) => several.iter().any(|one| one == audience),
    };
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(exp))?;
    let left = expires.duration_since(now).unwrap_or_default();
    let claimed = Account::parse(&sub).filter(|_| ours)?;
    Some(Presented { token, left, claimed })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const AUDIENCE: &str = "berth.dev/apps/demo";
    const NOW: u64 = 1_800_000_000;
    const CI: &str = "system:serviceaccount:apps:ci";

    fn look(secret: &[u8]) -> Option<Presented<'_>> {
        presented(secret, AUDIENCE, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    fn token(claims: &Value) -> String {
        format!("{}.{}.c2ln", BASE64.encode(r#"{"alg":"RS256"}"#), BASE64.encode(claims.to_string()))
    }

    #[test]
    fn a_token_for_us() {
        let several = json!({"aud": ["other", AUDIENCE], "exp": NOW + 60, "sub": CI, "iss": "x", "jti": 1});
        for claims in [json!({"aud": AUDIENCE, "exp": NOW + 60, "sub": CI}), several] {
            let token = token(&claims);
            let presented = look(token.as_bytes()).unwrap();
            assert_eq!(presented.token, token);
            assert_eq!(presented.left, Duration::from_secs(60));
            assert_eq!(&**presented.claimed.name(), CI);
        }
    }

    #[rstest]
    #[case(NOW + 1, 1)]
    #[case(NOW, 0)]
    #[case(NOW - 1, 0)]
    #[case(0, 0)]
    fn an_expired_token_has_nothing_left(#[case] exp: u64, #[case] left: u64) {
        let token = token(&json!({"aud": AUDIENCE, "exp": exp, "sub": CI}));
        assert_eq!(look(token.as_bytes()).unwrap().left, Duration::from_secs(left));
    }

    #[rstest]
    #[case::other_audience(json!({"aud": ["berth.dev/apps/demo2"], "exp": NOW + 60, "sub": CI}))]
    #[case::longer_audience(json!({"aud": "berth.dev/apps/demo/", "exp": NOW + 60, "sub": CI}))]
    #[case::no_audience(json!({"exp": NOW + 60, "sub": CI}))]
    #[case::for_ever(json!({"aud": AUDIENCE, "sub": CI}))]
    #[case::beyond_time(json!({"aud": AUDIENCE, "exp": u64::MAX, "sub": CI}))]
    #[case::before_time(json!({"aud": AUDIENCE, "exp": -1, "sub": CI}))]
    #[case::nobody(json!({"aud": AUDIENCE, "exp": NOW + 60}))]
    #[case::a_person(json!({"aud": AUDIENCE, "exp": NOW + 60, "sub": "alice"}))]
    #[case::a_node(json!({"aud": AUDIENCE, "exp": NOW + 60, "sub": "system:node:one"}))]
    #[case::no_object(json!([AUDIENCE, NOW + 60, CI, 1]))]
    fn what_is_none(#[case] claims: Value) {
        assert!(look(token(&claims).as_bytes()).is_none());
    }

    #[test]
    fn other_shapes_are_none() {
        let token = token(&json!({"aud": AUDIENCE, "exp": NOW + 60, "sub": CI}));
        let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
        for secret in [
            format!("{token}.x"),
            format!("{header}.{claims}"),
            format!(".{claims}.{signature}"),
            format!("{header}.{claims}."),
            format!("{header}.{claims}.a b"),
            format!("{header}.{claims}==.{signature}"),
            format!("{token}{}", "x".repeat(LARGEST)),
        ] {
            assert!(look(secret.as_bytes()).is_none(), "{secret}");
        }
        assert!(look(b"\xff.\xff.\xff").is_none());
    }

    proptest! {
        #[test]
        fn looking_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), claims in "\\PC{0,60}") {
            prop_assert!(look(&bytes).is_none());
            let _ = look(format!("e30.{}.x", BASE64.encode(&claims)).as_bytes());
            let _ = look(format!("{claims}.{claims}.{claims}").as_bytes());
        }
    }
}
