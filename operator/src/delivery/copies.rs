//! The copies of all Repositories, as a watch tells of them, found by Repository.
//!
//! What a Repository's labels name is its own, wherever it lies. A look at all of them costs what there is of one
//! Repository, however many copies there are.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt as _, runtime::watcher::Event};

use super::{credential::is_sealed, placement::Owner};

/// Namespace and name.
type Place = (String, String);

/// The copies of all Repositories; clones are the same ones.
#[derive(Clone, Default)]
pub(super) struct Copies(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    complete: bool,
    owners: HashMap<Place, Owner>,
    copies: HashMap<Owner, BTreeMap<Place, Arc<Secret>>>,
}

/// Takes in what a watch tells. While the watch begins anew, what was known before stays known.
#[derive(Default)]
pub(super) struct Keeper {
    copies: Copies,
    listed: Known,
}

impl Keeper {
    /// What it keeps.
    pub(super) fn copies(&self) -> Copies {
        self.copies.clone()
    }

    /// Takes one event in; false where it matters to nobody: a new copy opens nothing before it is sealed, and who makes it
    /// knows that it is there.
    pub(super) fn take(&mut self, event: &Event<Secret>) -> bool {
        let mut known = self.copies.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => self.listed = Known { complete: true, ..Known::default() },
            Event::InitApply(copy) => self.listed.insert(copy),
            Event::InitDone => *known = std::mem::take(&mut self.listed),
            Event::Apply(copy) => {
                let is_new = !known.owners.contains_key(&place(copy));
                known.insert(copy);
                return !is_new || is_sealed(copy);
            }
            Event::Delete(copy) => known.remove(&place(copy)),
        }
        true
    }
}

impl Copies {
    /// Whether all were read once.
    pub(super) fn are_complete(&self) -> bool {
        self.known().complete
    }

    /// Those of one Repository, by namespace and name.
    pub(super) fn of(&self, owner: &Owner) -> Vec<Arc<Secret>> {
        self.known().copies.get(owner).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// One of a Repository's.
    pub(super) fn get(&self, owner: &Owner, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.known().copies.get(owner)?.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Looks at each of anybody's.
    pub(super) fn each(&self, look: impl FnMut(&Secret)) {
        let known = self.known();
        known.copies.values().flat_map(BTreeMap::values).map(AsRef::as_ref).for_each(look);
    }

    /// Whether a Repository has one in this namespace.
    pub(super) fn has_any(&self, owner: &Owner, namespace: &str) -> bool {
        let known = self.known();
        let mut places = known.copies.get(owner).into_iter().flat_map(BTreeMap::keys);
        places.any(|(there, _)| there == namespace)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn insert(&mut self, copy: &Secret) {
        let place = place(copy);
        // It may have been another Repository's before.
        self.remove(&place);
        let owner = Owner::named_by(copy);
        self.owners.insert(place.clone(), owner.clone());
        self.copies.entry(owner).or_default().insert(place, Arc::new(copy.clone()));
    }

    fn remove(&mut self, place: &Place) {
        let Some(owner) = self.owners.remove(place) else { return };
        let Some(copies) = self.copies.get_mut(&owner) else { return };
        copies.remove(place);
        if copies.is_empty() {
            self.copies.remove(&owner);
        }
    }
}

fn place(copy: &Secret) -> Place {
    (copy.namespace().unwrap_or_default(), copy.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn copy(namespace: &str, repository: &str) -> Secret {
        let labels = json!({"berth.dev/repository": repository, "berth.dev/repository-namespace": "apps"});
        let metadata = json!({"name": "pull", "namespace": namespace, "labels": labels});
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    /// Namespaces in which this Repository has one.
    fn namespaces(copies: &Copies, repository: &str) -> Vec<String> {
        let owner = Owner::named_by(&copy("any", repository));
        copies.of(&owner).iter().map(|copy| copy.namespace().unwrap()).collect()
    }

    #[test]
    fn each_is_its_repositorys_and_no_other_and_goes() {
        let mut keeper = Keeper::default();
        let copies = keeper.copies();
        keeper.take(&Event::Init);
        for (namespace, repository) in [("blue", "a"), ("apps", "a"), ("red", "b")] {
            keeper.take(&Event::InitApply(copy(namespace, repository)));
        }
        assert!(!copies.are_complete() && namespaces(&copies, "a").is_empty());
        keeper.take(&Event::InitDone);
        assert!(copies.are_complete());
        assert_eq!(
            (namespaces(&copies, "a"), namespaces(&copies, "b")),
            (names(&["apps", "blue"]), names(&["red"]))
        );
        keeper.take(&Event::Apply(copy("blue", "b")));
        keeper.take(&Event::Delete(copy("apps", "a")));
        assert_eq!(
            (namespaces(&copies, "a"), namespaces(&copies, "b")),
            (names(&[]), names(&["blue", "red"]))
        );
        let owner = Owner::named_by(&copy("any", "b"));
        assert!(copies.has_any(&owner, "blue") && !copies.has_any(&owner, "apps"));
        assert!(copies.get(&owner, "red", "pull").is_some() && copies.get(&owner, "red", "push").is_none());
    }

    #[test]
    fn while_all_are_read_anew_none_is_missing() {
        let mut keeper = Keeper::default();
        let copies = keeper.copies();
        for event in [Event::Init, Event::InitApply(copy("apps", "a")), Event::InitDone, Event::Init] {
            keeper.take(&event);
        }
        assert!(copies.are_complete());
        assert_eq!(namespaces(&copies, "a"), ["apps"]);
        keeper.take(&Event::InitApply(copy("blue", "a")));
        assert_eq!(namespaces(&copies, "a"), ["apps"]);
        keeper.take(&Event::InitDone);
        assert_eq!(namespaces(&copies, "a"), ["blue"]);
    }

    #[test]
    fn a_new_one_matters_once_it_is_sealed_and_then_always() {
        let mut keeper = Keeper::default();
        let unsealed = copy("apps", "a");
        let mut sealed = unsealed.clone();
        sealed.metadata.annotations = Some([("berth.dev/seal".to_owned(), "x".to_owned())].into());
        assert!(!keeper.take(&Event::Apply(unsealed.clone())));
        for event in [Event::Apply(sealed.clone()), Event::Apply(unsealed.clone()), Event::Delete(unsealed)] {
            assert!(keeper.take(&event));
        }
        assert!(keeper.take(&Event::Apply(sealed)));
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}
