//! What a run's pod is told, and where that finds what it needs.

use channel::replication as plan;
use channel::replication::{Credentials, Follow, Plan};
use crds::{Replication, replication as spec};
use sha2::{Digest as _, Sha256};

use super::{
    end::{End, Login, Trust},
    terms::Terms,
};

/// The plan and the operator's CA, which come with the pod itself.
pub(super) const PLAN: &str = "/etc/berth/replication";
/// File of the plan, in [`PLAN`].
pub(super) const PLAN_FILE: &str = "plan.json";
/// File of a CA, in [`PLAN`] or [`Side::ca`].
pub(super) const CA_FILE: &str = "ca.crt";
/// File of a token, in [`Side::token`].
pub(super) const TOKEN_FILE: &str = "token";
/// File of a `.dockerconfigjson`, in [`Side::credentials`].
pub(super) const DOCKER_FILE: &str = "config.json";
/// A registry looks at the token only.
const USERNAME: &str = "serviceaccount";
/// A run that follows ends after so long without a push.
const IDLE_SECONDS: u64 = 60;

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Source, Self::Target];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }

    /// Where the service account's token is mounted.
    pub(super) fn token(self) -> String {
        format!("/var/run/secrets/berth.dev/{}", self.as_str())
    }

    /// Where a login is mounted.
    pub(super) fn credentials(self) -> String {
        format!("/etc/berth/{}/credentials", self.as_str())
    }

    /// Where a CA is mounted.
    pub(super) fn ca(self) -> String {
        format!("/etc/berth/{}/ca", self.as_str())
    }
}

/// The plan of a run that ends after one comparison.
pub(super) fn plan(replication: &Replication, terms: &Terms, source: &End, target: &End) -> Plan {
    let spec = &replication.spec;
    let spec::Filters { repositories, tags, platforms, referrers } = spec.filters.clone();
    let spec::TagFilters { include, exclude, semver } = tags;
    let spec::Destination { prefix, flatten } = spec.destination.clone();
    Plan {
        source: end(source, Side::Source),
        target: end(target, Side::Target),
        filters: plan::Filters {
            repositories,
            tags: include,
            exclude_tags: exclude,
            semver,
            platforms,
            referrers,
        },
        destination: plan::Destination {
            prefix: prefix.unwrap_or_default(),
            flatten: flatten.and_then(|steps| steps.try_into().ok()).unwrap_or_default(),
        },
        deletions: match spec.deletions {
            spec::Deletions::Ignore => plan::Deletions::Ignore,
            spec::Deletions::Propagate => plan::Deletions::Propagate,
        },
        conflicts: match spec.conflicts {
            spec::Conflicts::Overwrite => plan::Conflicts::Overwrite,
            spec::Conflicts::Keep => plan::Conflicts::Keep,
            spec::Conflicts::Fail => plan::Conflicts::Fail,
        },
        limits: plan::Limits {
            concurrency: spec.limits.concurrency.try_into().unwrap_or(1),
            bytes_per_second: terms.bytes_per_second,
            timeout_seconds: terms.timeout.and_then(|timeout| timeout.as_secs().try_into().ok()),
        },
        follow: None,
    }
}

/// The same for a run that goes on with what is pushed, from this cursor or a comparison.
pub(super) fn following(plan: Plan, cursor: Option<String>) -> Plan {
    Plan { follow: Some(Follow { cursor, idle_seconds: IDLE_SECONDS }), ..plan }
}

/// Names what a plan compares, however its run begins.
pub(super) fn comparison(plan: &Plan, replication: &Replication) -> String {
    let plan =
        serde_json::json!([Plan { follow: None, ..plan.clone() }, replication.spec.service_account_name]);
    hex::encode(&Sha256::digest(plan.to_string())[..8])
}

fn end(end: &End, side: Side) -> plan::End {
    let credentials = match &end.login {
        Login::Nobody => None,
        Login::Token { .. } => Some(Credentials::Password {
            username: USERNAME.into(),
            password_file: format!("{}/{TOKEN_FILE}", side.token()),
        }),
        Login::Basic { .. } => Some(Credentials::Folder(side.credentials())),
        Login::DockerConfig { .. } => {
            Some(Credentials::DockerConfig(format!("{}/{DOCKER_FILE}", side.credentials())))
        }
    };
    let ca_file = match &end.trust {
        Trust::Public => None,
        Trust::Berth => Some(format!("{PLAN}/{CA_FILE}")),
        Trust::Secret(_) => Some(format!("{}/{CA_FILE}", side.ca())),
    };
    plan::End { url: end.url.clone(), credentials, ca_file }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::replication;

    fn ends() -> [End; 2] {
        let audience = "berth.dev/apps/demo".into();
        let secret = || "there".to_owned();
        [
            End {
                url: "https://demo.apps.svc:5000".into(),
                login: Login::Token { audience },
                trust: Trust::Berth,
            },
            End {
                url: "https://there.example/team".into(),
                login: Login::DockerConfig { secret: secret() },
                trust: Trust::Secret(secret()),
            },
        ]
    }

    #[test]
    fn every_field_of_a_replication_is_in_its_plan() {
        let replication = replication(
            "apps",
            &json!({
                "filters": {
                    "repositories": ["team/**"],
                    "tags": {"include": ["latest"], "exclude": ["*-rc"], "semver": ">=1"},
                    "platforms": ["linux/amd64"],
                    "referrers": false,
                },
                "destination": {"prefix": "mirror", "flatten": 1},
                "deletions": "Propagate",
                "conflicts": "Keep",
                "limits": {"concurrency": 3, "bytesPerSecond": "10Mi", "timeout": "2h"},
            }),
        );
        let terms = Terms::parse(&replication.spec).unwrap();
        let [source, target] = ends();
        let plan = plan(&replication, &terms, &source, &target);
        insta::assert_json_snapshot!(following(plan, Some("7".into())));
    }

    #[test]
    fn a_comparison_is_another_where_anything_is_but_not_where_a_run_begins() {
        let [source, target] = ends();
        let name = |fields| {
            let replication = replication("apps", &fields);
            let plan = plan(&replication, &Terms::parse(&replication.spec).unwrap(), &source, &target);
            assert_eq!(
                comparison(&following(plan.clone(), None), &replication),
                comparison(&plan, &replication)
            );
            comparison(&plan, &replication)
        };
        assert_eq!(name(json!({})), name(json!({"suspend": true})));
        assert_ne!(name(json!({})), name(json!({"filters": {"referrers": false}})));
        assert_ne!(name(json!({})), name(json!({"serviceAccountName": "other"})));
    }
}
