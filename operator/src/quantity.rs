//! Quantities of Kubernetes, compared by value. Source: the API conventions, "Quantity".

/// A quantity as a number, exact enough to tell `0.5` from `501m`.
pub(crate) fn value_of(quantity: &str) -> Option<f64> {
    let digits =
        quantity.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(digits);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        exponent => 10.0_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    // Rounded to nano, Kubernetes' own resolution, so that 0.1 and 100m meet.
    Some((number.parse::<f64>().ok()? * factor * 1e9).round())
}

/// A quantity as a number of whole bytes.
pub(crate) fn bytes(quantity: &str) -> Option<u64> {
    /// No status can show more.
    const MOST: u64 = 1 << 62;
    let bytes = (value_of(quantity)? / 1e9).floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "out of range, it is the nearest"
    )]
    let whole = bytes as u64;
    (bytes >= 0.0 && whole <= MOST).then_some(whole)
}

/// A number of bytes as people read it: `1.2Gi`.
pub(crate) fn for_people(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if bytes < 1024 {
        return bytes.to_string();
    }
    let unit = (bytes.ilog2() / 10).min(6);
    let tenths = u128::from(bytes) * 10 / (1 << (10 * unit));
    format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit as usize - 1])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("20Gi", Some(20 << 30))]
    #[case("0.5Gi", Some(1 << 29))]
    #[case("1e3", Some(1000))]
    #[case("1m", Some(0))]
    #[case("-1", None)]
    #[case("lots", None)]
    #[case("100E", None)]
    fn bytes_are_whole(#[case] quantity: &str, #[case] expected: Option<u64>) {
        assert_eq!(bytes(quantity), expected);
    }

    #[rstest]
    #[case(0, "0")]
    #[case(1023, "1023")]
    #[case(1024, "1.0Ki")]
    #[case(1 << 30, "1.0Gi")]
    #[case(1_299_227_607, "1.2Gi")]
    #[case(u64::MAX, "15.9Ei")]
    fn sizes_are_short(#[case] bytes: u64, #[case] expected: &str) {
        assert_eq!(for_people(bytes), expected);
    }
}
