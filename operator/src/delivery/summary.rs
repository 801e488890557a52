//! What a delivery is told as: in the Repository's status, and to who looks again.

use std::{collections::BTreeMap, time::Duration};

use crds::{
    Repository,
    repository::{AccessSecret, SecretStatus},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Delivered, Error, errand::Outcome, logins::login, placement::secrets};
use crate::{
    apply,
    desired::policy::{DeliveredLogin, Logins},
    reconcile::is_namespace_terminating,
};

/// So many problems of one Secret are told.
const PROBLEMS: usize = 10;
/// No watch tells when a person has solved a problem.
const RETRY: Duration = Duration::from_secs(60);

/// Gathers what came of each namespace.
pub(super) struct Summary {
    now: Timestamp,
    /// By username.
    logins: BTreeMap<String, DeliveredLogin>,
    statuses: Vec<Status>,
    next: Option<Timestamp>,
    failed: Option<Error>,
    /// Whether something waits for a person.
    retry: bool,
}

struct Status {
    name: String,
    namespaces: i32,
    expires: Option<Timestamp>,
    problems: BTreeMap<String, String>,
}

impl Summary {
    /// `logins` are those that watches know, maybe from a moment ago.
    pub(super) fn new(repository: &Repository, logins: Logins, now: Timestamp) -> Self {
        let status = |secret: &AccessSecret| Status {
            name: secret.name.clone(),
            namespaces: 0,
            expires: None,
            problems: BTreeMap::new(),
        };
        let statuses = secrets(repository).map(|(_, secret)| status(secret)).collect();
        let logins =
            logins.into_iter().map(|delivered| (delivered.login.username.clone(), delivered)).collect();
        Self { now, logins, statuses, next: None, failed: None, retry: false }
    }

    /// Namespaces that do not get the Secret though they should, of which watches tell.
    pub(super) fn refused(&mut self, secret: &AccessSecret, problems: BTreeMap<String, String>) {
        if let Some(status) = self.statuses.iter_mut().find(|status| status.name == secret.name) {
            status.problems.extend(problems);
        }
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        for (placement, credential) in &outcome.held {
            self.logins.insert(placement.username(), login(placement, credential, self.now));
            let name = &placement.secret.name;
            let Some(status) = self.statuses.iter_mut().find(|status| status.name == *name) else { continue };
            status.namespaces = status.namespaces.saturating_add(1);
            status.expires = status.expires.into_iter().chain([credential.due(placement)]).min();
            self.next = self.next.into_iter().chain([credential.next(placement)]).min();
        }
        let held: Vec<_> = outcome.held.iter().map(|(placement, _)| placement.secret.name.as_str()).collect();
        for (secret, error) in outcome.failed {
            let Some(problem) = problem(&error) else { continue };
            // What belongs to no single Secret is a problem of all that are there.
            let names = secret.map_or_else(|| held.clone(), |secret| vec![secret.name.as_str()]);
            for status in self.statuses.iter_mut().filter(|status| names.contains(&status.name.as_str())) {
                status.problems.entry(outcome.namespace.to_owned()).or_insert_with(|| problem.clone());
            }
            if is_for_a_person(&error) && !names.is_empty() {
                self.retry = true;
            } else {
                self.failed.get_or_insert(error);
            }
        }
    }

    pub(super) fn delivered(self) -> Delivered {
        let until = |next: Timestamp| {
            let left = next.duration_since(self.now).max(SignedDuration::from_secs(1));
            left.unsigned_abs()
        };
        let retry = self.retry.then_some(RETRY);
        Delivered {
            logins: self.logins.into_values().collect(),
            statuses: self.statuses.into_iter().map(Status::told).collect(),
            next: self.next.map(until).into_iter().chain(retry).min(),
            failed: self.failed,
        }
    }
}

impl Status {
    fn told(self) -> SecretStatus {
        SecretStatus {
            name: self.name,
            namespaces: self.namespaces,
            expires: self.expires.map(|time| time.to_string()),
            problems: self.problems.into_iter().take(PROBLEMS).collect(),
        }
    }
}

/// What people should read of it, if anything.
fn problem(error: &Error) -> Option<String> {
    match error {
        Error::Apply(error) if is_namespace_terminating(error) => None,
        Error::Apply(apply::Error::Foreign { what }) => {
            Some(format!("{what} exists and was not made for this Repository: give one of them another name"))
        }
        error => Some(error.to_string()),
    }
}

/// Whether trying again at once can't help.
fn is_for_a_person(error: &Error) -> bool {
    match error {
        Error::Apply(apply::Error::Foreign { .. } | apply::Error::Taken { .. }) | Error::Altered(_) => true,
        Error::Apply(apply::Error::Apply { source: kube::Error::Api(status), .. }) => {
            matches!(status.code, 400..=499) && ![404, 409, 429].contains(&status.code)
        }
        _ => false,
    }
}
