//! Certificates in Secrets: kept while they are good, issued anew when not.
//!
//! A seal over everything that matters (authority, names, expiry, certificate, key) stands in an annotation: what does
//! not match it was edited, or asks for other names than before, and is replaced.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp,
};
use kube::ResourceExt as _;
use time::OffsetDateTime;

use crate::{
    authority::{self, Authority, LIFETIME, Pair, RENEW_BEFORE, Usage},
    keys::RegistryKey,
};

const SEAL: &str = "berth.dev/seal";
const EXPIRES: &str = "berth.dev/certificate-expires";

/// The Secret that should be: with the observed one's certificate where that is still good at `now`.
pub(crate) fn desired(
    observed: Option<&Secret>,
    metadata: ObjectMeta,
    names: &[String],
    authority: &Authority,
    key: &RegistryKey,
    now: Timestamp,
) -> Result<Secret, authority::Error> {
    let (pair, expires) = match observed.and_then(|secret| still_good(secret, names, authority, key, now)) {
        Some(good) => good,
        None => issue(names, authority, now)?,
    };
    let seal = seal(&pair, &expires, names, authority, key);
    let annotations = [(SEAL, seal), (EXPIRES, expires)].map(|(name, value)| (name.to_owned(), value));
    let data = [("tls.crt", pair.cert), ("tls.key", pair.key), ("ca.crt", authority.cert().to_owned())];
    Ok(Secret {
        metadata: ObjectMeta { annotations: Some(annotations.into()), ..metadata },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data.map(|(name, value)| (name.to_owned(), ByteString(value.into_bytes()))).into()),
        ..Secret::default()
    })
}

/// When the certificate in this Secret expires, RFC 3339.
pub(crate) fn expires(secret: &Secret) -> Option<String> {
    secret.annotations().get(EXPIRES).cloned()
}

fn still_good(
    secret: &Secret,
    names: &[String],
    authority: &Authority,
    key: &RegistryKey,
    now: Timestamp,
) -> Option<(Pair, String)> {
    let data = secret.data.as_ref()?;
    let pair = Pair { cert: text(data, "tls.crt")?, key: text(data, "tls.key")? };
    let expires = expires(secret)?;
    let renew_at = expires.parse::<Timestamp>().ok()?.as_second() - RENEW_BEFORE.whole_seconds();
    let sealed = secret.annotations().get(SEAL)? == &seal(&pair, &expires, names, authority, key);
    (sealed && now.as_second() < renew_at).then_some((pair, expires))
}

fn issue(
    names: &[String],
    authority: &Authority,
    now: Timestamp,
) -> Result<(Pair, String), authority::Error> {
    let expires = now.as_second() + LIFETIME.whole_seconds();
    let pair = authority.issue(
        names,
        Usage::Server,
        OffsetDateTime::from_unix_timestamp(expires).unwrap_or(OffsetDateTime::UNIX_EPOCH),
    )?;
    let expires = Timestamp::from_second(expires).unwrap_or(now);
    Ok((pair, expires.to_string()))
}

fn seal(pair: &Pair, expires: &str, names: &[String], authority: &Authority, key: &RegistryKey) -> String {
    key.seal(&[authority.cert(), &names.join(","), expires, &pair.cert, &pair.key])
}

/// The value of a key, where it is text.
pub(crate) fn text(data: &BTreeMap<String, ByteString>, name: &str) -> Option<String> {
    String::from_utf8(data.get(name)?.0.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::Keys, testing::registry};

    struct World {
        authority: Authority,
        key: RegistryKey,
        now: Timestamp,
    }

    impl World {
        fn new() -> Self {
            Self {
                authority: Authority::load(&Authority::create("test").unwrap()).unwrap(),
                key: Keys::new(&[7; 32]).unwrap().of(&registry("demo")),
                now: Timestamp::now(),
            }
        }

        fn desired(&self, observed: Option<&Secret>, names: &[&str]) -> Secret {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            desired(observed, ObjectMeta::default(), &names, &self.authority, &self.key, self.now).unwrap()
        }
    }

    #[test]
    fn a_good_certificate_is_kept() {
        let world = World::new();
        let first = world.desired(None, &["demo.apps.svc", "10.0.0.1"]);
        assert_eq!(world.desired(Some(&first), &["demo.apps.svc", "10.0.0.1"]), first);
    }

    #[test]
    fn other_names_another_authority_or_an_edit_give_a_new_one() {
        let mut world = World::new();
        let first = world.desired(None, &["demo.apps.svc", "10.0.0.1"]);
        assert_ne!(world.desired(Some(&first), &["demo.apps.svc", "10.0.0.2"]), first);
        let mut edited = first.clone();
        edited.data.as_mut().unwrap().insert("tls.key".into(), ByteString(b"mine".to_vec()));
        assert_ne!(
            text(&world.desired(Some(&edited), &["demo.apps.svc", "10.0.0.1"]).data.unwrap(), "tls.key")
                .unwrap(),
            "mine"
        );
        world.authority = World::new().authority;
        assert_ne!(world.desired(Some(&first), &["demo.apps.svc", "10.0.0.1"]), first);
    }

    #[test]
    fn it_is_renewed_before_it_expires() {
        let mut world = World::new();
        let first = world.desired(None, &["demo.apps.svc"]);
        let days = |days: i64| Timestamp::from_second(world.now.as_second() + days * 86_400).unwrap();
        let (day_59, day_61) = (days(59), days(61));
        world.now = day_59;
        assert_eq!(world.desired(Some(&first), &["demo.apps.svc"]), first);
        world.now = day_61;
        assert_ne!(world.desired(Some(&first), &["demo.apps.svc"]), first);
    }
}
