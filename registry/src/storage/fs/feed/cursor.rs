//! Cursors: places in the feed that only this registry can read or make, so that they tell nobody how much went on in
//! repositories that they may not see.

use std::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A feed without gaps. Its name stands in names of files and nowhere else: it is the key that cursors are sealed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch([u8; 16]);

/// Between two entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(super) epoch: Epoch,
    /// Bytes before it since the epoch began.
    pub(super) offset: u64,
}

impl Epoch {
    pub(super) fn random() -> Self {
        Self(*uuid::Uuid::new_v4().as_bytes())
    }

    fn code(self, what: &[u8], sealed: &[u8]) -> [u8; 8] {
        // A key of any length will do.
        let mac =
            Hmac::<Sha256>::new_from_slice(&self.0).map(|mac| mac.chain_update(what).chain_update(sealed));
        let mut code = [0; 8];
        if let Ok(mac) = mac {
            code.copy_from_slice(&mac.finalize().into_bytes()[..8]);
        }
        code
    }

    fn mask(self, nonce: [u8; 8], offset: [u8; 8]) -> [u8; 8] {
        let mut masked = self.code(b"mask", &nonce);
        masked.iter_mut().zip(offset).for_each(|(byte, offset)| *byte ^= offset);
        masked
    }

    /// The position that a cursor of this epoch means.
    pub(super) fn open(self, cursor: &str) -> Option<Position> {
        let mut bytes = [0; 24];
        hex::decode_to_slice(cursor, &mut bytes).ok()?;
        let (sealed, code) = bytes.split_first_chunk::<16>()?;
        if code != self.code(b"seal", sealed) {
            return None;
        }
        let (nonce, masked) = sealed.split_first_chunk::<8>()?;
        let offset = u64::from_be_bytes(self.mask(*nonce, masked.try_into().ok()?));
        Some(Position { epoch: self, offset })
    }
}

impl Position {
    /// Whether so many bytes are between them, or more.
    pub(crate) fn is_beyond(self, begin: Self, bytes: u64) -> bool {
        self.offset.saturating_sub(begin.offset) >= bytes
    }

    /// Another text each time.
    pub(crate) fn cursor(self) -> String {
        let nonce = uuid::Uuid::new_v4().as_u64_pair().1.to_be_bytes();
        let sealed = [nonce, self.epoch.mask(nonce, self.offset.to_be_bytes())].concat();
        let code = self.epoch.code(b"seal", &sealed);
        hex::encode([&sealed[..], &code].concat())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Epoch")
    }
}

impl FromStr for Epoch {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// That no text but a cursor of the epoch is one; for fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(text: &str) {
    let epoch = Epoch([7; 16]);
    if let Some(position) = epoch.open(text) {
        assert_eq!(epoch.open(&position.cursor()), Some(position));
    }
    assert_eq!(Epoch([8; 16]).open(text), None, "nobody has made one of this epoch");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_means_its_position_in_its_epoch_alone(offset: u64, at in 0..48_usize, digit in "[0-9a-f]") {
            let position = Position { epoch: Epoch::random(), offset };
            let cursor = position.cursor();
            prop_assert_eq!(position.epoch.open(&cursor), Some(position));
            prop_assert_ne!(position.cursor(), cursor.clone());
            prop_assert_eq!(Epoch::random().open(&cursor), None);
            let mut forged = cursor.clone();
            forged.replace_range(at..=at, &digit);
            prop_assert!(forged == cursor || position.epoch.open(&forged).is_none());
        }

        #[test]
        fn parsing_never_panics(text in r"[0-9a-f]{48}|\PC{0,60}") {
            fuzz(&text);
        }
    }
}
