//! From a plan to what can be tried: parsed, and contradictions refused.

use std::{path::PathBuf, time::Duration};

use channel::replication::{self, Conflicts, Deletions, Destination, End, Follow, Plan};
use oci::{
    RepoName,
    client::{Client, Credentials, Endpoint, Error, InvalidEndpoint, Settings},
};

use super::filters::{Filters, InvalidFilters, arrives_as};

/// More at once is no faster anywhere.
const MOST_AT_ONCE: u32 = 256;

/// A plan that can be tried.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) source: Client,
    pub(super) target: Client,
    pub(super) filters: Filters,
    pub(super) destination: Destination,
    pub(super) propagate: bool,
    pub(super) conflicts: Conflicts,
    pub(super) concurrency: usize,
    pub(super) bytes_per_second: Option<u64>,
    /// Of a comparison, and of copying what one page of the feed tells.
    pub(super) timeout: Option<Duration>,
    pub(super) follow: Option<Follow>,
}

/// Why a plan can't be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidPlan {
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is no plan: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    #[error(transparent)]
    Filters(#[from] InvalidFilters),
    #[error("`{0}` can't stand before repositories: give a path such as mirror/team")]
    Prefix(String),
    #[error("source and target are the same: everything is there already")]
    Same,
    #[error("give at least 1 as concurrency, at most {MOST_AT_ONCE}")]
    Concurrency,
    #[error("give at least 1 byte a second, or no limit")]
    Bandwidth,
    #[error(transparent)]
    Client(Error),
    #[error(
        "deletions can't be propagated between two registries of which none is a Berth registry: neither says what was \
         deleted, or what came from where"
    )]
    Deletions,
    #[error("the source is no Berth registry, or has no feed: it can't be followed, only compared at times")]
    NoFeed,
    #[error(
        "the source does not list its repositories, at least not to this login: name those to copy, without `*`"
    )]
    NoCatalog,
    #[error("`{name}` is no name of a repository at the {end}")]
    Name { name: String, end: &'static str },
}

impl InvalidPlan {
    pub(super) fn read(path: PathBuf) -> Result<Plan, Self> {
        let text = std::fs::read(&path).map_err(|source| Self::Read { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| Self::Json { path, source })
    }
}

impl Setup {
    /// Whether a repository of the target lies where what is copied arrives, apart from all others.
    pub(super) fn arrives_at(&self, name: &str) -> bool {
        let Some(below) = self.target.endpoint().outside(name) else { return false };
        match self.destination.prefix.trim_matches('/') {
            "" => self.target.endpoint().path().is_some(),
            prefix => below.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')),
        }
    }

    /// Where a repository of the source is, at both ends; `name` is without the source's path.
    pub(super) fn place(&self, name: &str) -> Result<oci::copy::Place, InvalidPlan> {
        let arrives = arrives_as(&self.destination, name);
        let invalid = |name: &str, end| InvalidPlan::Name { name: name.to_owned(), end };
        Ok(oci::copy::Place {
            source: self.source.endpoint().inside(name).map_err(|_| invalid(name, "source"))?,
            target: self.target.endpoint().inside(&arrives).map_err(|_| invalid(&arrives, "target"))?,
        })
    }
}

impl TryFrom<Plan> for Setup {
    type Error = InvalidPlan;

    fn try_from(plan: Plan) -> Result<Self, InvalidPlan> {
        let Plan { source, target, filters, destination, deletions, conflicts, limits, follow } = plan;
        let replication::Limits { concurrency, bytes_per_second, timeout_seconds } = limits;
        let prefix = destination.prefix.trim_matches('/');
        if !prefix.is_empty() && prefix.parse::<RepoName>().is_err() {
            return Err(InvalidPlan::Prefix(destination.prefix));
        }
        if !(1..=MOST_AT_ONCE).contains(&concurrency) {
            return Err(InvalidPlan::Concurrency);
        }
        if bytes_per_second == Some(0) {
            return Err(InvalidPlan::Bandwidth);
        }
        let (source, target) = (client(source)?, client(target)?);
        if source.endpoint() == target.endpoint() && prefix.is_empty() && destination.flatten == 0 {
            return Err(InvalidPlan::Same);
        }
        Ok(Self {
            source,
            target,
            filters: Filters::try_from(&filters)?,
            destination,
            propagate: deletions == Deletions::Propagate,
            conflicts,
            concurrency: concurrency as usize,
            bytes_per_second,
            timeout: timeout_seconds.map(Duration::from_secs),
            follow,
        })
    }
}

fn client(end: End) -> Result<Client, InvalidPlan> {
    let End { url, credentials, ca_file } = end;
    let endpoint: Endpoint = url.parse()?;
    let authorities = ca_file
        .map(PathBuf::from)
        .map(|path| std::fs::read(&path).map_err(|source| InvalidPlan::Read { path, source }));
    let settings = Settings {
        credentials: credentials.map(login),
        authorities: authorities.transpose()?,
        ..Settings::new(endpoint)
    };
    Client::new(settings).map_err(InvalidPlan::Client)
}

fn login(credentials: replication::Credentials) -> Credentials {
    match credentials {
        replication::Credentials::Password { username, password_file } => {
            Credentials::Password { username, file: password_file.into() }
        }
        replication::Credentials::Folder(folder) => Credentials::Folder(folder.into()),
        replication::Credentials::DockerConfig(file) => Credentials::DockerConfig(file.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(change: impl FnOnce(&mut Plan)) -> Result<Setup, String> {
        let end = |url: &str| End { url: url.to_owned(), credentials: None, ca_file: None };
        let mut plan = Plan {
            source: end("http://127.0.0.1:1/team"),
            target: end("http://127.0.0.1:2"),
            filters: replication::Filters::default(),
            destination: Destination::default(),
            deletions: Deletions::default(),
            conflicts: Conflicts::default(),
            limits: replication::Limits::default(),
            follow: None,
        };
        change(&mut plan);
        // Fails only where there is one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Setup::try_from(plan).map_err(|error| error.to_string())
    }

    #[test]
    fn plans_that_make_no_sense_are_refused() {
        assert!(setup(|plan| plan.target.url = "registry.example".into()).unwrap_err().contains("https://"));
        assert!(setup(|plan| plan.target = plan.source.clone()).unwrap_err().contains("same"));
        assert!(setup(|plan| plan.destination.prefix = "No".into()).unwrap_err().contains("before"));
        assert!(setup(|plan| plan.limits.concurrency = 0).is_err());
        assert!(setup(|plan| plan.limits.bytes_per_second = Some(0)).is_err());
        assert!(
            setup(|plan| plan.target.ca_file = Some("/nowhere".into())).unwrap_err().contains("/nowhere")
        );
    }

    #[test]
    fn places() {
        let setup = setup(|plan| {
            plan.destination.prefix = "mirror".into();
            plan.destination.flatten = 1;
        });
        let place = setup.unwrap().place("app/web").unwrap();
        assert_eq!((place.source.as_str(), place.target.as_str()), ("team/app/web", "mirror/web"));
    }
}
