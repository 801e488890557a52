//! What is kept up is what would be counted.

use rustix::io::Errno;

use super::{
    failing::{Acknowledged, filled, push_and_delete},
    *,
};
use crate::storage::{Governing, Tally};

/// Lets these paths be counted, and counts them.
pub(super) fn govern(store: &Store, paths: &[&'static str]) {
    let governing = Governing::new(paths.iter().map(|path| (*path, Some(u64::MAX))));
    assert!(store.ledger.govern(Arc::new(governing)));
    usage(store);
}

fn usage(store: &Store) -> Vec<(String, Tally)> {
    store.ledger.usage(store, std::time::Instant::now() + std::time::Duration::from_secs(60))
}

/// Only when nothing goes on. The last push may be gone.
pub(super) fn assert_right(store: &Store) {
    let figures = |usage: Vec<(String, Tally)>| -> Vec<_> {
        usage.into_iter().map(|(path, tally)| (path, tally.bytes, tally.tags)).collect()
    };
    let kept_up = figures(usage(store));
    store.ledger.forget();
    assert_eq!(kept_up, figures(usage(store)));
    let kept_up = store.count_repositories().unwrap();
    store.filled.forget();
    assert_eq!(kept_up, store.count_repositories().unwrap());
}

#[test]
fn whatever_step_fails_the_figures_are_right() {
    for step in 1.. {
        let (_root, store) = filled();
        govern(&store, &["team/*", "other"]);
        assert_eq!(store.count_repositories().unwrap(), 1);
        let faults = Arc::clone(&store.durable.disk.faults);
        faults.plan(step, 1, Errno::IO);
        let done = push_and_delete(&store, &mut Acknowledged::default(), &mut |_| {});
        let steps = faults.heal();
        assert_right(&store);
        if steps < step {
            assert!(done.is_ok());
            break;
        }
    }
}
