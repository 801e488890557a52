//! The list of repositories that somebody gets is in order what the decision on each of them says.

use channel::policy::{Primary, Readable};
use proptest::prelude::*;

use super::*;
use crate::access::account::Account;

/// What rules name.
const NAMED: [&str; 7] =
    ["reader", "other", "viewer", CI, "system:serviceaccounts:apps", "system:serviceaccounts", NODE];

fn component() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]", "a-b", "a0"]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(component(), 1..4).prop_map(|parts| parts.join("/"))
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![4 => text(), 4 => text().prop_map(|name| format!("{name}/*")), 1 => Just("*".to_owned())]
}

fn visibility() -> impl Strategy<Value = Visibility> {
    prop_oneof![3 => Just(Visibility::Private), 1 => Just(Visibility::Cluster), 1 => Just(Visibility::Public)]
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let actions = prop_oneof![3 => Just(vec![Action::MetadataRead]), 1 => Just(vec![Action::ContentRead])];
    let entry = (prop::sample::select(&NAMED[..]), actions);
    let entry = entry.prop_map(|(user, actions)| Entry { user: user.into(), role: None, actions });
    prop::collection::vec(entry, 0..3)
}

fn repositories() -> impl Strategy<Value = Vec<Repository>> {
    let rules = prop::collection::btree_map(path(), (visibility(), entries()), 0..8);
    rules.prop_map(|rules| {
        let rule =
            |(path, (visibility, access))| Repository { path, visibility, access, ..Repository::default() };
        rules.into_iter().map(rule).collect()
    })
}

fn primary(name: &'static str) -> impl Strategy<Value = Primary> {
    let readers = prop::sample::subsequence(vec!["reader".to_owned(), "pull".to_owned()], 0..=2);
    let rules = prop::collection::btree_map(path(), (visibility(), readers), 0..5);
    rules.prop_map(move |rules| {
        let readable = |(path, (visibility, readers))| Readable { path, visibility, readers };
        Primary {
            name: name.into(),
            logins: vec![login("reader", &[name], None), login("pull", &["p"], None)],
            repositories: rules.into_iter().map(readable).collect(),
        }
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let primaries = prop_oneof![
        Just(vec![]).boxed(),
        (primary("one"), primary("two")).prop_map(|(one, two)| vec![one, two]).boxed()
    ];
    let undeclared = prop_oneof![3 => Just(vec![]).boxed(), 1 => entries().boxed()];
    (repositories(), undeclared, primaries).prop_map(|(repositories, undeclared, primaries)| Policy {
        logins: vec![
            login("reader", &["r"], None),
            login("other", &["x"], None),
            login("viewer", &["v"], Some(Role::Reader)),
        ],
        repositories,
        undeclared,
        service_accounts: Some(ServiceAccounts { audience: AUDIENCE.into(), nodes: Some(NODE.into()) }),
        primaries,
        ..Policy::default()
    })
}

/// Everybody who may ask, and who is known at each primary.
fn callers(rules: &Rules) -> Vec<Who> {
    let user = |name| Who::User(rules.users.find(name).unwrap());
    let account = |name| rules.accounts.as_ref().unwrap().who(Account::parse(name).unwrap());
    let guest = |secret: &str| {
        let credentials = Credentials { username: b"reader".to_vec(), secret: secret.into() };
        rules.guests.attempt(&credentials).map(|(guest, _)| Who::Guest(guest))
    };
    let known = [user("reader"), user("other"), user("viewer"), account(CI), account(NODE), Who::Nobody];
    known.into_iter().chain(guest("one")).chain(guest("two")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn the_list_is_what_the_decision_says(
        policy in any_policy(),
        names in prop::collection::btree_set(text(), 1..30),
        odd in prop::collection::vec("[ab/0.-]{0,5}", 0..10),
    ) {
        let rules = Rules::new(&policy).unwrap();
        for who in callers(&rules) {
            for from in names.iter().chain(&odd) {
                let next = rules.next_listed(&who, from);
                // None of those that are passed over would be in it, and what it is itself is.
                let passed = names.range(from.clone()..).take_while(|name| next.as_ref().is_none_or(|next| *name < next));
                for passed in passed {
                    prop_assert!(!rules.list(&who, &name(passed)), "{passed} from {from:?}: {next:?}");
                }
                if let Some(next) = &next {
                    prop_assert!(next >= from);
                    prop_assert_eq!(rules.next_listed(&who, next), Some(next.clone()), "there is no other answer from there");
                    if let Ok(found) = next.parse() {
                        prop_assert!(rules.list(&who, &found), "{next} from {from:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn many_rules_for_others_are_gone_past_at_once() {
    let mut policy = policy();
    policy.logins[1].role = None;
    let rule = |n| Repository {
        path: format!("many/{n:05}"),
        access: vec![role(if n % 2500 == 0 { "reader" } else { "other" }, Role::Reader)],
        ..Repository::default()
    };
    policy.repositories = (0..10_000).map(rule).collect();
    let rules = Rules::new(&policy).unwrap();
    let who = Who::User(rules.users.find("reader").unwrap());
    let (mut found, mut from) = (Vec::new(), String::new());
    while let Some(next) = rules.next_listed(&who, &from) {
        from = format!("{next}\0");
        found.push(next);
    }
    assert_eq!(found, ["many/00000", "many/02500", "many/05000", "many/07500"], "in as many steps");
}
