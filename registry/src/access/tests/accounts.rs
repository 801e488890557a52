//! ServiceAccounts that log in.

use std::sync::atomic::Ordering;

use super::{
    cluster::{forged, token_of},
    *,
};

const HOUR: Duration = Duration::from_secs(3600);

fn by(username: &str, token: &str) -> HeaderMap {
    basic(&format!("{username}:{token}"))
}

async fn refusal(access: &Access, headers: &HeaderMap) -> Refusal {
    access.authenticate(headers, HERE).await.unwrap_err()
}

#[rstest]
#[case("serviceaccount")]
#[case("")]
#[case("nobody")]
#[tokio::test]
async fn any_name_that_is_no_login_does(#[case] username: &str) {
    let access = access();
    let caller = access.authenticate(&by(username, &token_of(CI, HOUR)), HERE).await.unwrap();
    assert_eq!(caller.login().as_deref(), Some(CI));
    assert!(caller.must(Wanted::Entry).is_ok() && caller.must(Wanted::Catalog).is_ok());
    assert_eq!(refusal(&access, &by(username, &forged(CI))).await, Refusal::WrongCredentials);
}

#[tokio::test]
async fn under_a_logins_name_a_token_opens_nothing_and_takes_as_long() {
    let cluster = Arc::new(Cluster::default());
    let access = access_with(Arc::clone(&cluster));
    for (asked, username) in ["reader", "alice", "admin"].into_iter().enumerate() {
        let name = format!("system:serviceaccount:apps:ci-{asked}");
        assert_eq!(refusal(&access, &by(username, &token_of(&name, HOUR))).await, Refusal::WrongCredentials);
        assert_eq!(cluster.asked(), asked + 1);
    }
    cluster.away.store(true, Ordering::SeqCst);
    for username in ["reader", "alice", "nobody"] {
        let token = token_of(&format!("system:serviceaccount:apps:{username}"), HOUR);
        assert_eq!(refusal(&access, &by(username, &token)).await, Refusal::Unchecked);
    }
}

#[tokio::test]
async fn only_tokens_for_this_registry_are_shown_to_the_cluster() {
    let cluster = Arc::new(Cluster::default());
    let access = access_with(Arc::clone(&cluster));
    access.authenticate(&basic("admin:new"), HERE).await.unwrap();
    for secret in ["", "secret", "a.b.c", &"x".repeat(100_000), &token_of("system:node:one", HOUR)] {
        assert_eq!(refusal(&access, &by("serviceaccount", secret)).await, Refusal::WrongCredentials);
    }
    let mut elsewhere = policy();
    elsewhere.service_accounts =
        Some(ServiceAccounts { audience: "berth.dev/apps/other".into(), nodes: None });
    access.install(Rules::new(&elsewhere).unwrap());
    assert_eq!(refusal(&access, &by("other name", &token_of(CI, HOUR))).await, Refusal::WrongCredentials);
    elsewhere.service_accounts = None;
    access.install(Rules::new(&elsewhere).unwrap());
    assert_eq!(refusal(&access, &by("other name", &token_of(CI, HOUR))).await, Refusal::WrongCredentials);
    assert_eq!(cluster.asked(), 0);
}

#[tokio::test]
async fn without_somebody_to_ask_no_token_is_right() {
    let access = Access::without_policy(b"key").unwrap();
    access.install(Rules::new(&policy()).unwrap());
    assert_eq!(refusal(&access, &by("x", &token_of(CI, HOUR))).await, Refusal::WrongCredentials);
    let node = access.authenticate(&by("x", &token_of(NODE, HOUR)), HERE).await.unwrap();
    assert_eq!(node.must(Wanted::Entry), Err(Refusal::NoCredentials));
}

#[tokio::test]
async fn a_bearer_token_lives_no_longer_than_what_it_was_got_with() {
    let access = access();
    for (left, longest, shortest) in [(20, 20, 10), (3600, 300, 300)] {
        let headers = by("x", &token_of(CI, Duration::from_secs(left)));
        let issued = access.issue_token(None, &headers, HERE, &Scopes::default()).await.unwrap().unwrap();
        assert!((shortest..=longest).contains(&issued.lifetime.as_secs()), "{:?}", issued.lifetime);
        assert_eq!(issued.login.as_deref(), Some(CI));
    }
}

#[tokio::test]
async fn a_bearer_token_ends_when_accounts_may_no_longer_log_in() {
    let access = access();
    let (scope, repository) = ("repository:private/app:pull", name("private/app"));
    let headers = token(&access, &by("x", &token_of(CI, HOUR)), scope).await;
    let caller = access.authenticate(&headers, HERE).await.unwrap();
    assert!(caller.may(Action::ContentRead, &repository));
    assert_eq!(caller.login().as_deref(), Some(CI));
    let mut changed = policy();
    changed.repositories.clear();
    access.install(Rules::new(&changed).unwrap());
    let caller = access.authenticate(&headers, HERE).await.unwrap();
    assert!(caller.may(Action::ContentRead, &repository), "named by the undeclared's group");
    changed.undeclared.clear();
    access.install(Rules::new(&changed).unwrap());
    let caller = access.authenticate(&headers, HERE).await.unwrap();
    assert_eq!(caller.must(Wanted::Action(Action::ContentRead, &repository)), Err(Refusal::Denied));
    for accounts in [Some(ServiceAccounts { audience: "other".into(), nodes: None }), None] {
        access.install(Rules::new(&Policy { service_accounts: accounts, ..policy() }).unwrap());
        assert_eq!(refusal(&access, &headers).await, Refusal::InvalidToken);
    }
}

#[tokio::test]
async fn a_node_may_come_in_but_not_look_around() {
    let access = access();
    let headers = by("node", &token_of(NODE, HOUR));
    let caller = access.authenticate(&headers, HERE).await.unwrap();
    assert!(caller.must(Wanted::Entry).is_ok());
    assert_eq!(caller.must(Wanted::Catalog), Err(Refusal::NoCredentials));
    assert!(caller.may_know(&name("cluster/app")) && !caller.may_know(&name("private/app")));
    let headers = token(&access, &headers, "registry:catalog:*").await;
    let caller = access.authenticate(&headers, HERE).await.unwrap();
    assert_eq!(caller.must(Wanted::Catalog), Err(Refusal::InsufficientScope));
}

#[tokio::test]
async fn a_nodes_token_that_proves_nothing_is_none_and_no_guess() {
    let cluster = Arc::new(Cluster::default());
    let access = access_with(Arc::clone(&cluster));
    let nobody = row(&access.authenticate(&HeaderMap::new(), HERE).await.unwrap(), &name("cluster/app"));
    let is_nobody = async |token: &str| {
        let headers = by("node", token);
        let caller = access.authenticate(&headers, HERE).await.unwrap();
        assert_eq!((caller.login(), row(&caller, &name("cluster/app"))), (None, nobody.clone()));
        assert!(caller.may(Action::ContentRead, &name("public/app")));
        let issued = access.issue_token(None, &headers, HERE, &Scopes::default()).await.unwrap().unwrap();
        assert_eq!(issued.login, None);
    };
    let (expired, forged_once) = (token_of(NODE, Duration::ZERO), forged(NODE));
    for _ in 0..30 {
        is_nobody(&expired).await;
        is_nobody(&forged_once).await;
    }
    assert_eq!(cluster.asked(), 1, "those that have expired are not shown to the cluster");
    cluster.away.store(true, Ordering::SeqCst);
    is_nobody(&token_of(NODE, HOUR)).await;
    for token in [token_of(CI, HOUR), forged(CI)] {
        assert_eq!(refusal(&access, &by("x", &token)).await, Refusal::Unchecked, "never right, nor wrong");
    }
}

#[rstest]
#[case("", None, "needs an audience")]
#[case("a", Some("node"), "`node` is no ServiceAccount")]
#[case("a", Some("system:serviceaccounts:berth-system"), "is no ServiceAccount")]
fn what_can_not_be_used_is_refused(#[case] audience: &str, #[case] nodes: Option<&str>, #[case] why: &str) {
    let accounts = ServiceAccounts { audience: audience.into(), nodes: nodes.map(str::to_owned) };
    let refusal = Rules::new(&Policy { service_accounts: Some(accounts), ..Policy::default() }).unwrap_err();
    assert!(refusal.to_string().contains(why), "{refusal}");
}
