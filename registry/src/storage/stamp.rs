//! When and where a tag was set or deleted. Where two registries say different things of a tag, the later stamp is right,
//! whatever the clocks of those who carry it.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use oci::Digest;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Longest id of a registry.
const MAX_ORIGIN: usize = 128;
/// Clocks of registries that work together differ by less.
const AHEAD: Duration = Duration::from_secs(300);

/// A moment in microseconds since 1970, in a year of four digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(i64);

/// The id of a registry, or the host of one that has none: 1 to 128 characters of `[A-Za-z0-9._:/-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(Arc<str>);

/// When and where. As text: the time, a space, the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) time: Time,
    pub(crate) origin: Origin,
}

/// Text that is no stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidStamp {
    #[error("it should be `<origin>; time=<RFC 3339>`")]
    Syntax,
    #[error("an origin has 1 to {MAX_ORIGIN} letters, digits, `.`, `_`, `:`, `/` and `-`")]
    Origin,
    #[error("the time is none of RFC 3339")]
    Time,
    #[error("the time is more than {} s ahead of this registry's clock", AHEAD.as_secs())]
    Ahead,
}

impl Time {
    const LAST: Self = Self(253_402_300_799_999_999);

    /// What can't be a time of RFC 3339 becomes the next one that can.
    pub(crate) fn of(time: SystemTime) -> Self {
        let micros = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(_) => 0,
        };
        Self(micros.min(Self::LAST.0))
    }

    /// A microsecond later.
    fn next(self) -> Self {
        Self(self.0 + 1).min(Self::LAST)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at =
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).map_err(|_| fmt::Error)?;
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second, micros) = at.to_hms_micro();
        let month = u8::from(month);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

impl FromStr for Time {
    type Err = InvalidStamp;

    /// Digits after the sixth one of a second are left out.
    fn from_str(text: &str) -> Result<Self, InvalidStamp> {
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidStamp::Time)?;
        let micros = i64::try_from(at.unix_timestamp_nanos().div_euclid(1000));
        micros.ok().map(Self).filter(|time| (0..=Self::LAST.0).contains(&time.0)).ok_or(InvalidStamp::Time)
    }
}

impl Origin {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// One that no other registry has.
    pub(super) fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }
}

impl FromStr for Origin {
    type Err = InvalidStamp;

    fn from_str(text: &str) -> Result<Self, InvalidStamp> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
        let is_origin = (1..=MAX_ORIGIN).contains(&text.len()) && text.bytes().all(allowed);
        if is_origin { Ok(Self(text.into())) } else { Err(InvalidStamp::Origin) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Stamp {
    /// Now, but later than what was there before.
    pub(super) fn now(origin: &Origin, formers: impl IntoIterator<Item = Time>) -> Self {
        let former = formers.into_iter().max();
        let now = Time::of(SystemTime::now());
        let time = former.map_or(now, |former| now.max(former.next()));
        Self { time, origin: origin.clone() }
    }

    /// From `<origin>; time=<RFC 3339>`.
    pub(crate) fn parse(header: &str) -> Result<Self, InvalidStamp> {
        let (origin, time) = header.split_once(';').ok_or(InvalidStamp::Syntax)?;
        let time = time.trim().strip_prefix("time=").ok_or(InvalidStamp::Syntax)?;
        Ok(Self { origin: origin.trim().parse()?, time: time.parse()? })
    }

    /// An error where it comes from a clock that is far ahead.
    pub(crate) fn check(self, now: SystemTime) -> Result<Self, InvalidStamp> {
        if self.time <= Time::of(now + AHEAD) { Ok(self) } else { Err(InvalidStamp::Ahead) }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.time, self.origin)
    }
}

impl FromStr for Stamp {
    type Err = InvalidStamp;

    fn from_str(text: &str) -> Result<Self, InvalidStamp> {
        let (time, origin) = text.split_once(' ').ok_or(InvalidStamp::Syntax)?;
        Ok(Self { time: time.parse()?, origin: origin.parse()? })
    }
}

impl From<&Stamp> for channel::feed::Stamp {
    fn from(stamp: &Stamp) -> Self {
        Self { time: stamp.time.to_string(), origin: stamp.origin.to_string() }
    }
}

/// What became of a name, and when. A tag that was set, or one that was deleted and pointed to this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) digest: Digest,
    pub(super) stamp: Stamp,
    pub(super) is_deletion: bool,
}

impl Event {
    /// Of two events of one name the greater one counts: the later, at the same time that of the larger digest, and a
    /// deletion after what it deletes.
    fn rank(&self) -> (Time, &str, bool) {
        (self.stamp.time, self.digest.as_str(), self.is_deletion)
    }

    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }
}

#[cfg(test)]
mod tests {
    use oci::Algorithm;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a; time=2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z a")]
    #[case("a.b:5000/c;time=2026-01-02T03:04:05.1234567+01:00", "2026-01-02T02:04:05.123456Z a.b:5000/c")]
    #[case(" a-_B ;  time=1970-01-01T00:00:00Z ", "1970-01-01T00:00:00.000000Z a-_B")]
    fn headers(#[case] header: &str, #[case] stamp: &str) {
        assert_eq!(Stamp::parse(header).unwrap().to_string(), stamp);
    }

    #[rstest]
    #[case("", InvalidStamp::Syntax)]
    #[case("a", InvalidStamp::Syntax)]
    #[case("a; 2026-01-02T03:04:05Z", InvalidStamp::Syntax)]
    #[case("; time=2026-01-02T03:04:05Z", InvalidStamp::Origin)]
    #[case("a b; time=2026-01-02T03:04:05Z", InvalidStamp::Origin)]
    #[case("a\nb; time=2026-01-02T03:04:05Z", InvalidStamp::Origin)]
    #[case("a; time=2026-01-02", InvalidStamp::Time)]
    #[case("a; time=1969-01-02T03:04:05Z", InvalidStamp::Time)]
    #[case("a; time=2026-01-02T03:04:05Z; more", InvalidStamp::Time)]
    fn no_headers(#[case] header: &str, #[case] error: InvalidStamp) {
        assert_eq!(Stamp::parse(header), Err(error));
    }

    fn time() -> impl Strategy<Value = Time> {
        prop_oneof![(0..5_i64).prop_map(Time), (0..=Time::LAST.0).prop_map(Time)]
    }

    fn stamp() -> impl Strategy<Value = Stamp> {
        (time(), "[A-Za-z0-9._:/-]{1,128}")
            .prop_map(|(time, origin)| Stamp { time, origin: origin.parse().unwrap() })
    }

    fn event() -> impl Strategy<Value = Event> {
        (stamp(), 0..3_u8, any::<bool>()).prop_map(|(stamp, content, is_deletion)| Event {
            digest: Digest::of(Algorithm::Sha256, &[content]),
            stamp,
            is_deletion,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_it_was(stamp in stamp()) {
            prop_assert_eq!(stamp.to_string().parse(), Ok(stamp.clone()));
            let header = format!("{}; time={}", stamp.origin, stamp.time);
            prop_assert_eq!(Stamp::parse(&header), Ok(stamp));
        }

        #[test]
        fn times_sort_as_they_read(one in time(), other in time()) {
            prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
        }

        #[test]
        fn now_is_later_than_all_before(formers in prop::collection::vec(0..Time::LAST.0, 0..4)) {
            let origin = "here".parse().unwrap();
            let now = Stamp::now(&origin, formers.iter().copied().map(Time));
            prop_assert!(formers.iter().all(|former| Time(*former) < now.time));
        }

        /// Registries that hear of the same events in any order end with the same one.
        #[test]
        fn whatever_comes_first_the_same_event_counts(events in prop::collection::vec(event(), 1..6)) {
            let last = |events: &mut dyn Iterator<Item = &Event>| {
                let kept = events.cloned().reduce(|here, new| if here.is_later_than(&new) { here } else { new });
                kept.map(|kept| (kept.stamp.time, kept.digest, kept.is_deletion))
            };
            prop_assert_eq!(last(&mut events.iter()), last(&mut events.iter().rev()));
        }

        #[test]
        fn parsing_never_panics(text in r"\PC{0,60}") {
            let _ = Stamp::parse(&text);
            let _ = text.parse::<Stamp>();
        }
    }

    #[test]
    fn a_clock_may_be_a_little_ahead() {
        let now = SystemTime::now();
        let at =
            |ahead| Stamp { time: Time::of(now + Duration::from_secs(ahead)), origin: "a".parse().unwrap() };
        assert_eq!(at(300).check(now), Ok(at(300)));
        assert_eq!(at(301).check(now), Err(InvalidStamp::Ahead));
    }
}
