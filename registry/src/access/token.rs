//! Bearer tokens: who, by which credential, until when and for what, signed.
//!
//! ```text
//! base64url(JSON claims) "." base64url(HMAC-SHA256(key, "berth token 1" NUL first part))
//! ```
//!
//! Not a JWT, because who signs and who checks are the same registry, clients pass tokens on unread, and a format
//! with one algorithm and no header can't be talked into another one. A token grants nothing by itself: the policy
//! decides on every request, so that what is revoked ends at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// How long a token lives. Clients older than `expires_in` believe in 60 seconds, so that less would not work.
const LIFETIME: Duration = Duration::from_secs(300);
const CONTEXT: &[u8] = b"berth token 1\0";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    /// None for somebody without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Subject>,
    /// Seconds since 1970.
    pub(super) expires: u64,
    pub(super) scope: String,
}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    pub(super) user: String,
    /// Fingerprint of the secret or password that it was got with.
    pub(super) credential: String,
}

/// How long a token may live that is given out now: not longer than what it was got with.
pub(super) fn lifetime(until: Option<SystemTime>, now: SystemTime) -> Duration {
    until.map_or(LIFETIME, |until| until.duration_since(now).unwrap_or_default().min(LIFETIME))
}

/// Signs and checks.
#[derive(Clone)]
pub(super) struct Signer(Hmac<Sha256>);

impl Signer {
    pub(super) fn new(key: &[u8]) -> Self {
        let mac = Hmac::new_from_slice(key);
        Self(mac.unwrap_or_else(|_| unreachable!("HMAC takes keys of any length")))
    }

    pub(super) fn sign(&self, subject: Option<Subject>, scope: &str, expires: SystemTime) -> String {
        let claims = Claims { subject, expires: seconds(expires), scope: scope.to_owned() };
        let claims = BASE64.encode(serde_json::to_vec(&claims).unwrap_or_default());
        let mac = self.mac(&claims).finalize().into_bytes();
        format!("{claims}.{}", BASE64.encode(mac))
    }

    /// None where this registry never gave it out, or its time is over.
    pub(super) fn check(&self, token: &str, now: SystemTime) -> Option<Claims> {
        let (claims, mac) = token.split_once('.')?;
        // In constant time.
        self.mac(claims).verify_slice(&BASE64.decode(mac).ok()?).ok()?;
        let claims: Claims = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        (seconds(now) < claims.expires).then_some(claims)
    }

    fn mac(&self, claims: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(CONTEXT);
        mac.update(claims.as_bytes());
        mac
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn subject() -> Subject {
        Subject { user: "ci".into(), credential: "00".into() }
    }

    #[test]
    fn a_token_lives_five_minutes_and_one_registry() {
        let signer = Signer::new(b"key");
        let token = signer.sign(Some(subject()), "repository:a:pull", now() + lifetime(None, now()));
        let claims = signer.check(&token, now()).unwrap();
        assert_eq!(claims.subject, Some(subject()));
        assert_eq!(claims.scope, "repository:a:pull");
        assert!(signer.check(&token, now() + LIFETIME - Duration::from_secs(1)).is_some());
        assert_eq!(signer.check(&token, now() + LIFETIME), None);
        assert!(Signer::new(b"key").check(&token, now()).is_some(), "another replica, or after a restart");
        assert_eq!(Signer::new(b"other").check(&token, now()), None);
    }

    #[test]
    fn a_token_does_not_outlive_what_it_was_got_with() {
        let second = Duration::from_secs(1);
        assert_eq!(lifetime(Some(now() + 7 * second), now()), 7 * second);
        assert_eq!(lifetime(Some(now() + 2 * LIFETIME), now()), LIFETIME);
        assert_eq!(lifetime(Some(now() - second), now()), Duration::ZERO);
    }

    #[test]
    fn what_was_changed_is_nothing() {
        let signer = Signer::new(b"key");
        let token = signer.sign(None, "", now() + LIFETIME);
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(signer.check(&changed, now()), None, "at {index}");
        }
        let (claims, _) = token.split_once('.').unwrap();
        for token in ["", ".", claims, &format!("{claims}."), &format!("{token}A"), &token[..token.len() - 1]]
        {
            assert_eq!(signer.check(token, now()), None, "{token}");
        }
    }

    proptest! {
        #[test]
        fn checking_never_panics(token in "[-A-Za-z0-9_.=]{0,60}|\\PC{0,30}") {
            prop_assert_eq!(Signer::new(b"key").check(&token, now()), None);
        }
    }
}
