//! One secret of the operator from which each Registry's passwords and seals are derived.
//!
//! A derived password needs no memory: a Secret that was deleted or edited gets the same one again. Passwords carry
//! 256 bits, and differ for a Registry that was deleted and made anew (its UID is part of the derivation).

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use crds::Registry;
use hmac::{Hmac, KeyInit as _, Mac as _};
use kube::ResourceExt as _;
use sha2::Sha256;

use crate::names;

/// The operator's secret: [`Keys::LENGTH`] random bytes.
#[derive(Clone)]
pub(crate) struct Keys(Vec<u8>);

impl Keys {
    /// Bytes of the operator's secret.
    pub(crate) const LENGTH: usize = 32;

    /// Takes the operator's secret; none where it has the wrong length.
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() == Self::LENGTH).then(|| Self(secret.to_owned()))
    }

    /// A new secret from the system's random numbers.
    pub(crate) fn generate() -> Result<Vec<u8>, getrandom::Error> {
        let mut secret = vec![0; Self::LENGTH];
        getrandom::fill(&mut secret)?;
        Ok(secret)
    }

    /// The key of what belongs to no Registry.
    pub(crate) fn of_operator(&self) -> RegistryKey {
        RegistryKey(mac(&self.0, &["operator"]))
    }

    /// The key that belongs to one Registry.
    pub(crate) fn of(&self, registry: &Registry) -> RegistryKey {
        let uid = registry.uid().unwrap_or_default();
        RegistryKey(mac(&self.0, &["registry", &names::namespace(registry), &registry.name_any(), &uid]))
    }
}

/// The key of one Registry.
pub(crate) struct RegistryKey([u8; 32]);

impl RegistryKey {
    /// The password of one of the Registry's users: 43 characters that need no quoting anywhere.
    pub(crate) fn password(&self, username: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(mac(&self.0, &["password", username]))
    }

    /// Tells whether parts that belong together are still as we made them.
    pub(crate) fn seal(&self, parts: &[&str]) -> String {
        hex::encode(mac(&mac(&self.0, &["seal"]), parts))
    }
}

fn mac(key: &[u8], parts: &[&str]) -> [u8; 32] {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    for part in parts {
        // With lengths, so that no two lists of parts look the same.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registry;

    #[test]
    fn passwords_are_stable_and_differ_by_user_registry_and_uid() {
        let keys = Keys::new(&[7; 32]).unwrap();
        let password = keys.of(&registry("demo")).password("admin");
        assert_eq!(password, keys.of(&registry("demo")).password("admin"));
        assert_eq!(password.len(), 43);
        let mut other = registry("demo");
        other.metadata.uid = Some("another".into());
        let others = [
            keys.of(&registry("demo")).password("reader"),
            keys.of(&registry("demo2")).password("admin"),
            keys.of(&other).password("admin"),
            Keys::new(&[8; 32]).unwrap().of(&registry("demo")).password("admin"),
        ];
        assert!(!others.contains(&password));
    }

    #[test]
    fn parts_cannot_be_shifted() {
        let key = Keys::new(&[7; 32]).unwrap().of(&registry("demo"));
        assert_ne!(key.seal(&["ab", "c"]), key.seal(&["a", "bc"]));
    }
}
