//! Digests, and hashing that can pause: a [`Digest`] always has a known algorithm and the right number of lowercase
//! hexadecimal digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{
    Digest as _, Sha256, Sha512,
    digest::common::hazmat::{SerializableState, SerializedState},
};

/// A hash that content may be named by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// What everybody uses.
    #[default]
    Sha256,
    /// The other one that the image specification registers.
    Sha512,
}

/// Every algorithm, for code that looks through all of them.
pub const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

impl Algorithm {
    /// As written before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Number of hexadecimal digits after the colon.
    #[must_use]
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl FromStr for Algorithm {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        ALGORITHMS.into_iter().find(|known| known.as_str() == text).ok_or(InvalidDigest::Algorithm)
    }
}

/// The name of content: `sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Text that is no digest, or none that is understood here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// Not `algorithm:hex`.
    #[error("not a digest: expected `sha256:` and 64, or `sha512:` and 128, lowercase hexadecimal digits")]
    Syntax,
    /// The algorithm is another one.
    #[error("this digest algorithm is not supported: use sha256 or sha512")]
    Algorithm,
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// `algorithm:hex`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the colon.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }

    /// What stands after the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[self.0.len() - self.algorithm().hex_len()..]
    }

    /// The tag under which clients keep the referrers of this digest where a registry has no referrers API.
    #[must_use]
    pub fn fallback_tag(&self) -> String {
        format!("{}-{}", self.algorithm().as_str(), &self.hex()[..64])
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (algorithm, hex) = text.split_once(':').ok_or(InvalidDigest::Syntax)?;
        let algorithm: Algorithm = algorithm.parse()?;
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() == algorithm.hex_len() && hex.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDigest::Syntax)
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// Hashes a stream piece by piece; can be put aside and taken up again by another process.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// A hasher that was put aside, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    algorithm: Algorithm,
    state: String,
}

impl Paused {
    /// What was being computed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Hasher {
    /// Starts with nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// What it computes.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of everything taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm().as_str();
        let hex = match self.0 {
            State::Sha256(hash) => hex::encode(hash.finalize()),
            State::Sha512(hash) => hex::encode(hash.finalize()),
        };
        Digest(format!("{algorithm}:{hex}"))
    }

    /// Puts it aside.
    #[must_use]
    pub fn pause(&self) -> Paused {
        let state = match &self.0 {
            State::Sha256(hash) => hex::encode(hash.serialize()),
            State::Sha512(hash) => hex::encode(hash.serialize()),
        };
        Paused { algorithm: self.algorithm(), state }
    }

    /// Takes up what was put aside; none where the text is damaged.
    #[must_use]
    pub fn resume(paused: &Paused) -> Option<Self> {
        Some(Self(match paused.algorithm {
            Algorithm::Sha256 => State::Sha256(deserialize(&paused.state)?),
            Algorithm::Sha512 => State::Sha512(deserialize(&paused.state)?),
        }))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm().as_str())
    }
}

fn deserialize<H: SerializableState>(text: &str) -> Option<H> {
    let mut state = SerializedState::<H>::default();
    hex::decode_to_slice(text, &mut state).ok()?;
    H::deserialize(&state).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn nothing_has_the_well_known_digest() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        assert_eq!(digest.as_str(), EMPTY);
        assert_eq!(digest.hex(), &EMPTY[7..]);
        assert_eq!(digest.fallback_tag(), EMPTY.replace(':', "-"));
    }

    #[rstest]
    #[case::short("sha256:abc", InvalidDigest::Syntax)]
    #[case::words("sha256:baddigeststring", InvalidDigest::Syntax)]
    #[case::no_colon("sha256", InvalidDigest::Syntax)]
    #[case::unknown("md5:d41d8cd98f00b204e9800998ecf8427e", InvalidDigest::Algorithm)]
    #[case::nothing("", InvalidDigest::Syntax)]
    #[case::wrong_length_for_algorithm(&EMPTY.replace("sha256", "sha512"), InvalidDigest::Syntax)]
    #[case::upper_case(&EMPTY.replace('e', "E"), InvalidDigest::Syntax)]
    #[case::path(
        "sha256:../../../../../../../../../../../../../../../../../../../../../etc/p",
        InvalidDigest::Syntax
    )]
    fn what_is_no_digest(#[case] text: &str, #[case] error: InvalidDigest) {
        assert_eq!(text.parse::<Digest>(), Err(error));
    }

    proptest! {
        #[test]
        fn what_is_computed_parses(bytes: Vec<u8>) {
            for algorithm in ALGORITHMS {
                let digest = Digest::of(algorithm, &bytes);
                prop_assert_eq!(digest.as_str().parse::<Digest>(), Ok(digest.clone()));
                prop_assert_eq!(digest.algorithm(), algorithm);
                prop_assert_eq!(digest.hex().len(), algorithm.hex_len());
            }
        }

        #[test]
        fn a_pause_changes_nothing(head: Vec<u8>, tail: Vec<u8>) {
            for algorithm in ALGORITHMS {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&head);
                let mut hasher = Hasher::resume(&hasher.pause()).unwrap();
                hasher.update(&tail);
                prop_assert_eq!(hasher.finish(), Digest::of(algorithm, &[&head[..], &tail[..]].concat()));
            }
        }

        #[test]
        fn parsing_never_panics(text: String) {
            let _ = text.parse::<Digest>();
        }
    }

    #[test]
    fn damaged_pauses_are_noticed() {
        let paused = Paused { algorithm: Algorithm::Sha256, state: "00".into() };
        assert!(Hasher::resume(&paused).is_none());
    }
}
