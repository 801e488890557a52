//! The policy of one Registry, from all that it is made of.

use std::sync::Arc;

use channel::policy::Policy;
use crds::{Registry, Repository};
use k8s_openapi::jiff::Timestamp;

use super::Error;
use crate::{
    context::Context,
    desired::{
        policy as desired,
        told::{Told, decide},
    },
    fallbacks, node_access,
    people::{self, People},
    stores,
};

/// The people, the policy that lets them and robots in, and what it says of each Repository.
pub(super) async fn policy(
    registry: &Registry,
    context: &Context,
) -> Result<(People, Policy, Vec<Arc<Told>>), Error> {
    context.stores.complete().await?;
    let people = people::read(registry, &context.applier).await?;
    let key = context.secrets.keys.of(registry);
    let logins = |repository: &Repository| {
        let logins = context.watched.logins(repository, &key, Timestamp::now());
        logins.ok_or(stores::Incomplete)
    };
    let nodes = node_access::account(&context.config.namespace);
    let told = context.stores.tenants(registry, |tenants| {
        let decided = decide(tenants, logins)?.into_iter();
        Ok::<Vec<_>, stores::Incomplete>(decided.map(|decided| Arc::new(decided.told)).collect())
    })?;
    let policy = desired::policy(registry, &key, people.htpasswd.clone(), &told, &nodes);
    let policy = Policy { primaries: fallbacks::primaries(context, registry)?, ..policy };
    Ok((people, policy, told))
}
