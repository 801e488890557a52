//! Which entries of a feed are news for whom.

use std::collections::HashMap;

use channel::feed::{Entry, Kind};
use crds::{Replication, replication::Deletions};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use super::Waiting;
use crate::{
    context::Context,
    controller::Guarded,
    replication::{memory::Mark, pattern, readable::Rules},
};

/// Marks the targets for which an entry counts, and returns the others.
pub(super) fn mark<'a>(
    context: &Context,
    source: &ObjectRef<Guarded>,
    waiting: Vec<&'a Waiting>,
    entries: &[Entry],
) -> Vec<&'a Waiting> {
    let Some(registry) = context.stores.registry(source) else { return waiting };
    if waiting.is_empty() || entries.is_empty() {
        return waiting;
    }
    context.stores.tenants(&registry, |tenants| {
        let rules = Rules::new(&registry, tenants.accepted());
        let mut news = HashMap::new();
        let mut is_marked = |waiting: &Waiting| {
            let Ok(replication) = &waiting.replication.0 else { return false };
            let uid = replication.uid().unwrap_or_default();
            let target = context.replications.id(&uid, &waiting.target);
            let first = || first(&rules, replication, target.as_deref(), entries);
            let entry = news.entry((uid, target.clone())).or_insert_with(first);
            if let Some(entry) = entry {
                set(context, waiting, Some(entry.stamp.time.clone()));
            }
            entry.is_some()
        };
        waiting.into_iter().filter(|waiting| !is_marked(waiting)).collect()
    })
}

/// The first entry that counts for a target of a Replication, of a repository that its account may read. What came from
/// the target is not sent back.
fn first<'a>(
    rules: &Rules<'_>,
    replication: &Replication,
    target: Option<&str>,
    entries: &'a [Entry],
) -> Option<&'a Entry> {
    let mut reader = rules.reader(replication);
    let mut others = entries.iter().filter(|entry| Some(entry.stamp.origin.as_str()) != target);
    others.find(|entry| counts(replication, entry) && reader.may_read(&entry.repository))
}

/// Says that the feed has something for a target, since then.
pub(super) fn set(context: &Context, waiting: &Waiting, since: Option<String>) {
    let since = since.filter(|time| time.parse::<jiff::Timestamp>().is_ok());
    let (uid, cursor) = (waiting.replication.uid().unwrap_or_default(), waiting.cursor.clone());
    let reference = ObjectRef::from_obj(waiting.replication.as_ref());
    context.replications.mark(&reference, &uid, &waiting.target, Mark { cursor, since });
}

/// Whether an entry may be for a Replication; whether it is, the run finds out.
fn counts(replication: &Replication, entry: &Entry) -> bool {
    let spec = &replication.spec;
    let is_kept = entry.kind == Kind::Delete && spec.deletions == Deletions::Ignore;
    let refers = entry.subject.is_some() && !spec.filters.referrers;
    !is_kept && !refers && pattern::passes(&spec.filters.repositories, &entry.repository)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use channel::feed::Stamp;
    use kube::core::DeserializeGuard;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        names,
        testing::{self, world::World},
    };

    fn entry(repository: &str, kind: Kind) -> Entry {
        let stamp = Stamp { time: "2026-01-01T00:00:00.000001Z".into(), origin: "here".into() };
        let (tag, digest) = (Some("1".into()), "sha256:0".into());
        Entry { kind, repository: repository.into(), tag, digest, subject: None, stamp }
    }

    #[test]
    fn which_entries_count() {
        let counts = |spec: Value, entry: &Entry| counts(&testing::replication("apps", &spec), entry);
        let push = entry("team/app", Kind::Push);
        let delete = entry("team/app", Kind::Delete);
        let signature = Entry { tag: None, subject: Some("sha256:1".into()), ..push.clone() };
        assert!(counts(json!({}), &push) && counts(json!({}), &signature) && !counts(json!({}), &delete));
        assert!(counts(json!({"deletions": "Propagate"}), &delete));
        assert!(!counts(json!({"filters": {"referrers": false}}), &signature));
        assert!(!counts(json!({"filters": {"repositories": ["other/**"]}}), &push));
    }

    #[tokio::test]
    async fn what_others_push_where_the_account_may_not_read_is_no_news() {
        let mut world = World::empty();
        let registry = testing::registry("demo");
        world.api.put("/apis/berth.dev/v1alpha1/namespaces/apps/registries/demo", json!(registry));
        let grant = json!({"path": "team/*", "access": [{"serviceAccount": {"name": "replicator"}, "role": "Reader"}]});
        let others = json!({"path": "team/secret", "access": [{"user": "ann", "role": "Admin"}]});
        for (name, spec) in [("team", grant), ("secret", others)] {
            let path = format!("/apis/berth.dev/v1alpha1/namespaces/apps/repositories/{name}");
            world.api.put(&path, json!(testing::repository("apps", name, &spec)));
        }
        world.watch();
        let replication = Arc::new(DeserializeGuard(Ok(testing::replication("apps", &json!({})))));
        let waiting = ["a", "b"].map(|target| Waiting {
            replication: Arc::clone(&replication),
            target: target.into(),
            cursor: "c".into(),
        });
        let left = |pushed: &[&str]| {
            let entries: Vec<_> = pushed.iter().map(|repository| entry(repository, Kind::Push)).collect();
            mark(&world.context, &names::reference(&registry), waiting.iter().collect(), &entries).len()
        };
        assert_eq!((left(&[]), left(&["other/app", "team/secret"])), (2, 2));
        assert!(world.replication_refs.try_recv().is_err());
        // What came from a target is no news for it.
        world.context.replications.meet("uid-of-apps-mirror", "a", Some("here".into()));
        assert_eq!(left(&["team/app"]), 1);
        world.context.replications.meet("uid-of-apps-mirror", "a", None);
        assert_eq!(left(&["team/secret", "team/app"]), 0);
        assert!(world.replication_refs.try_recv().is_ok());
    }
}
