//! What the operator remembers of Replications between two looks; nothing of it is missed after a restart.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use channel::replication::Progress;
use futures::channel::mpsc;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::watch;

use crate::controller::GuardedReplication;

/// How often pods are asked.
pub(super) const POLL: Duration = Duration::from_secs(2);
/// A pod is asked no more often, however many changes there are.
const LATELY: Duration = Duration::from_millis(1500);
/// A pod that ended this long ago is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// Replications to look at again.
pub(crate) type ReplicationRefs = mpsc::UnboundedReceiver<ObjectRef<GuardedReplication>>;

/// What the operator remembers.
#[derive(Debug)]
pub(crate) struct Memory {
    /// By UID of the Replication and name of the target.
    marks: Mutex<HashMap<(String, String), Mark>>,
    /// Which Berth registries targets are, by the same.
    ids: Mutex<HashMap<(String, String), String>>,
    /// By UID of the pod.
    asked: Mutex<HashMap<String, (Instant, Option<Progress>)>>,
    /// Something may have to be followed, or no longer.
    changed: watch::Sender<()>,
    refs: mpsc::UnboundedSender<ObjectRef<GuardedReplication>>,
}

/// The feed has something for a target after this cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) cursor: String,
    /// When the first of it was pushed; not known where the feed goes back no further.
    pub(super) since: Option<String>,
}

impl Memory {
    /// The stream names what to look at.
    pub(crate) fn new() -> (Self, ReplicationRefs) {
        let (refs, receiver) = mpsc::unbounded();
        let (marks, ids, asked) = Default::default();
        (Self { marks, ids, asked, changed: watch::Sender::new(()), refs }, receiver)
    }

    /// Something in the cluster is another.
    pub(crate) fn changed(&self) {
        self.changed.send_replace(());
    }

    /// Hears of each such change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The feed has something for this target of the Replication.
    pub(super) fn mark(&self, of: &ObjectRef<GuardedReplication>, uid: &str, target: &str, mark: Mark) {
        lock(&self.marks).insert((uid.to_owned(), target.to_owned()), mark);
        // Nobody listens any more where the operator ends.
        let _ = self.refs.unbounded_send(of.clone());
    }

    /// What the feed has for this target after this cursor.
    pub(super) fn marked(&self, uid: &str, target: &str, cursor: Option<&str>) -> Option<Mark> {
        let mark = lock(&self.marks).get(&(uid.to_owned(), target.to_owned())).cloned()?;
        Some(mark).filter(|mark| Some(mark.cursor.as_str()) == cursor)
    }

    /// The Replication is gone.
    pub(crate) fn forget(&self, uid: &str) {
        lock(&self.marks).retain(|(of, _), _| of != uid);
        lock(&self.ids).retain(|(of, _), _| of != uid);
    }

    /// A run has met a target of the Replication.
    pub(super) fn meet(&self, uid: &str, target: &str, id: Option<String>) {
        let key = (uid.to_owned(), target.to_owned());
        match id {
            Some(id) => lock(&self.ids).insert(key, id),
            None => lock(&self.ids).remove(&key),
        };
    }

    /// Which Berth registry a target is, if one of its runs said so.
    pub(super) fn id(&self, uid: &str, target: &str) -> Option<String> {
        lock(&self.ids).get(&(uid.to_owned(), target.to_owned())).cloned()
    }

    /// Whether a pod was asked just now.
    pub(super) fn asked_lately(&self, pod: &str) -> bool {
        lock(&self.asked).get(pod).is_some_and(|(at, _)| at.elapsed() < LATELY)
    }

    /// What a pod says now; where it says nothing, what it said last.
    pub(super) fn hear(&self, pod: &str, progress: Option<Progress>) -> Option<Progress> {
        let mut asked = lock(&self.asked);
        asked.retain(|_, (at, _)| at.elapsed() < FORGET);
        let progress = progress.or_else(|| asked.get(pod).and_then(|(_, last)| last.clone()));
        asked.insert(pod.to_owned(), (Instant::now(), progress.clone()));
        progress
    }

    /// What a pod said last.
    pub(super) fn last(&self, pod: &str) -> Option<Progress> {
        lock(&self.asked).get(pod).and_then(|(_, progress)| progress.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_for_its_cursor_only() {
        let (memory, mut refs) = Memory::new();
        let of = ObjectRef::new("mirror").within("apps");
        memory.mark(&of, "u", "there", Mark { cursor: "c1".into(), since: None });
        assert_eq!(refs.try_recv().ok(), Some(of));
        assert!(memory.marked("u", "there", Some("c1")).is_some());
        for (uid, target, cursor) in [
            ("u", "there", Some("c2")),
            ("u", "there", None),
            ("u", "other", Some("c1")),
            ("v", "there", Some("c1")),
        ] {
            assert_eq!(memory.marked(uid, target, cursor), None);
        }
        memory.forget("u");
        assert_eq!(memory.marked("u", "there", Some("c1")), None);
    }

    #[test]
    fn a_pod_that_says_nothing_is_where_it_was() {
        let memory = Memory::new().0;
        assert!(!memory.asked_lately("pod"));
        let progress = Progress { done: 3, ..Progress::default() };
        memory.hear("pod", Some(progress.clone()));
        assert!(memory.asked_lately("pod"));
        assert_eq!(memory.hear("pod", None), Some(progress.clone()));
        assert_eq!(memory.last("pod"), Some(progress));
    }
}
