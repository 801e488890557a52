//! Durations as specs write them: `720h`, `1h30m`.

use std::time::Duration;

/// A duration such as `720h` or `1h30m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for part in text.split_inclusive(['h', 'm', 's']) {
        let unit = match part.chars().last()? {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        let count: u32 = part[..part.len() - 1].parse().ok()?;
        total = total.saturating_add(Duration::from_secs(unit) * count);
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("720h", Some(2_592_000))]
    #[case("1h30m", Some(5400))]
    #[case("90m5s", Some(5405))]
    #[case("", Some(0))]
    #[case("h", None)]
    #[case("12", None)]
    #[case("99999999999h", None)]
    fn durations(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(duration(text), seconds.map(Duration::from_secs));
    }
}
