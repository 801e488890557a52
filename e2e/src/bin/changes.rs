//! `make bench-cluster`: how long a change of one Repository among many takes until every replica decides by it, and what
//! the operator asks of the API server while nothing changes.
//!
//! Needs a cluster in which the operator is deployed. Everything is in a namespace of its own, gone afterwards.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use crds::{Registry, Repository};
use e2e::{
    Result, Space, ensure, operator,
    registry::{self, Login},
    remote::Remote,
    repository, wait, with_patience,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use serde_json::json;

/// Refused: the second where a name was tried with wrong passwords for too often, as here with revoked ones.
const REFUSED: &[StatusCode] = &[StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];

/// One of so many Repositories has a Secret.
const SHARE: usize = 5;

/// What is measured.
#[derive(Debug, Parser)]
struct Arguments {
    /// Repositories that are declared.
    #[arg(long, default_value_t = 1000)]
    repositories: usize,
    /// Changes of each kind.
    #[arg(long, default_value_t = 50)]
    changes: usize,
    /// Seconds of rest.
    #[arg(long, default_value_t = 120)]
    rest_seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let prepare = async |space: &Space| declare(space, arguments.repositories).await;
    let body = async |space: &Space, registry| measure(space, &registry, &arguments).await;
    with_patience("changes", prepare, body).await;
    ExitCode::SUCCESS
}

/// A Registry and its Repositories, some of them with a Secret.
async fn declare(space: &Space, repositories: usize) -> Result<Registry> {
    let (registry, _) = registry::running(space, &registry::small("demo")).await?;
    let began = Instant::now();
    let declared = stream::iter(0..repositories).map(async |number| {
        let secret = json!({"name": format!("pull-{number}")});
        let secrets = if number % SHARE == 0 { vec![secret] } else { Vec::new() };
        let spec = json!({"visibility": "Private", "pullSecrets": secrets});
        repository::apply(space, &repository::with_spec(&name(number), &spec)).await.map(drop)
    });
    declared.buffer_unordered(8).try_collect::<Vec<()>>().await?;
    for number in 0..repositories {
        repository::condition(space, &name(number), "Ready", "True").await?;
    }
    println!(
        "{repositories} Repositories, every {SHARE}th with a Secret, declared and in force after {:.1?}",
        began.elapsed()
    );
    Ok(registry)
}

async fn measure(space: &Space, registry: &Registry, arguments: &Arguments) -> Result<()> {
    let Arguments { repositories, changes, rest_seconds } = *arguments;
    tell("a Repository created, until it is Ready", created(space, changes).await?);
    let nobody = Remote::with_login(space, registry, None).await?;
    let path = |number| format!("/v2/{}/{}/tags/list", space.namespace, name(number));
    let mut opened = Vec::new();
    let mut shut = Vec::new();
    for change in 0..changes {
        let number = change * repositories / changes;
        let visibility = |visibility: &str| json!({"spec": {"visibility": visibility}});
        repository::change(space, &name(number), &visibility("Public")).await?;
        opened.push(until(&nobody, &path(number), &[StatusCode::NOT_FOUND]).await?);
        repository::change(space, &name(number), &visibility("Private")).await?;
        shut.push(until(&nobody, &path(number), REFUSED).await?);
    }
    tell("made public, until everybody is let in", opened);
    tell("made private, until nobody is let in", shut);
    let spec = json!({"pullSecrets": [{
        "name": "pull",
        "namespaces": {"names": [space.namespace], "selector": {"matchLabels": {"team": "later"}}},
        "serviceAccounts": {"names": ["default"]},
    }]});
    repository::ready(space, &repository::with_spec("secret", &spec)).await?;
    tell("a Secret deleted, until its login is refused", revoked(space, registry, changes).await?);
    tell("a rotation demanded, until the next password is given", rotated(space, changes).await?);
    tell("a namespace created, until its Secret is there and attached", delivered(space, changes).await?);

    for number in 0..repositories {
        let known =
            |repository: &Repository| repository.status.as_ref().is_some_and(|status| status.tags.is_some());
        wait::until(&space.api(), &name(number), "what it holds to be known", known).await?;
    }
    let before = asked(space).await?;
    println!("at rest for {rest_seconds} s …");
    tokio::time::sleep(Duration::from_secs(rest_seconds)).await;
    let after = asked(space).await?;
    for (method, after) in after {
        println!("  requests to the API server {method}: {}", after - before.get(&method).unwrap_or(&0));
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("app-{number}")
}

/// Asks again as soon as there is an answer, until it has one of these statuses.
async fn until(remote: &Remote, path: &str, wanted: &[StatusCode]) -> Result<Duration> {
    let began = Instant::now();
    while !wanted.contains(&remote.http().send(Method::GET, path, "").await?.status) {
        ensure!(began.elapsed() < wait::LIMIT, "{path} is not answered {wanted:?}");
    }
    Ok(began.elapsed())
}

/// Times from the creation of one more Repository until it can be used.
async fn created(space: &Space, times: usize) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for number in 0..times {
        let began = Instant::now();
        repository::ready(space, &repository::with_spec(&format!("more-{number}"), &json!({}))).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// Times from the demand of a rotation until the Secret has another password.
async fn rotated(space: &Space, times: usize) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for turn in 0..times {
        let former = repository::login(space, "pull").await?.password;
        let began = Instant::now();
        let demand = json!({"metadata": {"annotations": {"berth.dev/rotate": turn.to_string()}}});
        repository::change(space, "secret", &demand).await?;
        wait::until(&space.api(), "pull", "another password", |secret: &Secret| {
            repository::in_secret(secret).is_ok_and(|next| next.password != former)
        })
        .await?;
        took.push(began.elapsed());
        repository::condition(space, "secret", "Ready", "True").await?;
    }
    Ok(took)
}

/// Times from the creation of a namespace that agrees until its pods pull with a Secret.
async fn delivered(space: &Space, times: usize) -> Result<Vec<Duration>> {
    let labels = [("team", "later"), ("berth.dev/accept-secrets-from", space.namespace.as_str())];
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let later = space.labelled(&labels).await?;
        repository::login(&later, "pull").await?;
        repository::attached(&later, "default", "pull", true).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// Times from the deletion of a Secret until its login is refused.
async fn revoked(space: &Space, registry: &Registry, times: usize) -> Result<Vec<Duration>> {
    let path = format!("/v2/{}/secret/tags/list", space.namespace);
    let mut took = Vec::new();
    for _ in 0..times {
        let login: Login = repository::login(space, "pull").await?;
        let remote = Remote::with_login(space, registry, Some(&login)).await?;
        until(&remote, &path, &[StatusCode::NOT_FOUND]).await?;
        space.api::<Secret>().delete("pull", &DeleteParams::default()).await?;
        took.push(until(&remote, &path, REFUSED).await?);
        wait::until(&space.api(), "pull", "another login", |secret: &Secret| {
            repository::in_secret(secret).is_ok_and(|next| next.password != login.password)
        })
        .await?;
    }
    repository::condition(space, "secret", "Ready", "True").await.map(|_: Repository| took)
}

fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |hundredth: usize| took.get((took.len() * hundredth).div_ceil(100).saturating_sub(1));
    if let (Some(p50), Some(p99), Some(most)) = (at(50), at(99), took.last()) {
        println!("{what}: p50 {p50:.2?}, p99 {p99:.2?}, at most {most:.2?} ({} times)", took.len());
    }
}

/// Requests of the operator to the API server so far, by method.
async fn asked(space: &Space) -> Result<BTreeMap<String, u64>> {
    operator::counter(space, "berth_operator_requests_total").await
}
