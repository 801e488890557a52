use base64::Engine as _;
use channel::policy::{
    Access as Entry, Htpasswd, Login, Policy, Repository, Role, SecretHash, ServiceAccounts, Visibility,
};
use http::HeaderValue;
use oci::RepoName;
use rstest::rstest;

use self::cluster::{AUDIENCE, CI, Cluster, NODE};
use super::*;

mod accounts;
pub(in crate::access) mod cluster;
mod decision;
mod listed;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

const ACTIONS: [Action; 5] = [
    Action::ContentRead,
    Action::ContentWrite,
    Action::ContentDelete,
    Action::MetadataRead,
    Action::MetadataWrite,
];

fn login(username: &str, secrets: &[&str], role: Option<Role>) -> Login {
    let secrets = secrets.iter().map(|secret| SecretHash::of(secret.as_bytes())).collect();
    Login { username: username.into(), secrets, ends: Vec::new(), role }
}

fn role(user: &str, role: Role) -> Entry {
    Entry { user: user.into(), role: Some(role), actions: vec![] }
}

fn policy() -> Policy {
    let entries = || {
        vec![
            role("reader", Role::Reader),
            role("writer", Role::Writer),
            role("owner", Role::Admin),
            Entry { user: "cleaner".into(), role: None, actions: vec![Action::ContentDelete] },
            role(CI, Role::Writer),
            role("system:serviceaccounts:team", Role::Reader),
            // A node is nothing else.
            role(NODE, Role::Admin),
            role("system:serviceaccounts:berth-system", Role::Admin),
        ]
    };
    let repository = |path: &str, visibility, access| Repository {
        path: path.into(),
        visibility,
        access,
        ..Repository::default()
    };
    Policy {
        logins: vec![
            login("admin", &["old", "new"], Some(Role::Admin)),
            login("viewer", &["v"], Some(Role::Reader)),
            login("reader", &["r"], None),
            login("writer", &["w"], None),
            login("owner", &["o"], None),
            login("cleaner", &["c"], None),
            login("other", &["x"], None),
        ],
        htpasswd: Htpasswd::new(format!("alice:{}\n", bcrypt::hash("password", 4).unwrap())),
        repositories: vec![
            repository("private/*", Visibility::Private, entries()),
            repository("cluster/*", Visibility::Cluster, entries()),
            repository("public/*", Visibility::Public, entries()),
            // Most specific: what is said of `private/*` does not count here.
            repository("private/special", Visibility::Private, vec![role("other", Role::Reader)]),
        ],
        undeclared: vec![role("writer", Role::Writer), role("system:serviceaccounts", Role::Reader)],
        service_accounts: Some(ServiceAccounts { audience: AUDIENCE.into(), nodes: Some(NODE.into()) }),
        primaries: vec![],
    }
}

fn access() -> Access {
    access_with(Arc::default())
}

fn access_with(cluster: Arc<Cluster>) -> Access {
    let access = Access::reviewed_by(Some(cluster), b"key").unwrap();
    access.install(Rules::new(&policy()).unwrap());
    access
}

fn basic(credentials: &str) -> HeaderMap {
    let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
    header(&format!("Basic {encoded}"))
}

fn header(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
}

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

async fn token(access: &Access, headers: &HeaderMap, scope: &str) -> HeaderMap {
    let scopes = Scopes::parse([scope]).unwrap();
    let token = access.issue_token(None, headers, HERE, &scopes).await.unwrap().unwrap().token;
    header(&format!("Bearer {token}"))
}

/// What a caller may do, and how they are refused.
fn row(caller: &Caller, repository: &RepoName) -> String {
    let cell = |action| match caller.must(Wanted::Action(action, repository)) {
        Ok(()) => "yes",
        Err(Refusal::Denied) => "403",
        Err(Refusal::NoCredentials) => "401",
        Err(Refusal::InsufficientScope) => "401 scope",
        Err(_) => "?",
    };
    ACTIONS.map(|action| format!("{:9}", cell(action))).join(" ").trim_end().to_owned()
}

#[tokio::test]
async fn a_token_narrows() {
    let access = access();
    let headers = token(&access, &basic("admin:new"), "repository:a:pull repository:b:pull,push").await;
    let caller = access.authenticate(&headers, HERE).await.unwrap();
    assert_eq!(row(&caller, &name("a")), "yes       401 scope 401 scope yes       401 scope");
    assert_eq!(row(&caller, &name("b")), "yes       yes       401 scope yes       yes");
    assert_eq!(row(&caller, &name("c")), ["401 scope"; 5].join(" "));
    assert!(caller.must(Wanted::Entry).is_ok());
    assert_eq!(caller.must(Wanted::Catalog), Err(Refusal::InsufficientScope));
    let headers = token(&access, &basic("admin:new"), "registry:catalog:*").await;
    let caller = access.authenticate(&headers, HERE).await.unwrap();
    assert!(caller.must(Wanted::Catalog).is_ok() && caller.must(Wanted::Feed).is_ok());
}

#[tokio::test]
async fn nobody_follows_the_feed() {
    let access = access();
    let nobody = access.authenticate(&HeaderMap::new(), HERE).await.unwrap();
    assert_eq!(nobody.must(Wanted::Feed), Err(Refusal::NoCredentials));
    let headers = token(&access, &HeaderMap::new(), "registry:catalog:*").await;
    let nobody = access.authenticate(&headers, HERE).await.unwrap();
    assert!(nobody.must(Wanted::Catalog).is_ok());
    assert_eq!(nobody.must(Wanted::Feed), Err(Refusal::InsufficientScope));
    let login = access.authenticate(&basic("reader:r"), HERE).await.unwrap();
    assert!(login.must(Wanted::Feed).is_ok());
}

#[rstest]
#[case("admin:old", true)]
#[case("admin:new", true)]
#[case("reader:r", true)]
#[case("alice:password", true)]
#[case("reader:old", false)]
#[case("admin:r", false)]
#[case("admin:", false)]
#[case("alice:Password", false)]
#[case("alice:", false)]
#[case("nobody:old", false)]
#[case("nobody:password", false)]
#[case("Admin:old", false)]
#[case(":", false)]
#[tokio::test]
async fn logins(#[case] credentials: &str, #[case] right: bool) {
    let answer = access().authenticate(&basic(credentials), HERE).await;
    if right {
        assert!(answer.is_ok());
    } else {
        assert_eq!(answer.unwrap_err(), Refusal::WrongCredentials);
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_policy() {
    let access = Access::without_policy(b"key").unwrap();
    assert!(!access.is_ready());
    for headers in [HeaderMap::new(), basic("admin:old")] {
        assert_eq!(access.authenticate(&headers, HERE).await.unwrap_err(), Refusal::NoCredentials);
        let issued = access.issue_token(None, &headers, HERE, &Scopes::default()).await.unwrap();
        assert_eq!(issued.unwrap_err(), Refusal::NoCredentials);
    }
}

#[tokio::test]
async fn a_token_ends_with_its_credential_and_with_no_other() {
    let access = access();
    let (scope, repository) = ("repository:private/app:pull", name("private/app"));
    let old = token(&access, &basic("admin:old"), scope).await;
    let new = token(&access, &basic("admin:new"), scope).await;
    let alice = token(&access, &basic("alice:password"), scope).await;
    let mut changed = policy();
    changed.logins[0].secrets.remove(0);
    changed.htpasswd = Htpasswd::new(format!("alice:{}", bcrypt::hash("password", 4).unwrap()));
    access.install(Rules::new(&changed).unwrap());
    for revoked in [&old, &alice] {
        assert_eq!(access.authenticate(revoked, HERE).await.unwrap_err(), Refusal::InvalidToken);
    }
    let caller = access.authenticate(&new, HERE).await.unwrap();
    assert!(caller.may(Action::ContentRead, &repository));
    // The rights are those of now, not those of when the token was made.
    changed.logins[0].role = None;
    access.install(Rules::new(&changed).unwrap());
    let caller = access.authenticate(&new, HERE).await.unwrap();
    assert_eq!(caller.must(Wanted::Action(Action::ContentRead, &repository)), Err(Refusal::Denied));
    changed.logins.remove(0);
    access.install(Rules::new(&changed).unwrap());
    assert_eq!(access.authenticate(&new, HERE).await.unwrap_err(), Refusal::InvalidToken);
}

#[tokio::test]
async fn what_is_in_a_form_beats_the_header() {
    let access = access();
    let form = Credentials { username: b"reader".to_vec(), secret: b"r".to_vec() };
    let scopes = Scopes::parse(["repository:undeclared:pull"]).unwrap();
    let issued = access.issue_token(Some(form), &basic("admin:new"), HERE, &scopes).await.unwrap().unwrap();
    let caller = access.authenticate(&header(&format!("Bearer {}", issued.token)), HERE).await.unwrap();
    assert!(!caller.may(Action::ContentRead, &name("undeclared")), "admin could");
}

#[tokio::test]
async fn guessing_is_slowed_and_nobody_is_locked_out() {
    let access = access();
    let elsewhere = "10.0.0.1".parse().unwrap();
    access.authenticate(&basic("alice:password"), HERE).await.unwrap();
    for name in ["admin", "alice", "nobody"] {
        let wrong = basic(&format!("{name}:wrong"));
        for _ in 0..10 {
            assert_eq!(access.authenticate(&wrong, HERE).await.unwrap_err(), Refusal::WrongCredentials);
        }
        // Where the tests are slow, some have been forgiven by now.
        let mut more = 20;
        while access.authenticate(&wrong, HERE).await.unwrap_err() == Refusal::WrongCredentials {
            more -= 1;
            assert!(more > 0, "{name} was never slowed");
        }
        let refusal = access.authenticate(&wrong, elsewhere).await.unwrap_err();
        assert_eq!(refusal, Refusal::WrongCredentials, "{name} from elsewhere");
    }
    access.authenticate(&basic("admin:new"), HERE).await.expect("a generated secret always passes");
    access.authenticate(&basic("alice:password"), HERE).await.expect("it was right a moment ago");
    access.authenticate(&basic("alice:password"), elsewhere).await.expect("from elsewhere");
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let output = format!("{:?}", access());
    assert!(!output.contains("$2b$") && !output.contains(&format!("{:?}", SecretHash::of(b"r").as_bytes())));
}
