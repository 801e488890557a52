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
