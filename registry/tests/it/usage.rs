//! What the operator hears of each path, and that quotas are exact whoever pushes at once.

use std::time::{Duration, Instant};

use channel::{
    policy::{Policy, Repository},
    usage::PathUsage,
};
use futures::future::join_all;
use http::StatusCode;

use crate::{
    client::Client,
    image::{image, noise, sha256},
    managed::{Managed, NAME, Operator, policy},
    server::Server,
};

fn paths(paths: &[(&str, Option<u64>)]) -> Policy {
    let repository =
        |&(path, quota): &(&str, _)| Repository { path: path.into(), quota, ..Repository::default() };
    Policy { repositories: paths.iter().map(repository).collect(), ..policy() }
}

impl Operator {
    async fn usage(&self) -> Vec<PathUsage> {
        self.client.get(self.address, NAME, "/v1/usage").await.unwrap()
    }
}

async fn push_image(client: &Client, repository: &str, tag: &str, layer: &[u8]) -> (String, u64) {
    client.push_blob(repository, "{}").await;
    client.push_blob(repository, layer.to_vec()).await;
    let manifest = image(b"{}", &[layer]);
    client.put_manifest(repository, tag, &manifest).await.expect(StatusCode::CREATED);
    let bytes = manifest.to_string();
    (sha256(bytes.as_bytes()).to_string(), bytes.len() as u64)
}

#[tokio::test]
async fn the_operator_hears_what_lies_in_each_path_also_after_a_restart() {
    let managed = Managed::new();
    let server = managed.start();
    let operator = managed.operator(&server);
    operator.put(&paths(&[("team/*", None), ("team/app", None), ("empty", Some(5))])).await.unwrap();
    let admin = managed.client(&server).login("admin", "all");
    let (web, size) = push_image(&admin, "team/web", "v1", b"layer").await;
    push_image(&admin, "team/web", "v2", b"layer").await;
    push_image(&admin, "team/db", &format!("{web}?tag=v1&tag=v1"), b"layer").await;
    let usage = operator.usage().await;
    let of = |path: &str, usage: &[PathUsage]| usage.iter().find(|usage| usage.path == path).unwrap().clone();
    let team = of("team/*", &usage);
    assert_eq!((team.tags, team.bytes), (3, 2 + 5 + size));
    let last = team.last_push.unwrap();
    assert_eq!((last.tag.as_deref(), last.digest), (Some("v1"), web.clone()));
    assert_eq!(of("empty", &usage), PathUsage { path: "empty".into(), ..PathUsage::default() });
    assert_eq!(usage.iter().map(|usage| &*usage.path).collect::<Vec<_>>(), ["team/*", "team/app", "empty"]);

    // From here on it is kept up.
    let (app, app_size) = push_image(&admin, "team/app", "v1", b"another layer").await;
    admin.delete("/v2/team/web/manifests/v2").await.expect(StatusCode::ACCEPTED);
    admin.delete(&format!("/v2/team/db/manifests/{web}")).await.expect(StatusCode::ACCEPTED);
    let (_, other_size) = push_image(&admin, "team/db", "v9", b"a third layer").await;
    admin.delete(&format!("/v2/team/db/blobs/{}", sha256(b"layer"))).await.expect(StatusCode::ACCEPTED);
    let usage = operator.usage().await;
    let team = of("team/*", &usage);
    assert_eq!((team.tags, team.bytes), (2, 2 + 5 + 13 + size + other_size));
    let single = of("team/app", &usage);
    assert_eq!((single.tags, single.bytes), (1, 2 + 13 + app_size));
    assert_eq!(single.last_push.unwrap().digest, app);

    server.kill();
    let server = managed.start();
    assert_eq!(managed.operator(&server).usage().await, usage);
}

#[tokio::test]
async fn of_many_who_push_at_once_those_for_whom_there_is_room_succeed() {
    let managed = Managed::new();
    let server = managed.start();
    let operator = managed.operator(&server);
    let (size, quota) = (3000, 100_000);
    operator.put(&paths(&[("team/*", Some(quota))])).await.unwrap();
    let admin = managed.client(&server).login("admin", "all");
    let pushers = (0..8_u64).map(|pusher| {
        let admin = admin.clone();
        tokio::spawn(async move {
            let mut stored = 0;
            for n in 0..10 {
                // Half of them are pushed by two.
                let seed = if n % 2 == 0 { n * 100 + pusher } else { n * 100 + pusher / 2 };
                let content = noise(seed, size);
                let digest = sha256(&content);
                let path = format!("/v2/team/r{}/blobs/uploads/?digest={digest}", pusher % 3);
                let answer = admin.post(&path, content).await;
                match answer.status {
                    StatusCode::CREATED => stored += 1,
                    _ => drop(answer.expect(StatusCode::FORBIDDEN)),
                }
            }
            stored
        })
    });
    let stored: u64 = join_all(pushers).await.into_iter().map(Result::unwrap).sum();
    let usage = operator.usage().await;
    let most = quota / size as u64;
    assert_eq!(usage[0].bytes, most * size as u64, "it is full to the last blob that fits");
    assert!(stored >= most);
    server.kill();
    let server: Server = managed.start();
    assert_eq!(managed.operator(&server).usage().await, usage);
}

#[tokio::test]
async fn many_paths_at_rest_cost_nothing() {
    let managed = Managed::new();
    let server = managed.start();
    let operator = managed.operator(&server);
    let names: Vec<_> = (0..1000).map(|n| format!("team/app{n}")).collect();
    let declared: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
    operator.put(&paths(&declared)).await.unwrap();
    let admin = managed.client(&server).login("admin", "all");
    push_image(&admin, "team/app7", "v1", b"layer").await;
    let first = operator.usage().await;
    assert_eq!((first.len(), first[7].tags), (1000, 1));
    let began = Instant::now();
    assert_eq!(operator.usage().await, first);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
