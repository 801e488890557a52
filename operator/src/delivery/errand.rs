//! What is done for one Repository in one namespace.

use std::{collections::BTreeSet, sync::Arc};

use channel::policy::SecretHash;
use crds::{Registry, Repository, repository::AccessSecret};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret, ServiceAccount},
    jiff::Timestamp,
};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use super::{
    Error,
    attach::{self, Use},
    cas,
    credential::Credential,
    desired,
    password::Password,
    placement::{Kind, Named, Owner, Placement, has_labels, repository_labels},
    targets,
};
use crate::{
    apply::{self, Applier},
    context::Context,
    desired::told::Told,
    heard::Heard,
    keys::RegistryKey,
};

/// One Repository's business.
pub(super) struct Errand<'a> {
    pub(super) context: &'a Context,
    pub(super) repository: &'a Repository,
    pub(super) registry: &'a Registry,
    pub(super) key: RegistryKey,
    /// By what every replica decides at its path.
    pub(super) told: Heard<Arc<Told>>,
    pub(super) now: Timestamp,
}

/// What is wanted in one namespace, and what is known to be there.
#[derive(Default)]
pub(super) struct Place<'a> {
    pub(super) wanted: Vec<(Kind, &'a AccessSecret)>,
    /// Names of copies.
    pub(super) copies: BTreeSet<String>,
    pub(super) accounts: Vec<Arc<ServiceAccount>>,
    /// Whether accounts of it may push, and so need the CA.
    pub(super) is_pushed_from: bool,
}

/// What came of it in one namespace.
pub(super) struct Outcome<'a> {
    pub(super) namespace: &'a str,
    pub(super) held: Vec<(Placement<'a>, Credential)>,
    /// What went wrong, with which Secret if with one.
    pub(super) failed: Vec<(Option<&'a AccessSecret>, Error)>,
}

impl<'a> Errand<'a> {
    /// Brings what is wanted there, and takes all else of the Repository away.
    pub(super) async fn run(&self, namespace: &'a str, place: &Place<'a>) -> Outcome<'a> {
        let mut outcome = Outcome { namespace, held: Vec::new(), failed: Vec::new() };
        for (kind, secret) in &place.wanted {
            let placement = Placement { repository: self.repository, kind: *kind, secret, namespace };
            match self.copy(&placement).await {
                Ok(credential) => outcome.held.push((placement, credential)),
                Err(error) => outcome.failed.push((Some(secret), error)),
            }
        }
        let needs_ca = place.is_pushed_from || !outcome.held.is_empty();
        let ca = if needs_ca { self.ca(namespace).await } else { Ok(()) };
        let attached = self.attach(&place.accounts, &outcome).await;
        let removed = self.remove_others(namespace, place).await;
        let failed = [ca, attached, removed].into_iter().filter_map(Result::err);
        outcome.failed.extend(failed.map(|error| (None, error)));
        outcome
    }

    /// Makes one copy what it should be.
    async fn copy(&self, placement: &Placement<'_>) -> Result<Credential, Error> {
        let Placement { namespace, secret, .. } = placement;
        let known = self.context.watched.copies.get(&Owner::of(self.repository), namespace, &secret.name);
        if let Some(credential) = known.and_then(|known| self.is_settled(placement, &known)) {
            return Ok(credential);
        }
        // What the watch knows may be old, and a password that was made a moment ago must not be replaced by another.
        let applier = &self.context.applier;
        let observed = match applier.get::<Secret>(namespace, &secret.name).await? {
            Some(observed) => observed,
            None => self.create(placement).await?,
        };
        let believed = Credential::read(&observed, placement, &self.key);
        let labels = repository_labels(self.repository);
        if believed.is_none() && !(apply::is_ours(&observed) && has_labels(&observed, &labels)) {
            return Err(apply::Error::Foreign { what: format!("Secret {}", secret.name) }.into());
        }
        let credential = match believed {
            Some(believed) => self.due(placement, believed, Password::generate)?,
            None => Credential::new(Password::generate()?, placement, self.now),
        };
        let desired = self.desired(placement, &credential, &observed);
        if Applier::keeps(&observed, desired.clone())? {
            return Ok(credential);
        }
        // Its change brings us here at once, and each time there would be another password.
        let (failures, what) = (&self.context.failures, format!("Secret {namespace}/{}", secret.name));
        if failures.waits(&what) {
            return Err(Error::Altered(secret.name.clone()));
        }
        let observed = if is_stuck(&observed, &desired) {
            let is_it = |now: &Secret| now.uid() == observed.uid();
            applier.delete_if::<Secret>(namespace, &secret.name, is_it).await?;
            self.create(placement).await?
        } else {
            observed
        };
        let desired = self.desired(placement, &credential, &observed);
        let kept = applier.ensure_from(Some(observed), desired.clone()).await?;
        let held = Credential::read(&kept, placement, &self.key).filter(|held| *held == credential);
        if held.is_none() || !Applier::keeps(&kept, desired)? {
            failures.another_of(what);
            return Err(Error::Altered(secret.name.clone()));
        }
        failures.over_of(&what);
        Ok(credential)
    }

    /// A copy without a password, or what somebody else has made in the same instant.
    async fn create(&self, placement: &Placement<'_>) -> Result<Secret, Error> {
        let applier = &self.context.applier;
        if let Some(created) = applier.create(desired::empty(placement)).await? {
            return Ok(created);
        }
        let Placement { namespace, secret, .. } = placement;
        let there = applier.get::<Secret>(namespace, &secret.name).await?;
        there.ok_or_else(|| apply::Error::Terminating { what: format!("Secret {}", secret.name) }.into())
    }

    /// What the copy holds, where there is nothing to do about it.
    fn is_settled(&self, placement: &Placement, known: &Secret) -> Option<Credential> {
        let believed = Credential::read(known, placement, &self.key)?;
        let same = self.due(placement, believed, || Err(())).ok()?;
        let desired = self.desired(placement, &same, known);
        Applier::keeps(known, desired).is_ok_and(|keeps| keeps).then_some(same)
    }

    /// What the copy should hold now.
    fn due<E>(
        &self,
        placement: &Placement,
        believed: Credential,
        fresh: impl FnOnce() -> Result<Password, E>,
    ) -> Result<Credential, E> {
        let username = placement.username();
        let is_known = |hash: &SecretHash| match &self.told {
            Heard::This(told) => told.opens(&username, hash),
            Heard::Nothing | Heard::NotOfIt => false,
        };
        believed.at(self.now, placement, is_known, fresh)
    }

    /// For the Secret that was observed, and no other of its name.
    fn desired(&self, placement: &Placement, credential: &Credential, observed: &Secret) -> Secret {
        let (uid, domain) = (observed.uid().unwrap_or_default(), &self.context.config.cluster_domain);
        desired::secret(placement, credential, &uid, self.registry, domain, &self.key)
    }

    /// Makes the CA what it should be.
    async fn ca(&self, namespace: &str) -> Result<(), Error> {
        let registry = Named::of(self.repository);
        let desired = desired::ca(&registry, namespace, self.context.secrets.serving.cert());
        let name = desired.name_any();
        let known = self.context.watched.config_maps.get(&ObjectRef::new(&name).within(namespace));
        if known.is_some_and(|known| Applier::keeps(&*known, desired.clone()).is_ok_and(|keeps| keeps)) {
            return Ok(());
        }
        let observed = self.context.applier.get::<ConfigMap>(namespace, &name).await?;
        let labels = registry.labels();
        if observed.as_ref().is_some_and(|observed| !has_labels(observed, &labels)) {
            return Err(apply::Error::Foreign { what: format!("ConfigMap {name}") }.into());
        }
        self.context.applier.ensure_from(observed, desired).await?;
        Ok(())
    }

    /// Lets service accounts use the copies that are there, and nothing else of the Repository; one that fails holds up
    /// no other.
    async fn attach(&self, accounts: &[Arc<ServiceAccount>], outcome: &Outcome<'_>) -> Result<(), Error> {
        let held = || outcome.held.iter().map(|(placement, _)| placement.secret);
        let failed = || outcome.failed.iter().filter_map(|(secret, _)| *secret);
        let mut result = Ok(());
        for account in accounts {
            let uses = |secret: &&AccessSecret| targets::uses(&secret.service_accounts, account);
            let usage = Use {
                wanted: held().filter(uses).map(|secret| secret.name.as_str()).collect(),
                kept: failed().filter(uses).map(|secret| secret.name.as_str()).collect(),
            };
            let attached = attach::attach(&self.context.applier, account, self.repository, &usage).await;
            result = result.and(attached);
        }
        Ok(result?)
    }

    async fn remove_others(&self, namespace: &str, place: &Place<'_>) -> Result<(), Error> {
        let is_wanted = |name: &String| place.wanted.iter().any(|(_, secret)| secret.name == *name);
        let others: BTreeSet<_> = place.copies.iter().filter(|name| !is_wanted(name)).cloned().collect();
        if others.is_empty() {
            Ok(())
        } else {
            remove(self.context, self.repository, namespace, &others).await
        }
    }
}

/// Whether somebody made it immutable or of another type, which only a new one mends.
fn is_stuck(observed: &Secret, desired: &Secret) -> bool {
    observed.immutable == Some(true) || observed.type_ != desired.type_
}

/// Deletes these copies, and the CA where no other Repository needs it.
pub(super) async fn remove(
    context: &Context,
    repository: &Repository,
    namespace: &str,
    copies: &BTreeSet<String>,
) -> Result<(), Error> {
    let (applier, labels) = (&context.applier, repository_labels(repository));
    for name in copies {
        applier.delete_if::<Secret>(namespace, name, |observed| has_labels(observed, &labels)).await?;
    }
    cas::remove_unless_wanted(context, &Named::of(repository), namespace).await
}
