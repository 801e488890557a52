//! A generated password: it exists in the Secret that carries it and nowhere else, and is never shown.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use channel::policy::SecretHash;

/// 256 random bits, as 43 characters that need no quoting anywhere.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(String);

impl Password {
    const BYTES: usize = 32;

    /// A new one from the system's random numbers.
    pub(super) fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; Self::BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// None where the text can't be one of ours: nothing shorter is ever a password.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == Self::BYTES).then(|| Self(text.to_owned()))
    }

    /// For the Secret, and for nothing else.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// What registries get to know of it.
    pub(super) fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.as_bytes())
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_differ_and_are_not_shown() {
        let (one, other) = (Password::generate().unwrap(), Password::generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.reveal().len(), 43);
        assert!(!format!("{one:?}").contains(one.reveal()));
        assert_eq!(Password::parse(one.reveal()), Some(one));
    }

    #[test]
    fn what_is_empty_or_short_is_no_password() {
        for text in ["", "secret", &"A".repeat(42), &"A".repeat(44), &"ä".repeat(43)] {
            assert_eq!(Password::parse(text), None);
        }
    }
}
