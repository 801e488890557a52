//! The `Content-Range` of an upload's chunk: `first-last`, both inclusive, `first` never after `last`.

use std::str::FromStr;

/// Which bytes of a blob a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    first: u64,
    last: u64,
}

/// Text that is no chunk range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a chunk's range: expected `<first>-<last>`, both inclusive")]
pub struct InvalidContentRange;

impl ContentRange {
    /// Offset of the first byte.
    #[must_use]
    pub fn first(self) -> u64 {
        self.first
    }

    /// Number of bytes, at least 1.
    #[must_use]
    pub fn length(self) -> u64 {
        self.last - self.first + 1
    }
}

impl FromStr for ContentRange {
    type Err = InvalidContentRange;

    /// `^[0-9]+-[0-9]+$`; like most registries also takes `bytes 0-9/10` and `bytes=0-9`, which some clients send.
    fn from_str(text: &str) -> Result<Self, InvalidContentRange> {
        let range = text.strip_prefix("bytes ").or_else(|| text.strip_prefix("bytes=")).unwrap_or(text);
        let range = range.split_once('/').map_or(range, |(range, _whole)| range);
        let (first, last) = range.split_once('-').ok_or(InvalidContentRange)?;
        let (first, last) = (number(first)?, number(last)?);
        // The length of a range must itself be a number.
        if first <= last && last < u64::MAX { Ok(Self { first, last }) } else { Err(InvalidContentRange) }
    }
}

/// Digits only: Rust's own parser would take a plus sign.
fn number(text: &str) -> Result<u64, InvalidContentRange> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().map_err(|_| InvalidContentRange)
    } else {
        Err(InvalidContentRange)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_in_use() {
        for text in ["0-9", "bytes 0-9/10", "bytes=0-9", "bytes 0-9/*"] {
            let range: ContentRange = text.parse().unwrap();
            assert_eq!((range.first(), range.length()), (0, 10), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in ["", "-", "0-", "-9", "9-0", "+0-9", "0 - 9", "a-b", "0-9-", "0-18446744073709551615"] {
            assert_eq!(text.parse::<ContentRange>(), Err(InvalidContentRange), "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(first in 0..u64::MAX / 2, more in 0..u64::MAX / 4) {
            let range: ContentRange = format!("{first}-{}", first + more).parse().unwrap();
            prop_assert_eq!((range.first(), range.length()), (first, more + 1));
        }

        #[test]
        fn parsing_never_panics(text in "[0-9 =/bytes-]{0,24}") {
            if let Ok(range) = text.parse::<ContentRange>() {
                prop_assert!(range.length() > 0);
            }
        }
    }
}
