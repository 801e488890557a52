//! Times at which runs begin: a cron expression in a time zone.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::{conditions::Answer, durations::duration};

/// Certain times.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    cron: Cron,
    zone: TimeZone,
    deadline: SignedDuration,
}

impl Schedule {
    /// What the spec says, or what is wrong with it.
    pub(super) fn parse(spec: &crds::replication::Schedule) -> Result<Self, Answer> {
        let crds::replication::Schedule { cron, time_zone, starting_deadline } = spec;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(cron).map_err(|error| {
            let sentence = format!(
                "schedule.cron is no cron expression of minute, hour, day of the month, month and day of the week, such as `0 3 * * *`: {error}"
            );
            Answer::no("InvalidSchedule", sentence)
        })?;
        let name = time_zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|_| {
            let sentence = format!("schedule.timeZone {name} is unknown: use a name such as Europe/Berlin");
            Answer::no("InvalidTimeZone", sentence)
        })?;
        let deadline = duration(starting_deadline).and_then(|deadline| deadline.try_into().ok());
        let deadline = deadline.ok_or_else(|| {
            Answer::no("InvalidSchedule", "schedule.startingDeadline is no duration such as 1h")
        })?;
        Ok(Self { cron, zone, deadline })
    }

    /// The time for which a run is due: the last one, where it is after `since` and not longer ago than the deadline.
    pub(super) fn due(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let last = self.cron.find_previous_occurrence(&now.to_zoned(self.zone.clone()), true).ok()?;
        let last = last.timestamp();
        (last > since && now.duration_since(last) <= self.deadline).then_some(last)
    }

    /// The next time after this one.
    pub(super) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&now.to_zoned(self.zone.clone()), false).ok()?;
        Some(next.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn schedule(cron: &str, zone: &str, deadline: &str) -> Result<Schedule, Answer> {
        Schedule::parse(&crds::replication::Schedule {
            cron: cron.into(),
            time_zone: Some(zone.into()),
            starting_deadline: deadline.into(),
        })
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[rstest]
    #[case("0 3 * * *", "UTC", None)]
    #[case("*/5 * * * MON-FRI", "Europe/Berlin", None)]
    #[case("0 3 * *", "UTC", Some("InvalidSchedule"))]
    #[case("0 0 3 * * *", "UTC", Some("InvalidSchedule"))]
    #[case("61 3 * * *", "UTC", Some("InvalidSchedule"))]
    #[case("tomorrow", "UTC", Some("InvalidSchedule"))]
    #[case("0 3 * * *", "Europe/Atlantis", Some("InvalidTimeZone"))]
    fn what_is_wrong_is_said(#[case] cron: &str, #[case] zone: &str, #[case] reason: Option<&str>) {
        let wrong = schedule(cron, zone, "1h").err();
        assert_eq!(wrong.as_ref().map(|answer| &*answer.reason), reason);
    }

    #[test]
    fn times_are_those_of_the_zone_whatever_its_clocks_do() {
        let daily = schedule("30 2 * * *", "Europe/Berlin", "1h").unwrap();
        assert_eq!(daily.next(at("2026-01-10T00:00:00Z")), Some(at("2026-01-10T01:30:00Z")));
        assert_eq!(daily.next(at("2026-07-10T00:00:00Z")), Some(at("2026-07-10T00:30:00Z")));
        // Clocks go from 2 to 3 on this day; the day has its run all the same.
        let next = daily.next(at("2026-03-28T12:00:00Z")).unwrap();
        assert_eq!(next.duration_since(at("2026-03-29T00:00:00Z")).as_hours(), 1);
    }

    #[test]
    fn one_run_makes_up_for_all_that_were_missed_within_the_deadline() {
        let often = schedule("*/10 * * * *", "UTC", "15m").unwrap();
        let (noon, long_ago) = (at("2026-01-10T12:00:00Z"), at("2026-01-01T00:00:00Z"));
        let later = |seconds| noon + SignedDuration::from_secs(seconds);
        assert_eq!(often.due(long_ago, later(0)), Some(noon));
        assert_eq!(often.due(long_ago, later(599)), Some(noon));
        assert_eq!(often.due(noon, later(599)), None);
        assert_eq!(often.due(noon, later(600)), Some(later(600)));
        let nightly = schedule("0 12 * * *", "UTC", "15m").unwrap();
        assert_eq!(nightly.due(long_ago, later(900)), Some(noon));
        assert_eq!(nightly.due(long_ago, later(901)), None);
    }
}
