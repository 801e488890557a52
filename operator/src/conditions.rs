//! Conditions in the standard form. Source: API conventions, "Typical status properties".

use std::borrow::Cow;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// One answer: true or false, why, and a sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) yes: bool,
    pub(crate) reason: Cow<'static, str>,
    pub(crate) message: String,
}

impl Answer {
    pub(crate) fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { yes: true, reason: reason.into(), message: message.into() }
    }

    pub(crate) fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { yes: false, reason: reason.into(), message: message.into() }
    }
}

impl From<&Condition> for Answer {
    fn from(condition: &Condition) -> Self {
        let Condition { status, reason, message, .. } = condition;
        Self { yes: status == "True", reason: reason.clone().into(), message: message.clone() }
    }
}

/// The condition that says this; the time of transition stays while true stays true.
pub(crate) fn condition(
    type_: &str,
    answer: &Answer,
    generation: Option<i64>,
    former: &[Condition],
    now: Timestamp,
) -> Condition {
    let status = if answer.yes { "True" } else { "False" };
    let former = former.iter().find(|former| former.type_ == type_ && former.status == status);
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: answer.reason.clone().into_owned(),
        message: answer.message.clone(),
        observed_generation: generation,
        last_transition_time: former.map_or(Time(now), |former| former.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_transition_stays_until_the_status_changes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = condition("Ready", &Answer::no("A", "a"), Some(1), &[], at(10));
        let second = condition("Ready", &Answer::no("B", "b"), Some(2), std::slice::from_ref(&first), at(20));
        assert_eq!(second.last_transition_time, first.last_transition_time);
        let third = condition("Ready", &Answer::yes("C", "c"), Some(2), &[second], at(30));
        assert_eq!(third.last_transition_time.0, at(30));
    }
}
