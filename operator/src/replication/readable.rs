//! Which repositories of a source a service account may read, as the registry decides it: that others push to what it may not
//! read is no news for it.

use std::collections::{BTreeMap, HashMap};

use channel::policy::Action;
use crds::{Registry, Replication, Repository, repository::Visibility};
use kube::ResourceExt as _;

use super::grant;
use crate::names;

/// What a Registry's policy is made of, by path.
pub(super) struct Rules<'a> {
    registry: &'a Registry,
    declared: BTreeMap<String, &'a Repository>,
}

/// What one Replication's account may read; of each repository it is found out once.
pub(super) struct Reader<'a> {
    rules: &'a Rules<'a>,
    subjects: Vec<String>,
    known: HashMap<&'a str, bool>,
}

impl<'a> Rules<'a> {
    /// Of a Registry that has accepted these.
    pub(super) fn new(registry: &'a Registry, accepted: Vec<&'a Repository>) -> Self {
        let declared = accepted.into_iter().map(|repository| (repository.path(), repository)).collect();
        Self { registry, declared }
    }

    /// The same for one Replication's account.
    pub(super) fn reader(&'a self, replication: &Replication) -> Reader<'a> {
        Reader { rules: self, subjects: grant::subjects(replication), known: HashMap::new() }
    }

    /// That of the repository itself, else of the longest path above it.
    fn most_specific(&self, repository: &str) -> Option<&'a Repository> {
        let above = std::iter::successors(Some(repository), |name| Some(name.rsplit_once('/')?.0)).skip(1);
        let above = above.map(|above| format!("{above}/*")).chain(["*".to_owned()]);
        let mut paths = std::iter::once(repository.to_owned()).chain(above);
        paths.find_map(|path| self.declared.get(&path).copied())
    }

    fn let_read(&self, repository: &str, subjects: &[String]) -> bool {
        let (said, namespace) = match self.most_specific(repository) {
            Some(declared) if declared.spec.visibility == Visibility::Public => return true,
            Some(declared) => (&declared.spec.access, declared.namespace().unwrap_or_default()),
            None => (&self.registry.spec.undeclared, names::namespace(self.registry)),
        };
        grant::grants(said, &namespace, subjects, Action::ContentRead)
    }
}

impl<'a> Reader<'a> {
    /// Whether the account may read this repository.
    pub(super) fn may_read(&mut self, repository: &'a str) -> bool {
        let Self { rules, subjects, known } = self;
        *known.entry(repository).or_insert_with(|| rules.let_read(repository, subjects))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing;

    #[test]
    fn the_most_specific_path_decides_alone() {
        let to =
            |name: &str| json!({"serviceAccount": {"name": name, "namespace": "apps"}, "role": "Reader"});
        let declare = |namespace: &str, path: &str, visibility: &str, access: Value| {
            let spec = json!({"path": path, "visibility": visibility, "access": access});
            testing::repository(namespace, "it", &spec)
        };
        let group = json!([{"group": "system:serviceaccounts:apps", "actions": ["content/read"]}]);
        let declared = [
            declare("red", "red/*", "Private", json!([to("replicator")])),
            declare("red", "red/secret", "Private", json!([to("other")])),
            declare("red", "red/nodes", "Cluster", json!([])),
            declare("red", "red/metadata", "Private", json!([{"user": "ann", "role": "Admin"}])),
            declare("red", "red/open/*", "Public", json!([])),
            // The ServiceAccount of that name in the namespace of the Repository.
            declare(
                "red",
                "red/own",
                "Private",
                json!([{"serviceAccount": {"name": "replicator"}, "role": "Reader"}]),
            ),
            declare("green", "green/*", "Private", json!([to("other")])),
            declare("green", "green/team/app", "Private", group),
        ];
        let replication = testing::replication("apps", &json!({}));
        let readable = |undeclared: Value| {
            let mut registry = testing::registry("demo");
            registry.spec.undeclared = serde_json::from_value(undeclared).unwrap();
            let rules = Rules::new(&registry, declared.iter().collect());
            let mut reader = rules.reader(&replication);
            let all = [
                "red/app",
                "red/a/b",
                "red/secret",
                "red/nodes",
                "red/metadata",
                "red/open/a/b",
                "red/own",
                "green/team",
                "green/team/app",
                "else",
            ];
            all.into_iter().filter(|repository| reader.may_read(repository)).collect::<Vec<_>>()
        };
        let declared = ["red/app", "red/a/b", "red/open/a/b", "green/team/app"];
        assert_eq!(readable(json!([])), declared);
        assert_eq!(readable(json!([to("other")])), declared);
        assert_eq!(readable(json!([to("replicator")])), [declared.as_slice(), &["else"]].concat());
    }

    #[test]
    fn one_path_may_be_for_everything() {
        let all = testing::repository("apps", "all", &json!({"path": "*", "visibility": "Public"}));
        let own = testing::repository("apps", "own", &json!({"path": "team/app"}));
        let registry = testing::registry("demo");
        let rules = Rules::new(&registry, vec![&all, &own]);
        let mut reader = rules.reader(&testing::replication("apps", &json!({})));
        assert!(reader.may_read("app") && reader.may_read("team/app/web") && !reader.may_read("team/app"));
    }
}
