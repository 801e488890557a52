//! When to try again: soon at first, then later, never all at once, and not before a registry says so.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header};
use tokio::time::Instant;

/// How often a request is tried that fails.
pub(super) const ATTEMPTS: u32 = 5;
/// How often one is tried that comes too early.
pub(super) const PATIENT_ATTEMPTS: u32 = 12;
/// Nobody waits longer for a registry that has had enough.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// How long to wait after the `n`th failure, beginning with 0: up to a fifth more or less than 0.1 s, 0.2 s, 0.4 s, …, 10 s.
#[must_use]
pub fn backoff(n: u32) -> Duration {
    let full = Duration::from_millis(100 << n.min(7)).min(Duration::from_secs(10));
    full.mul_f32(0.8 + 0.4 * chance())
}

/// Between 0 and 1.
fn chance() -> f32 {
    let mut byte = [0];
    // Without randomness all wait equally long, which is well enough.
    let _ = getrandom::fill(&mut byte);
    f32::from(byte[0]) / 255.0
}

/// What `Retry-After` says: seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Holds all requests to a registry that has had enough, until it wants more.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<Instant>>);

impl Gate {
    /// Nobody passes for so long.
    pub(super) fn close(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *gate = Some(gate.map_or(until, |former| former.max(until)));
    }

    /// Waits until it is open.
    pub(super) async fn pass(&self) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", Some(0))]
    #[case(" 17 ", Some(17))]
    #[case("Thu, 01 Jan 1970 00:01:40 GMT", Some(90))]
    #[case("Thu, 01 Jan 1970 00:00:01 GMT", Some(0))]
    #[case("99999999999999999999999", Some(Duration::MAX.as_secs()))]
    #[case("-1", None)]
    #[case("soon", None)]
    #[case("", None)]
    fn retry_after_is_honoured(#[case] text: &'static str, #[case] seconds: Option<u64>) {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(text))]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        assert_eq!(retry_after(&headers, now).map(|wait| wait.as_secs()), seconds);
    }

    #[test]
    fn waiting_grows_and_ends() {
        assert!(backoff(0) <= Duration::from_millis(121));
        assert!(backoff(3) >= Duration::from_millis(639));
        assert!(backoff(u32::MAX) <= Duration::from_secs(12));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_holds_everybody() {
        let (gate, start) = (Gate::default(), Instant::now());
        gate.pass().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        gate.close(Duration::from_secs(5));
        gate.close(Duration::from_secs(2));
        tokio::join!(gate.pass(), gate.pass());
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
