//! Where the paths begin that somebody may list, in order, so that who may list few of many gets there directly. Which
//! names within a path these are is left to the rules.

use std::{collections::HashMap, sync::Arc};

use super::users::UserId;

/// Those whom rules let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lister {
    Everybody,
    Nodes,
    User(UserId),
    /// A ServiceAccount, or a group of them.
    Account(Box<str>),
}

/// For each of them where the names begin that such paths are about, in bytewise order.
#[derive(Debug, Default)]
pub(super) struct Openings(HashMap<Lister, Vec<Arc<str>>>);

impl Openings {
    /// Of paths in the order in which they begin, with those who may list what each is about.
    pub(super) fn new<S: IntoIterator<Item = Lister>>(paths: impl Iterator<Item = (String, S)>) -> Self {
        let mut openings: HashMap<_, Vec<_>> = HashMap::new();
        for (beginning, listers) in paths {
            let beginning = Arc::from(beginning);
            for lister in listers {
                openings.entry(lister).or_default().push(Arc::clone(&beginning));
            }
        }
        Self(openings)
    }

    /// The first one for any of these, from a text on.
    pub(super) fn next(&self, listers: impl IntoIterator<Item = Lister>, from: &str) -> Option<&str> {
        let next = |lister| {
            let beginnings = self.0.get(&lister)?;
            beginnings.get(beginnings.partition_point(|beginning| &**beginning < from))
        };
        listers.into_iter().filter_map(next).min().map(|beginning| &**beginning)
    }
}
