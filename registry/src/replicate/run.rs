//! One run: both ends are asked who they are, then what the source has is compared and copied. What fails of one image
//! or repository is told and keeps no other one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use channel::{
    feed::Stamp,
    replication::{Phase, Reason},
};
use futures::StreamExt as _;
use oci::{
    client::{self, Trouble},
    copy::{Copier, Options},
};
use tokio::sync::Semaphore;

use super::{
    circles,
    deleting::Refused,
    families::Families,
    filters::arrives_as,
    plan::{InvalidPlan, Setup},
    registry::Registry,
    repository::Arrived,
    sweep::Sweep,
    tally::{Tally, now},
    workers::Workers,
};

/// Repositories that are compared at once.
const REPOSITORIES: usize = 8;

/// Who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

/// Why nothing goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error(transparent)]
    Plan(#[from] InvalidPlan),
    #[error("{}: {error}", if *side == Side::Source { "source" } else { "target" })]
    End { side: Side, error: client::Error },
    #[error("not done after {} s: the next run goes on", .0.as_secs())]
    TimedOut(Duration),
}

impl Stop {
    pub(super) fn source(error: client::Error) -> Self {
        Self::End { side: Side::Source, error }
    }

    /// The word for it.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Plan(_) => Reason::InvalidPlan,
            Self::End { side, error } => side.reason(error),
            Self::TimedOut(_) => Reason::TimedOut,
        }
    }
}

impl Side {
    /// The word for what an end did not do.
    pub(super) fn reason(self, error: &client::Error) -> Reason {
        use client::Error::{Credentials, ForeignRealm, Unauthorized, Unreachable};
        match (self, error) {
            (_, Unreachable { kind: Trouble::UnknownHost, .. }) => Reason::UnknownHost,
            (_, Unreachable { kind: Trouble::UntrustedCertificate, .. }) => Reason::UntrustedCertificate,
            (Self::Source, Unauthorized { .. } | ForeignRealm { .. } | Credentials(_)) => {
                Reason::SourceUnauthorized
            }
            (Self::Target, Unauthorized { .. } | ForeignRealm { .. } | Credentials(_)) => {
                Reason::TargetUnauthorized
            }
            (Self::Source, _) => Reason::SourceUnreachable,
            (Self::Target, _) => Reason::TargetUnreachable,
        }
    }
}

/// What a run works with.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) setup: Setup,
    pub(super) source: Registry,
    pub(super) target: Registry,
    pub(super) copier: Copier,
    pub(super) tally: Tally,
    /// Images under way, each with a manifest in memory.
    pub(super) images: Semaphore,
    /// What the target did not delete as it was asked to.
    pub(super) refused: Refused,
    pub(super) workers: Workers,
}

impl Run {
    /// Meets both ends.
    pub(super) async fn begin(setup: Setup, tally: Tally) -> Result<Arc<Self>, Stop> {
        let (source, target) =
            tokio::join!(Registry::meet(setup.source.clone()), Registry::meet(setup.target.clone()));
        let source = source.map_err(Stop::source)?;
        let target = target.map_err(|error| Stop::End { side: Side::Target, error })?;
        circles::refuse(&setup, &source, &target)?;
        if setup.propagate && !source.is_berth() && !target.is_berth() {
            return Err(InvalidPlan::Deletions.into());
        }
        if setup.follow.is_some() && !source.is_berth() {
            return Err(InvalidPlan::NoFeed.into());
        }
        let options = Options {
            concurrency: setup.concurrency,
            bytes_per_second: setup.bytes_per_second,
            platforms: setup.filters.platforms.clone(),
            referrers: setup.filters.referrers,
            mounts_from_anywhere: target.is_berth(),
            target_verifies: target.is_berth(),
        };
        let copier = Copier::new(setup.source.clone(), setup.target.clone(), options);
        tally.follow(&copier);
        tally.target(target.id.as_ref());
        // Each has several blobs, and where a run ends early, some should be whole.
        let images = Semaphore::new(setup.concurrency.div_ceil(2));
        let refused = Refused::default();
        let workers = Workers::default();
        Ok(Arc::new(Self { setup, source, target, copier, tally, images, refused, workers }))
    }

    /// Makes the target equal to what the source has now, if there is time for it.
    pub(super) async fn compare(&self) -> Result<(), Stop> {
        self.in_time(self.compare_all()).await?
    }

    /// Whatever keeps others waiting, a peer that drips for example, comes to an end.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let Some(timeout) = self.setup.timeout else { return Ok(work.await) };
        tokio::time::timeout(timeout, work).await.map_err(|_| Stop::TimedOut(timeout))
    }

    async fn compare_all(&self) -> Result<(), Stop> {
        self.tally.phase(Phase::Comparing);
        let (mut names, all) = self.names().await?;
        names.retain(|name| !self.setup.place(name).is_ok_and(|place| self.was_brought(&place)));
        let families = Families::of(&self.setup, names.iter().chain(all.iter().flatten()));
        let sweep = Sweep::new(all);
        // Those that arrive under one name come one after the other.
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in names {
            groups.entry(arrives_as(&self.setup.destination, &name)).or_default().push(name);
        }
        let each = async |names: Vec<String>| {
            let mut arrived = Arrived::default();
            for name in &names {
                self.repository(name, &sweep, &families, &mut arrived).await;
            }
        };
        futures::stream::iter(groups.into_values()).for_each_concurrent(REPOSITORIES, each).await;
        if self.setup.propagate && !self.source.is_berth() {
            self.sweep(sweep).await;
        }
        self.tally.compared();
        Ok(())
    }

    /// Repositories to compare, without the source's path; and all that the source lists, where it does.
    async fn names(&self) -> Result<(BTreeSet<String>, Option<BTreeSet<String>>), Stop> {
        let patterns = self.setup.filters.repositories();
        let literal: BTreeSet<String> =
            patterns.iter().filter(|pattern| pattern.is_literal()).map(|p| p.as_str().to_owned()).collect();
        if !patterns.is_empty() && literal.len() == patterns.len() && !self.setup.propagate {
            return Ok((literal, None));
        }
        let listed = self.source.client.catalog().await.map_err(Stop::source)?;
        let Some(listed) = listed else {
            if literal.is_empty() || literal.len() < patterns.len() {
                return Err(InvalidPlan::NoCatalog.into());
            }
            return Ok((literal, None));
        };
        let endpoint = self.source.client.endpoint();
        let all = listed.iter().filter_map(|name| endpoint.outside(name.as_str()).map(str::to_owned));
        let all: BTreeSet<String> = all.collect();
        let wanted = all.iter().filter(|name| self.setup.filters.takes_repository(name)).cloned();
        let mut wanted: BTreeSet<String> = wanted.chain(literal).collect();
        wanted.extend(self.emptied().await?);
        Ok((wanted, Some(all)))
    }

    /// Repositories of a Berth source of which everything was deleted, as far as the target has something under their names.
    async fn emptied(&self) -> Result<Vec<String>, Stop> {
        if !self.setup.propagate {
            return Ok(Vec::new());
        }
        let emptied = self.source.emptied().await.map_err(Stop::source)?;
        let endpoint = self.source.client.endpoint();
        let names = emptied.iter().filter_map(|name| endpoint.outside(name.as_str()));
        let mut wanted: Vec<_> =
            names.filter(|name| self.setup.filters.takes_repository(name)).map(str::to_owned).collect();
        if wanted.is_empty() {
            return Ok(wanted);
        }
        let at_target = |error| Stop::End { side: Side::Target, error };
        if let Some(there) = self.target.client.catalog().await.map_err(at_target)? {
            let there: BTreeSet<_> = there.into_iter().collect();
            wanted.retain(|name| self.setup.place(name).is_ok_and(|place| there.contains(&place.target)));
        }
        Ok(wanted)
    }

    /// What is copied now from a source that keeps no times.
    pub(super) fn stamp_of_now(&self) -> Stamp {
        Stamp { time: now(), origin: self.source.origin() }
    }
}
