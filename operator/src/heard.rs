//! What replicas said of each path of a Registry, since the operator started: by which rule they decide, what it holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crds::Registry;
use kube::ResourceExt as _;

/// What was said of each path; by the Registry's UID.
#[derive(Debug)]
pub(crate) struct Said<T>(Mutex<HashMap<String, Paths<T>>>);

type Paths<T> = Arc<BTreeMap<String, T>>;

/// What was heard of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard<T> {
    /// The Registry's replicas have said nothing yet.
    Nothing,
    /// They did, but nothing of this path.
    NotOfIt,
    /// This they said.
    This(T),
}

impl<T: Clone + PartialEq> Said<T> {
    /// Takes all that was said of a Registry; returns the paths of which it is something else than before.
    pub(crate) fn learn(
        &self,
        registry: &Registry,
        said: impl Iterator<Item = (String, T)>,
    ) -> BTreeSet<String> {
        let said: Paths<T> = Arc::new(said.collect());
        let former = self.all().insert(registry.uid().unwrap_or_default(), Arc::clone(&said));
        let Some(former) = former else { return said.keys().cloned().collect() };
        let paths: BTreeSet<_> = said.keys().chain(former.keys()).cloned().collect();
        paths.into_iter().filter(|path| said.get(path) != former.get(path)).collect()
    }

    /// What was heard of a path.
    pub(crate) fn of(&self, registry: &Registry, path: &str) -> Heard<T> {
        let said = self.all().get(&registry.uid().unwrap_or_default()).cloned();
        let Some(said) = said else { return Heard::Nothing };
        said.get(path).cloned().map_or(Heard::NotOfIt, Heard::This)
    }

    /// The Registry goes.
    pub(crate) fn forget(&self, registry: &Registry) {
        self.all().remove(&registry.uid().unwrap_or_default());
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Paths<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Said<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registry;

    #[test]
    fn only_paths_of_which_something_else_is_said_are_told() {
        let (heard, demo) = (Said::default(), registry("demo"));
        let learn = |said: &[(&str, i32)]| {
            let changed = heard.learn(&demo, said.iter().map(|(path, said)| ((*path).to_owned(), *said)));
            changed.into_iter().collect::<String>()
        };
        assert_eq!(heard.of(&demo, "a"), Heard::Nothing);
        assert_eq!(learn(&[("a", 1), ("b", 1)]), "ab");
        assert_eq!(learn(&[("b", 1), ("c", 1)]), "ac");
        assert_eq!(learn(&[("b", 2), ("c", 1)]), "b");
        assert_eq!(learn(&[("b", 2), ("c", 1)]), "");
        assert_eq!((heard.of(&demo, "a"), heard.of(&demo, "b")), (Heard::NotOfIt, Heard::This(2)));
        heard.forget(&demo);
        assert_eq!(heard.of(&demo, "b"), Heard::Nothing);
    }
}
