use std::time::Instant;

use channel::policy::{End, Htpasswd, Login, Repository, Role, SecretHash};
use rstest::rstest;

use super::*;
use crate::access::{basic::Credentials, users::Attempt};

fn login(username: &str, secrets: usize) -> Login {
    let secrets = (0..secrets).map(|n| SecretHash::of(n.to_string().as_bytes())).collect();
    Login { username: username.into(), secrets, ends: Vec::new(), role: None }
}

fn logins(logins: Vec<Login>) -> Policy {
    Policy { logins, ..Policy::default() }
}

fn access(user: &str, role: Role) -> Access {
    Access { user: user.into(), role: Some(role), actions: vec![] }
}

fn repository(path: &str, access: Vec<Access>) -> Repository {
    Repository { path: path.into(), access, ..Repository::default() }
}

fn refusal(policy: &Policy) -> String {
    Rules::new(policy).unwrap_err().to_string()
}

#[test]
fn refusals_of_logins_say_why() {
    assert!(refusal(&logins(vec![login("", 1)])).contains("must not be empty"));
    assert!(refusal(&logins(vec![login("a:b", 1)])).contains("`a:b`"));
    assert!(refusal(&logins(vec![login("a\n", 1)])).contains(r"`a\n`"));
    assert!(
        refusal(&logins(vec![login("a", 1), login("b", 1), login("a", 1)])).contains("`a` is there twice")
    );
    assert!(refusal(&logins(vec![login("a", 0)])).contains("no secret"));
    assert!(refusal(&logins(vec![login("a", 17)])).contains("17 secrets"));
    let htpasswd = Htpasswd::new("a:secret".into());
    let people = Policy { htpasswd, ..Policy::default() };
    assert!(refusal(&people).contains("line 1 of the password file"));
    let htpasswd = Htpasswd::new(format!("a:{}", bcrypt::hash("x", 4).unwrap()));
    let both = Policy { htpasswd, ..logins(vec![login("a", 1)]) };
    assert!(refusal(&both).contains("`a` is there twice"));
}

#[test]
fn bad_logins_can_be_left_out_and_the_first_of_a_name_counts() {
    let mut logins =
        logins(vec![login("a", 1), login("a:b", 1), login("a", 2), login("none", 0), login("b", 1)]);
    logins.htpasswd = Htpasswd::new(format!("c:secret\nb:{0}\nd:{0}", bcrypt::hash("x", 4).unwrap()));
    let rules = Rules::without_bad_logins(&logins).unwrap();
    assert_eq!(rules.users.len(), 3);
    let opens = |username: &str, secret: &str| {
        let credentials = Credentials { username: username.into(), secret: secret.into() };
        matches!(rules.users.attempt(&credentials), Attempt::Right(..))
    };
    assert!(opens("a", "0") && opens("b", "0") && rules.users.find("d").is_some());
    assert!(!opens("a", "1") && !opens("none", "") && !opens("a:b", "0"));
    let reasons = rules.left_out(100);
    let expected = ["`a:b`", "`a` is there twice", "`none` has no secret", "line 1", "`b` is there twice"];
    assert_eq!(reasons.len(), expected.len());
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(reason.contains(expected), "{reason}");
    }
    assert_eq!(rules.left_out(2), reasons[..2]);
}

#[rstest]
#[case(vec![repository("Team/*", vec![])], "path `Team/*` can't be used")]
#[case(vec![repository("team*", vec![])], "path `team*` can't be used")]
#[case(vec![repository("a", vec![]), repository("b", vec![]), repository("a", vec![])], "path `a` is there twice")]
#[case(
    vec![repository("a", vec![Access { user: "ci".into(), role: None, actions: vec![] }])],
    "user `ci` gets nothing in `a`"
)]
fn refusals_of_repositories_say_why(#[case] repositories: Vec<Repository>, #[case] why: &str) {
    let refusal = refusal(&Policy { repositories, ..Policy::default() });
    assert!(refusal.contains(why), "{refusal}");
}

#[test]
fn an_empty_policy_lets_nobody_in() {
    let rules = Rules::new(&Policy::default()).unwrap();
    let nobody = Credentials { username: vec![], secret: vec![] };
    assert!(matches!(rules.users.attempt(&nobody), Attempt::Wrong));
    assert!(!rules.allow(&Who::Nobody, Action::ContentRead, &"a".parse().unwrap()));
}

#[test]
fn who_is_named_several_times_may_do_all_of_it_and_strangers_hold_up_nothing() {
    let delete = Access { user: "ci".into(), role: None, actions: vec![Action::ContentDelete] };
    let entries =
        vec![access("gone", Role::Admin), access("ci", Role::Reader), access("other", Role::Reader), delete];
    let policy = Policy {
        repositories: vec![repository("a", entries)],
        ..logins(vec![login("ci", 1), login("other", 1)])
    };
    let rules = Rules::new(&policy).unwrap();
    assert_eq!(rules.strangers, ["gone"]);
    let name = "a".parse().unwrap();
    let may = |user: &str, action| rules.allow(&Who::User(rules.users.find(user).unwrap()), action, &name);
    assert!(may("ci", Action::ContentRead) && may("ci", Action::ContentDelete));
    assert!(!may("ci", Action::ContentWrite));
    assert!(may("other", Action::ContentRead) && !may("other", Action::ContentDelete));
}

#[test]
#[ignore = "a measurement: cargo test --release -p registry --lib cost_of -- --ignored --nocapture"]
#[expect(clippy::print_stderr, reason = "that is what it is for")]
fn cost_of_a_decision() {
    const REPOSITORIES: usize = 1000;
    const ROUNDS: u32 = 1_000_000;
    let robots: Vec<_> = (0..2 * REPOSITORIES).map(|n| login(&format!("robot-{n}"), 2)).collect();
    let repositories = (0..REPOSITORIES).map(|n| {
        let entries = robots.iter().skip(n).take(20).map(|robot| access(&robot.username, Role::Writer));
        let end = if n % 2 == 0 { "/*" } else { "" };
        repository(&format!("team-{n}/project/app-{n}{end}"), entries.collect())
    });
    let policy = Policy { repositories: repositories.collect(), ..logins(robots) };
    let rules = Rules::new(&policy).unwrap();
    let names: Vec<RepoName> =
        (0..REPOSITORIES).map(|n| format!("team-{n}/project/app-{n}/a/b/c").parse().unwrap()).collect();
    let users: Vec<_> =
        (0..REPOSITORIES).map(|n| Who::User(rules.users.find(&format!("robot-{n}")).unwrap())).collect();
    let started = Instant::now();
    let mut allowed = 0_u32;
    for round in 0..ROUNDS as usize {
        let index = round % REPOSITORIES;
        allowed += u32::from(rules.allow(&users[index], Action::ContentWrite, &names[index]));
    }
    let each = started.elapsed() / ROUNDS;
    assert_eq!(allowed, ROUNDS / 2);
    let attempt = Credentials { username: b"robot-999".to_vec(), secret: b"1".to_vec() };
    let started = Instant::now();
    for _ in 0..ROUNDS {
        std::hint::black_box(rules.users.attempt(&attempt));
    }
    eprintln!("a decision takes {each:?}, a login {:?}", started.elapsed() / ROUNDS);
}

#[test]
fn a_secret_that_is_over_opens_nothing_any_more_and_neither_do_its_tokens() {
    let ending = |until: &str| {
        let mut login = login("ci", 2);
        login.ends = vec![End { secret: login.secrets[0], until: until.into() }];
        logins(vec![login])
    };
    let attempt = |rules: &Rules, secret: &str| {
        let credentials = Credentials { username: "ci".into(), secret: secret.into() };
        match rules.users.attempt(&credentials) {
            Attempt::Right(user, fingerprint) => Some((user, fingerprint)),
            _ => None,
        }
    };
    let [open, over] =
        ["9999-01-01T00:00:00Z", "2026-01-01T00:00:00Z"].map(|until| Rules::new(&ending(until)).unwrap());
    let (user, fingerprint) = attempt(&open, "0").unwrap();
    assert!(open.users.still_has(user, fingerprint) && !over.users.still_has(user, fingerprint));
    assert!(attempt(&over, "0").is_none() && attempt(&over, "1").is_some());
    assert!(refusal(&ending("soon")).contains("`ci` has a secret that ends at no time"));
}
