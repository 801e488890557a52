//! The `Range` of a download (RFC 9110, section 14): one range of bytes; anything else is the whole.

/// Which bytes of a blob to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of them: nothing else was asked for, or nothing that is understood here.
    Whole,
    /// These, at least one.
    Part { first: u64, length: u64 },
    /// There are none such.
    Unsatisfiable,
}

/// What a `Range` header selects of `size` bytes. Several ranges at once are answered with the whole, which RFC 9110
/// allows and no client of a registry needs otherwise.
pub(crate) fn select(header: Option<&str>, size: u64) -> Selection {
    let Some(range) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Selection::Whole;
    };
    let Some((first, last)) = range.trim().split_once('-') else {
        return Selection::Whole;
    };
    match (number(first), number(last)) {
        // The last so many bytes.
        (None, Some(count)) if first.is_empty() => match count.min(size) {
            0 => Selection::Unsatisfiable,
            length => Selection::Part { first: size - length, length },
        },
        (Some(first), None) if last.is_empty() => until(first, size.saturating_sub(1), size),
        (Some(first), Some(last)) if first <= last => until(first, last, size),
        // RFC 9110, 15.5.17: a range that is invalid may be rejected like one that is not there.
        (Some(_), Some(_)) => Selection::Unsatisfiable,
        _ => Selection::Whole,
    }
}

fn until(first: u64, last: u64, size: u64) -> Selection {
    if first >= size {
        return Selection::Unsatisfiable;
    }
    Selection::Part { first, length: last.min(size - 1) - first + 1 }
}

/// Digits only. A number beyond all sizes counts as the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn part(first: u64, length: u64) -> Selection {
        Selection::Part { first, length }
    }

    #[rstest]
    #[case("bytes=0-0", part(0, 1))]
    #[case("bytes=2-5", part(2, 4))]
    #[case("bytes=5-", part(5, 5))]
    #[case("bytes=-3", part(7, 3))]
    #[case("bytes=-30", part(0, 10))]
    #[case("bytes=2-50", part(2, 8))]
    #[case("bytes=2-99999999999999999999999", part(2, 8))]
    #[case("bytes=10-", Selection::Unsatisfiable)]
    #[case("bytes=10-12", Selection::Unsatisfiable)]
    #[case("bytes=-0", Selection::Unsatisfiable)]
    #[case("bytes=5-2", Selection::Unsatisfiable)]
    #[case("bytes=1-2,4-5", Selection::Whole)]
    #[case("bytes=", Selection::Whole)]
    #[case("bytes=-", Selection::Whole)]
    #[case("bytes=+1-2", Selection::Whole)]
    #[case("lines=1-2", Selection::Whole)]
    fn of_ten_bytes(#[case] header: &str, #[case] expected: Selection) {
        assert_eq!(select(Some(header), 10), expected);
    }

    #[test]
    fn of_nothing() {
        assert_eq!(select(None, 0), Selection::Whole);
        assert_eq!(select(Some("bytes=0-"), 0), Selection::Unsatisfiable);
        assert_eq!(select(Some("bytes=-1"), 0), Selection::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_lies_within(header in "bytes=[0-9]{0,21}-[0-9]{0,21}|[ -~]{0,20}", size: u64) {
            if let Selection::Part { first, length } = select(Some(&header), size) {
                prop_assert!(length > 0 && first.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }
}
