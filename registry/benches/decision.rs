//! What a decision costs: who is it, and may they, for policies of different sizes. Not timed by any test; `make bench`
//! prints it.

use std::{
    hint::black_box,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use channel::policy::{
    Access, Action, Htpasswd, Login, Policy, Repository, Role, SecretHash, ServiceAccounts,
};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use oci::RepoName;
use registry::testing::Decisions;
use tokio::runtime::Runtime;

const BATCHES: usize = 31;
const OF_BATCH: u32 = 2000;

const ACCOUNT: &str = "system:serviceaccount:apps:ci";
const AUDIENCE: &str = "berth.dev/apps/demo";
const PERSON: &str = "ann";
const DEEP: &str = "one/two/three/four/five/six/app";

/// So many Repositories with two robots each, a `ServiceAccount` and a person; one more for all below a path; and who may
/// where none is declared.
fn policy(repositories: usize) -> Policy {
    let robot = |number: usize, kind: &str| format!("{kind}.team-{}.app-{number}.{kind}", number % 50);
    let robots = |number| [(robot(number, "pull"), Role::Reader), (robot(number, "push"), Role::Writer)];
    let login = |(username, _): (String, Role)| {
        let secrets = vec![SecretHash::of(username.as_bytes())];
        Login { username, secrets, role: None, ends: Vec::new() }
    };
    let access = |(user, role)| Access { user, role: Some(role), actions: Vec::new() };
    let readers = || [ACCOUNT, PERSON].map(|user| access((user.to_owned(), Role::Reader)));
    let below = DEEP.rsplit_once('/').map_or("", |(above, _)| above);
    let deep = Repository { path: format!("{below}/*"), access: readers().into(), ..Repository::default() };
    let declared = (0..repositories).map(|number| Repository {
        path: format!("team-{}/app-{number}", number % 50),
        access: robots(number).map(access).into_iter().chain(readers()).collect(),
        ..Repository::default()
    });
    let password = bcrypt::hash(PERSON, 4).expect("a hash");
    Policy {
        logins: (0..repositories).flat_map(robots).map(login).collect(),
        repositories: declared.chain([deep]).collect(),
        htpasswd: Htpasswd::new(format!("{PERSON}:{password}\n")),
        service_accounts: Some(ServiceAccounts { audience: AUDIENCE.into(), nodes: None }),
        undeclared: readers().into(),
        ..Policy::default()
    }
}

fn headers(value: &str) -> HeaderMap {
    let value = HeaderValue::from_str(value).expect("a header's value");
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

fn basic(username: &str, password: &str) -> HeaderMap {
    headers(&format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}"))))
}

/// What the cluster would give the account.
fn account() -> HeaderMap {
    let expires = SystemTime::now() + Duration::from_secs(3600);
    let expires = expires.duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
    let claims = format!(r#"{{"aud":["{AUDIENCE}"],"exp":{expires},"sub":"{ACCOUNT}"}}"#);
    basic("serviceaccount", &format!("e30.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims)))
}

/// Median and slowest of the batches.
fn measure(
    runtime: &Runtime,
    decisions: &Decisions,
    headers: &HeaderMap,
    repository: &str,
) -> (Duration, Duration) {
    let repository: RepoName = repository.parse().expect("a repository's name");
    let mut took: Vec<Duration> = (0..BATCHES)
        .map(|_| {
            let began = Instant::now();
            runtime.block_on(async {
                for _ in 0..OF_BATCH {
                    let headers = black_box(headers);
                    assert!(decisions.decide(headers, Action::ContentRead, &repository).await);
                }
            });
            began.elapsed() / OF_BATCH
        })
        .collect();
    took.sort();
    (took[BATCHES / 2], took[BATCHES - 1])
}

#[expect(clippy::print_stdout, reason = "it is what this is for")]
fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    println!("A decision (median and slowest of {BATCHES} batches, goal 5 µs):");
    for repositories in [10, 1000, 10_000] {
        let decisions = Decisions::by(&policy(repositories), ACCOUNT);
        let bearer = |login: &HeaderMap, repository: &str| {
            let scope = format!("repository:{repository}:pull");
            headers(&format!("Bearer {}", runtime.block_on(decisions.token(login, &scope))))
        };
        let number = repositories / 2;
        let (team, own) = (number % 50, format!("team-{}/app-{number}", number % 50));
        let own = own.as_str();
        let robot = format!("pull.team-{team}.app-{number}.pull");
        let robot = basic(&robot, &robot);
        for (how, headers, repository) in [
            ("a robot, basic", robot.clone(), own),
            ("a robot, bearer", bearer(&robot, own), own),
            ("a ServiceAccount, bearer", bearer(&account(), own), own),
            ("a person seen before, basic", basic(PERSON, PERSON), own),
            ("below `/*`, six deep, bearer", bearer(&account(), DEEP), DEEP),
            ("undeclared, bearer", bearer(&account(), "none/of/these"), "none/of/these"),
        ] {
            let (median, slowest) = measure(&runtime, &decisions, &headers, repository);
            println!("  {repositories:>6} Repositories, {how:<28} {median:>8.2?} {slowest:>8.2?}");
        }
    }
}
