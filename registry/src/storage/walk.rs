//! The way through the names of repositories in bytewise order, past those that nobody asks for: a plan of what to look
//! at next, for storage that lists one folder at a time.
//!
//! A walk has a `next` that says which name, from a text on, is the first one that is wanted. So a subtree that is wanted
//! alone is gone to directly, a single repository is looked at where it would be, and a folder is listed only from the
//! first to the last name in it that may be wanted. With [`everything`] wanted each folder is listed once.

use oci::{RepoName, name::MAX_NAME};

/// What is on the way: the next step at the end.
#[derive(Debug)]
pub(super) struct Walk {
    steps: Vec<Step>,
    /// No name between the last step and this is wanted. None before the first step.
    to: Option<String>,
}

#[derive(Debug)]
enum Step {
    /// A name.
    Name(String),
    /// Names that begin with `prefix` (empty, or ending in `/`), from a text on.
    Below { prefix: String, from: String },
}

/// What to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A repository that is wanted, if it is there.
    At(RepoName),
    /// A folder, of which [`Walk::found`] wants what comes after a name in it.
    In { prefix: String, after: Option<String> },
}

/// That of a walk to which all names are wanted.
#[expect(clippy::unnecessary_wraps, reason = "others of its kind say that nothing comes")]
pub(super) fn everything(from: &str) -> Option<String> {
    Some(from.to_owned())
}

impl Walk {
    /// Through all names below `prefix`, which is empty or ends in `/`.
    pub(super) fn below(prefix: &str) -> Self {
        Self::from(prefix, prefix.to_owned())
    }

    /// Through all names after this one.
    pub(super) fn after(last: Option<&str>) -> Self {
        // No name is longer, so that what comes then makes no difference.
        let enough = |last: &str| (MAX_NAME..last.len()).find(|end| last.is_char_boundary(*end));
        let last = last.map(|last| &last[..enough(last).unwrap_or(last.len())]);
        Self::from("", last.map(just_after).unwrap_or_default())
    }

    fn from(prefix: &str, from: String) -> Self {
        Self { steps: vec![Step::Below { prefix: prefix.to_owned(), from }], to: None }
    }

    /// What comes next; none at the end. `next` is the same each time.
    pub(super) fn next(&mut self, next: impl Fn(&str) -> Option<String>) -> Option<Look> {
        while let Some(step) = self.steps.pop() {
            let (Step::Name(start) | Step::Below { from: start, .. }) = &step;
            let to = match self.to.take() {
                Some(to) if to >= *start => to,
                _ => next(start)?,
            };
            let look = self.look(step, &to);
            self.to = Some(to);
            if look.is_some() {
                return look;
            }
        }
        None
    }

    fn look(&mut self, step: Step, to: &str) -> Option<Look> {
        let prefix = match step {
            Step::Name(name) if name == to => return name.parse().ok().map(Look::At),
            Step::Name(_) => return None,
            Step::Below { prefix, .. } => prefix,
        };
        let rest = to.strip_prefix(&prefix)?;
        if let Some((folder, _)) = rest.split_once('/') {
            let below = format!("{prefix}{folder}/");
            let is_name = is_name(&below);
            self.steps.push(Step::Below { prefix, from: just_behind(&below) });
            if is_name {
                self.steps.push(Step::Below { prefix: below, from: to.to_owned() });
            }
        } else if is_name(to) {
            // Perhaps it is the only one.
            self.steps.push(Step::Below { prefix, from: just_after(to) });
            self.steps.push(Step::Name(to.to_owned()));
        } else {
            // No name in a folder is just that.
            let after = Some(rest).filter(|rest| !rest.is_empty()).map(str::to_owned);
            return Some(Look::In { prefix, after });
        }
        None
    }

    /// What a look into a folder found, made steps of and sorted, and whether there is more.
    pub(super) fn found(&mut self, prefix: String, steps: &[String], more: bool) {
        let whole: Vec<_> = steps.iter().map(|step| format!("{prefix}{step}")).collect();
        if let Some(last) = whole.last().filter(|_| more) {
            let from = if last.ends_with('/') { just_behind(last) } else { just_after(last) };
            self.steps.push(Step::Below { prefix, from });
        }
        self.steps.extend(whole.into_iter().rev().map(|step| {
            if step.ends_with('/') {
                Step::Below { prefix: step.clone(), from: step }
            } else {
                Step::Name(step)
            }
        }));
    }
}

/// The steps that a folder leads to. `a` comes before `a-b`, and that before `a/b`: a repository and what is below it
/// sort apart.
pub(super) fn steps(folder: String, to: &mut Vec<String>) {
    if !folder.starts_with('_') {
        to.push(format!("{folder}/"));
        to.push(folder);
    }
}

/// Whether it is a repository's name, with or without a slash at its end. What else a text says leads nowhere.
fn is_name(text: &str) -> bool {
    text.strip_suffix('/').unwrap_or(text).parse::<RepoName>().is_ok()
}

/// The first text after this one.
fn just_after(text: &str) -> String {
    format!("{text}\0")
}

/// The first text after all that begin with this one, which ends in `/`.
fn just_behind(folder: &str) -> String {
    format!("{}0", folder.strip_suffix('/').unwrap_or(folder))
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        ops::Bound,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::paths::Paths;

    /// Folders, and what is in them.
    #[derive(Default)]
    struct Tree(BTreeMap<String, BTreeSet<String>>);

    impl Tree {
        fn of(names: &BTreeSet<String>) -> Self {
            let mut tree = Self::default();
            for name in names {
                let mut prefix = String::new();
                for part in name.split('/') {
                    tree.0.entry(prefix.clone()).or_default().insert(part.to_owned());
                    prefix = format!("{prefix}{part}/");
                }
            }
            tree
        }

        fn list(&self, prefix: &str, after: Option<&str>, n: usize) -> (Vec<String>, bool) {
            let mut all = vec!["_blobs".to_owned()].into_iter().flat_map(expanded).collect::<Vec<_>>();
            all.extend(self.0.get(prefix).into_iter().flatten().cloned().flat_map(expanded));
            all.sort_unstable();
            all.retain(|step| after.is_none_or(|after| step.as_str() > after));
            let more = all.len() > n;
            all.truncate(n);
            (all, more)
        }
    }

    fn expanded(folder: String) -> Vec<String> {
        let mut all = Vec::new();
        steps(folder, &mut all);
        all
    }

    /// The names that a walk finds, and the looks that it takes.
    fn walk(
        tree: &Tree,
        names: &BTreeSet<String>,
        mut walk: Walk,
        n: usize,
        next: impl Fn(&str) -> Option<String>,
    ) -> (Vec<String>, usize) {
        let (mut found, mut looks) = (Vec::new(), 0);
        while let Some(look) = walk.next(&next) {
            looks += 1;
            match look {
                Look::At(name) => found.extend(names.get(name.as_str()).cloned()),
                Look::In { prefix, after } => {
                    let (steps, more) = tree.list(&prefix, after.as_deref(), n);
                    walk.found(prefix, &steps, more);
                }
            }
        }
        (found, looks)
    }

    /// By trying where any rule begins or ends.
    pub(in crate::storage) fn by_rules(
        rules: &BTreeMap<String, bool>,
    ) -> impl Fn(&str) -> Option<String> + use<> {
        let mut paths = Paths::default();
        let mut bounds = BTreeSet::new();
        for (path, is_open) in rules {
            paths.add(path, *is_open).unwrap();
            bounds.extend(match path.strip_suffix('*') {
                Some("") => vec![String::new()],
                Some(above) => vec![above.to_owned(), just_behind(above)],
                None => vec![path.clone(), just_after(path)],
            });
        }
        move |from| {
            let later = bounds.range::<str, _>((Bound::Included(from), Bound::Unbounded));
            let mut candidates = std::iter::once(from).chain(later.map(String::as_str));
            let first = candidates.find(|at| paths.covering(at).is_some_and(|(is_open, _)| *is_open));
            first.map(str::to_owned)
        }
    }

    fn component() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]", "a-b", "a0", r"a\.b", "a__b"]
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(component(), 1..4).prop_map(|parts| parts.join("/"))
    }

    fn path() -> impl Strategy<Value = String> {
        prop_oneof![4 => name(), 4 => name().prop_map(|name| format!("{name}/*")), 1 => Just("*".to_owned())]
    }

    fn last() -> impl Strategy<Value = Option<String>> {
        prop_oneof![
            Just(None),
            name().prop_map(Some),
            (name(), "[/a0A_.~\\x00-]{1,3}").prop_map(|(name, more)| Some(name + &more)),
            "[/a.]{0,4}".prop_map(Some),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn finds_what_is_wanted_in_order_and_nothing_else(
            names in prop::collection::btree_set(name(), 0..30),
            rules in prop::collection::btree_map(path(), any::<bool>(), 0..8),
            last in last(),
            n in 1..6_usize,
        ) {
            let (tree, next) = (Tree::of(&names), by_rules(&rules));
            let (found, _) = walk(&tree, &names, Walk::after(last.as_deref()), n, &next);
            let wanted = names.iter().filter(|name| next(name).as_ref() == Some(name));
            let wanted: Vec<_> = wanted.filter(|name| Some(*name) > last.as_ref()).cloned().collect();
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn finds_everything_below_a_prefix(
            names in prop::collection::btree_set(name(), 0..30),
            above in name(),
            n in 1..6_usize,
        ) {
            let prefix = format!("{above}/");
            let (found, _) = walk(&Tree::of(&names), &names, Walk::below(&prefix), n, everything);
            let below: Vec<_> = names.into_iter().filter(|name| name.starts_with(&prefix)).collect();
            prop_assert_eq!(found, below);
        }
    }

    #[test]
    fn looks_no_further_than_what_is_wanted() {
        let names: BTreeSet<_> = (0..10_000).map(|n| format!("team-{n:05}/app")).collect();
        let tree = Tree::of(&names);
        let looks = |rules: &[(&str, bool)], last| {
            let rules = rules.iter().map(|(path, is_open)| ((*path).to_owned(), *is_open)).collect();
            let (found, looks) = walk(&tree, &names, Walk::after(last), 256, by_rules(&rules));
            (found.len(), looks)
        };
        assert_eq!(looks(&[], None), (0, 0));
        assert_eq!(looks(&[("team-00500/app", true), ("team-07000/app", true)], None), (2, 2));
        // A look into the folder, one at the name, and one below it.
        let below = [("team-00500/*", true), ("team-07000/*", true)];
        assert_eq!(looks(&below, None), (2, 6));
        assert_eq!(looks(&below, Some("team-00500/b")), (1, 4));
        assert_eq!(looks(&below, Some("team-00500/app/x")), (1, 6));
        assert_eq!(looks(&below, Some("team-06")), (1, 3));
        // What is shut within it costs no look.
        let shut = |n| [format!("team-{n:05}"), format!("team-{n:05}/*")];
        let shut: Vec<_> = (10..10_000).flat_map(shut).collect();
        let mut rules: Vec<_> = shut.iter().map(|path| (path.as_str(), false)).collect();
        rules.push(("*", true));
        let (found, looks) = looks(&rules, None);
        assert_eq!(found, 10);
        assert!(looks < 250, "{looks} looks");
    }
}
