//! What a primary's Repositories open at a replica, as a pure function of what both have.

use std::collections::BTreeMap;

use crds::Repository;
use kube::ResourceExt as _;

use crate::{
    desired::told::Decided,
    tenancy::{Tenants, above},
};

/// What is open at the replica.
#[derive(Debug, Default)]
pub(super) struct Opening<'a> {
    /// By path: to whom a Repository of the primary lets in, or to nobody. The most specific path decides.
    pub(super) opened: Vec<(String, Option<&'a Repository>)>,
    /// Paths of the primary that the replica does not take.
    pub(super) untaken: Vec<String>,
}

/// What these Repositories of the primary open at the replica: what it would take from their namespace, but for paths that
/// another namespace has there, or that are shut at the primary. What is shut is said where something less specific would
/// open it.
pub(super) fn opening<'a>(primary: &[Decided<'a>], replica: &Tenants<'_>) -> Opening<'a> {
    let holders = replica.holders();
    let takes = |repository: &Repository| {
        let holder = holders.get(&repository.path());
        let own = holder.is_none_or(|holder| holder.namespace() == repository.namespace());
        own && replica.would_take(repository)
    };
    let (mut declared, mut untaken) = (BTreeMap::new(), Vec::new());
    for Decided { repository, is_enforced, .. } in primary.iter().filter(|it| it.told.rule().is_some()) {
        let is_taken = takes(repository);
        if !is_taken {
            untaken.push(repository.path());
        }
        declared.insert(repository.path(), (is_taken && *is_enforced).then_some(*repository));
    }
    let mut opened = declared.clone();
    // A path comes before all that is below it: `*` is before every letter and digit.
    for (path, holder) in holders {
        let above = nearest(&declared, &path).flatten();
        let by = above.filter(|above| above.namespace() == holder.namespace());
        let now = nearest(&opened, &path).flatten();
        if !declared.contains_key(&path) && now.map(Repository::path) != by.map(Repository::path) {
            opened.insert(path, by);
        }
    }
    if opened.values().all(Option::is_none) {
        opened.clear();
    }
    Opening { opened: opened.into_iter().collect(), untaken }
}

/// What is said of the nearest path above this one.
fn nearest<T: Copy>(paths: &BTreeMap<String, T>, path: &str) -> Option<T> {
    above(path).find_map(|above| paths.get(&above).copied())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{desired::told::Told, testing};

    /// A replica that takes `red` and `blue` anywhere.
    fn replica() -> crds::Registry {
        let mut registry = testing::registry("replica");
        let tenancy = json!({"namespaces": {"names": ["red", "blue"]}, "paths": "Any"});
        registry.spec.tenancy = serde_json::from_value(tenancy).unwrap();
        registry
    }

    fn repository((namespace, path): (&str, &str)) -> Repository {
        let name = path.replace('/', ".").replace('*', "all");
        testing::repository(namespace, &name, &json!({ "path": path }))
    }

    /// As a primary decides that has these: a path that ends in `shut` has a quota that can't be read.
    fn decided(all: &[Repository]) -> Vec<Decided<'_>> {
        let decided = |repository| {
            let told = Told::of(repository, &Vec::new());
            Decided { repository, told, is_enforced: !repository.path().ends_with("shut") }
        };
        all.iter().map(decided).collect()
    }

    /// What `namespace:path` at the primary opens at a replica that has these.
    fn opened(primary: &[&str], others: &[&str]) -> (String, String) {
        let declared = |all: &[&str]| -> Vec<Repository> {
            all.iter().map(|declared| repository(declared.split_once(':').unwrap())).collect()
        };
        let (here, there, registry) = (declared(primary), declared(others), replica());
        let tenants = Tenants::new(&registry, there.iter().collect(), &|_| None);
        let opening = opening(&decided(&here), &tenants);
        let says = |(path, by): &(String, Option<&Repository>)| {
            format!("{path}={}", by.map_or_else(|| "-".to_owned(), Repository::path))
        };
        (opening.opened.iter().map(says).collect::<Vec<_>>().join(" "), opening.untaken.join(" "))
    }

    #[rstest::rstest]
    #[case::nothing_is_there(&["apps:a/x", "red:r/*"], &[], "a/x=a/x r/*=r/*", "")]
    #[case::the_same_is_there(&["apps:a/x", "red:r/*"], &["apps:a/x", "red:r/*"], "a/x=a/x r/*=r/*", "")]
    #[case::another_has_the_path(&["apps:a/x", "red:r/x"], &["blue:r/x"], "a/x=a/x r/x=-", "r/x")]
    #[case::another_has_one_below(&["apps:a/*"], &["red:a/x", "red:b"], "a/*=a/* a/x=-", "")]
    #[case::its_own_is_below_anothers(
        &["apps:a/*"], &["red:a/x/*", "apps:a/x/y", "red:a/x/y/z"], "a/*=a/* a/x/*=- a/x/y=a/*", ""
    )]
    #[case::anothers_is_above(&["apps:a/x"], &["red:a/*"], "a/x=a/x", "")]
    #[case::the_most_specific_decides(
        &["apps:a/*", "red:a/x/*"], &["red:a/x/y", "apps:a/x/z"], "a/*=a/* a/x/*=a/x/* a/x/z=-", ""
    )]
    #[case::not_taken(&["apps:a/*", "green:a/x"], &[], "a/*=a/* a/x=-", "a/x")]
    #[case::shut_at_the_primary(&["apps:a/*", "apps:a/shut"], &[], "a/*=a/* a/shut=-", "")]
    #[case::nothing_is_taken(&["green:a/x"], &["red:a/y"], "", "a/x")]
    fn what_is_open(
        #[case] primary: &[&str],
        #[case] replica: &[&str],
        #[case] expected: &str,
        #[case] untaken: &str,
    ) {
        assert_eq!(opened(primary, replica), (expected.to_owned(), untaken.to_owned()));
    }

    /// What is said of a name: of itself, or of the nearest path above.
    fn deciding<T: Copy>(all: &BTreeMap<String, T>, name: &str) -> Option<T> {
        all.get(name).copied().or_else(|| nearest(all, name))
    }

    const PATHS: [&str; 7] = ["a/*", "a/x", "a/x/*", "a/x/y", "a/x/y/*", "a/x/y/z", "b/x"];

    /// Who declares which of the paths, each by one namespace at most.
    fn declared() -> impl Strategy<Value = Vec<Repository>> {
        let namespace = prop::sample::select(vec!["", "apps", "red", "green"]);
        prop::collection::vec(namespace, PATHS.len()).prop_map(|namespaces| {
            let all = namespaces.into_iter().zip(PATHS).filter(|(namespace, _)| !namespace.is_empty());
            all.map(repository).collect()
        })
    }

    proptest! {
        /// A name is open to whom it is at the primary, where the replica takes that path from its namespace, and no other
        /// namespace has the path or a nearer one there.
        #[test]
        fn nobody_reads_more_than_at_the_primary_or_what_is_anothers(here in declared(), there in declared()) {
            let registry = replica();
            let tenants = Tenants::new(&registry, there.iter().collect(), &|_| None);
            let primary: BTreeMap<_, _> = here.iter().map(|it| (it.path(), it)).collect();
            let opened: BTreeMap<_, _> = opening(&decided(&here), &tenants).opened.into_iter().collect();
            for name in ["a/x", "a/o", "a/x/y", "a/x/o", "a/x/y/z", "a/x/y/o", "b/x", "b/y"] {
                let at_primary = deciding(&primary, name);
                let expected = at_primary.filter(|it| tenants.would_take(it)).filter(|it| {
                    let holders = tenants.holders();
                    let same = |holder: &Repository| holder.namespace() == it.namespace();
                    // Above it there may be anybody's.
                    let near = deciding(&holders, name).filter(|holder| !covers(&holder.path(), &it.path()));
                    [holders.get(&it.path()).copied(), near].into_iter().flatten().all(same)
                });
                let found = deciding(&opened, name).flatten();
                prop_assert_eq!(found.map(Repository::path), expected.map(Repository::path), "{}", name);
            }
        }
    }

    /// Whether all of a path is below another one.
    fn covers(above: &str, path: &str) -> bool {
        above != path && above.strip_suffix('*').is_some_and(|above| path.starts_with(above))
    }
}
