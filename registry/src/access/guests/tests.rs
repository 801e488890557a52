//! Who of a primary reads what, and that it goes no further.

use channel::policy::{Access, Login, Policy, Repository, Role, SecretHash};

use super::*;
use crate::access::rules::Rules;

fn login(username: &str, secret: &str, role: Option<Role>) -> Login {
    Login {
        username: username.into(),
        secrets: vec![SecretHash::of(secret.as_bytes())],
        ends: Vec::new(),
        role,
    }
}

fn readable(path: &str, visibility: Visibility, readers: &[&str]) -> Readable {
    Readable {
        path: path.into(),
        visibility,
        readers: readers.iter().map(|reader| (*reader).to_owned()).collect(),
    }
}

fn primary(name: &str, logins: Vec<Login>, repositories: Vec<Readable>) -> Primary {
    Primary { name: name.into(), logins, repositories }
}

/// A registry with a reader of its own, that stands in for two others. `reader` is somebody else in each of the three.
fn policy() -> Policy {
    let one = vec![
        readable("team/*", Visibility::Private, &["reader", "pull", "gone"]),
        readable("team/secret", Visibility::Private, &[]),
        readable("team/open", Visibility::Public, &[]),
        readable("team/nodes", Visibility::Cluster, &[]),
    ];
    let other = vec![readable("other/*", Visibility::Private, &["reader"])];
    let access = Access { user: "writer".into(), role: Some(Role::Writer), actions: vec![] };
    Policy {
        logins: vec![login("reader", "own", Some(Role::Reader)), login("writer", "w", None)],
        repositories: vec![Repository {
            path: "team/app".into(),
            access: vec![access],
            ..Repository::default()
        }],
        primaries: vec![
            primary(
                "apps/one",
                vec![login("reader", "of one", Some(Role::Admin)), login("pull", "p", None)],
                one,
            ),
            primary("apps/other", vec![login("reader", "of other", None)], other),
        ],
        ..Policy::default()
    }
}

fn rules() -> Rules {
    Rules::new(&policy()).unwrap()
}

/// Whom a secret opens.
fn who(rules: &Rules, username: &str, secret: &str) -> Who {
    let credentials = Credentials { username: username.into(), secret: secret.into() };
    match (rules.users.attempt(&credentials), rules.guests.attempt(&credentials)) {
        (Attempt::Right(user, _), None) => Who::User(user),
        (_, Some((guest, _))) => Who::Guest(guest),
        _ => Who::Nobody,
    }
}

/// Which of some repositories somebody reads.
fn reads(rules: &Rules, who: &Who) -> Vec<&'static str> {
    let all = ["team/app", "team/app/deep", "team/secret", "team/open", "team/nodes", "other/app", "private"];
    let readable = |name: &&str| rules.allow(who, Action::ContentRead, &name.parse().unwrap());
    all.into_iter().filter(readable).collect()
}

#[test]
fn guests_read_what_their_own_registry_says_and_no_more() {
    let rules = rules();
    for username in ["reader", "pull"] {
        let secret = if username == "pull" { "p" } else { "of one" };
        assert_eq!(reads(&rules, &who(&rules, username, secret)), ["team/app", "team/app/deep", "team/open"]);
    }
    assert_eq!(reads(&rules, &who(&rules, "reader", "of other")), ["team/open", "other/app"]);
    // Own logins are what they were, but for what is public.
    assert_eq!(reads(&rules, &who(&rules, "reader", "own")).len(), 7);
    assert_eq!(reads(&rules, &who(&rules, "writer", "w")), ["team/app", "team/open"]);
    assert_eq!(reads(&rules, &Who::Nobody), ["team/open"]);
    assert_eq!(reads(&rules, &who(&rules, "reader", "p")), ["team/open"]);
}

#[test]
fn guests_never_do_anything_but_read() {
    let rules = rules();
    let guest = who(&rules, "reader", "of one");
    let may = |action| rules.allow(&guest, action, &"team/app".parse().unwrap());
    assert!(may(Action::ContentRead) && may(Action::MetadataRead));
    for action in [Action::ContentWrite, Action::ContentDelete, Action::MetadataWrite] {
        assert!(!may(action), "{action:?}");
    }
}

#[test]
fn nodes_read_what_is_for_the_cluster_at_a_primary() {
    let rules = rules();
    let node = crate::access::account::Account::parse("system:serviceaccount:berth-system:node").unwrap();
    assert_eq!(reads(&rules, &Who::Node(node.clone())), ["team/open", "team/nodes"]);
    assert_eq!(reads(&rules, &Who::Account(node)), ["team/open"]);
}

#[test]
fn a_guests_token_is_theirs_and_ends_with_its_secret() {
    let rules = rules();
    let credentials = Credentials { username: b"reader".to_vec(), secret: b"of one".to_vec() };
    let (guest, fingerprint) = rules.guests.attempt(&credentials).unwrap();
    let user = rules.name(&Who::Guest(guest)).unwrap();
    assert_eq!(&*user, "apps/one:reader");
    let subject = Subject { user: user.as_ref().to_owned(), credential: fingerprint.to_hex() };
    assert!(matches!(rules.holder(&subject), Some(Who::Guest(holder)) if holder == guest));
    for user in ["reader", "apps/other:reader", "apps/one:pull", "apps/one", ""] {
        assert!(rules.holder(&Subject { user: user.into(), ..subject.clone() }).is_none(), "{user}");
    }
    let mut changed = policy();
    changed.primaries[0].logins[0].secrets = vec![SecretHash::of(b"another")];
    assert!(Rules::new(&changed).unwrap().holder(&subject).is_none());
    changed.primaries.clear();
    assert!(Rules::new(&changed).unwrap().holder(&subject).is_none());
}

#[test]
fn a_primary_that_can_not_be_used_is_refused() {
    for bad in ["", "a:b", "apps/one"] {
        let mut policy = policy();
        policy.primaries.push(primary(bad, vec![], vec![]));
        assert_eq!(Rules::new(&policy).unwrap_err(), InvalidPolicy::Primary(bad.to_owned()));
    }
    let mut twice = policy();
    twice.primaries[1].repositories.push(readable("other/*", Visibility::Private, &[]));
    assert_eq!(Rules::new(&twice).unwrap_err(), InvalidPolicy::DuplicatePath("other/*".into()));
    // A login that can't be used keeps nobody else out.
    let mut bad = policy();
    bad.primaries[0].logins.push(login("a:b", "x", None));
    let rules = Rules::without_bad_logins(&bad).unwrap();
    assert_eq!(rules.left_out(5).len(), 1);
    assert_eq!(reads(&rules, &who(&rules, "pull", "p")).len(), 3);
}
