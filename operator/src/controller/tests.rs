//! The whole operator against an API server in memory that tells of changes, and a replica that takes policies.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

mod admission;
mod cluster;

use crate::testing;
use cluster::{
    Cluster, REGISTRY, REPLICAS, at, has, opens, replica, replica_number, silent_replica, with_operator,
};

#[tokio::test]
async fn what_repositories_are_told_follows_the_cluster() {
    with_operator(&Cluster::new(), async |cluster| {
        for (namespace, name) in [("red", "app"), ("blue", "app")] {
            cluster.declare(namespace, name, &json!({}));
        }
        cluster.until_said(&at("red", "app"), "Accepted", "Accepted").await;
        cluster.until_said(&at("blue", "app"), "Accepted", "NotGranted").await;
        cluster.edit("/api/v1/namespaces/blue", |namespace| {
            namespace["metadata"]["labels"] = json!({"team": "yes"});
        });
        cluster.until_said(&at("blue", "app"), "Accepted", "Accepted").await;
        cluster.declare("apps", "theirs", &json!({"path": "red/app"}));
        cluster.until_said(&at("apps", "theirs"), "Accepted", "PathTaken").await;
        cluster.api.remove(&at("red", "app"));
        cluster.until_said(&at("apps", "theirs"), "Accepted", "Accepted").await;
        cluster.declare("red", "app", &json!({}));
        cluster.until_said(&at("red", "app"), "Accepted", "PathTaken").await;
        cluster.api.remove(&at("apps", "theirs"));
        cluster.until_said(&at("red", "app"), "Accepted", "Accepted").await;
        let registry = cluster.api.remove(REGISTRY).unwrap();
        cluster.until_said(&at("red", "app"), "Accepted", "NotGranted").await;
        cluster.api.put(REGISTRY, registry);
        cluster.until_said(&at("red", "app"), "Accepted", "Accepted").await;
    })
    .await;
}

#[tokio::test]
async fn one_change_among_a_thousand_repositories_is_enforced_within_seconds_and_nothing_else_is_written() {
    with_operator(&Cluster::new(), async |cluster| {
        for number in 0..1000 {
            cluster.declare("red", &format!("app-{number}"), &json!({}));
        }
        let deciding = replica(cluster, REPLICAS[0]).await;
        for number in 0..1000 {
            cluster.until_said(&at("red", &format!("app-{number}")), "Ready", "Ready").await;
        }
        cluster.until_at_rest().await;
        cluster.declare("red", "one-more", &json!({}));
        let took = cluster.until_said(&at("red", "one-more"), "Ready", "Ready").await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(has(&deciding, "red/one-more"));

        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        cluster
            .edit(&at("red", "app-7"), |repository| repository["metadata"]["deletionTimestamp"] = json!(now));
        let gone = || cluster.api.get(&at("red", "app-7")).is_none();
        let took = cluster.until("app-7 gone", gone).await;
        assert!(took < Duration::from_secs(5) && !has(&deciding, "red/app-7"), "{took:?}");
        let mut writes = cluster.api.take_writes();
        writes.retain(|write| !write.contains("/events") && !write.ends_with("demo/status"));
        assert!(
            writes.iter().all(|write| write.contains("one-more") || write.contains("app-7")),
            "{writes:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_starts_anew_writes_nothing() {
    const ACCOUNT: &str = "/api/v1/namespaces/red/serviceaccounts/default";
    let cluster = Cluster::new();
    let metadata = json!({"name": "default", "namespace": "red", "resourceVersion": "1"});
    cluster.api.put(ACCOUNT, json!({"metadata": metadata}));
    for number in 0..200 {
        let secret = json!({"name": format!("pull-{number}"), "serviceAccounts": {"names": ["default"]}});
        let secrets = if number % 4 == 0 { vec![secret] } else { Vec::new() };
        cluster.declare("red", &format!("app-{number}"), &json!({"pullSecrets": secrets}));
    }
    cluster.declare("blue", "refused", &json!({}));
    with_operator(&cluster, async |cluster| {
        replica(cluster, REPLICAS[1]).await;
        for number in 0..200 {
            cluster.until_said(&at("red", &format!("app-{number}")), "Ready", "Ready").await;
        }
        cluster.until_at_rest().await;
        let account = cluster.api.get(ACCOUNT).unwrap();
        assert_eq!(account["imagePullSecrets"].as_array().map(Vec::len), Some(50));
    })
    .await;
    with_operator(&cluster, async |cluster| {
        let reads = std::cell::Cell::new(0);
        cluster.api.take_reads();
        let enough = || reads.replace(reads.get() + cluster.api.take_reads()) > 20;
        cluster.until("everything looked at", enough).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(cluster.api.take_writes(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn people_come_and_go_with_their_password_file() {
    const SECRET: &str = "/api/v1/namespaces/apps/secrets/people";
    with_operator(&Cluster::new(), async |cluster| {
        let identity = json!({"passwordFile": {"secretName": "people"}});
        cluster.edit(REGISTRY, |registry| registry["spec"]["identity"] = identity);
        let deciding = replica(cluster, REPLICAS[2]).await;
        let people = || deciding.lock().unwrap().0.as_ref().map(|policy| policy.htpasswd.as_str().to_owned());
        cluster.until_said(REGISTRY, "IdentityReady", "PasswordFileNotFound").await;
        let metadata =
            json!({"name": "people", "namespace": "apps", "labels": {"berth.dev/registry": "demo"}});
        cluster.api.put(SECRET, json!({"metadata": metadata, "data": {"htpasswd": "YTpi"}}));
        cluster.until_said(REGISTRY, "IdentityReady", "PasswordFile").await;
        assert_eq!(people().as_deref(), Some("a:b"));
        cluster.api.remove(SECRET);
        cluster.until_said(REGISTRY, "IdentityReady", "PasswordFileNotFound").await;
        assert_eq!(people().as_deref(), Some(""));
    })
    .await;
}

#[tokio::test]
async fn images_go_where_the_repository_says_so_and_its_path_is_its_own() {
    with_operator(&Cluster::new(), async |cluster| {
        let delete = |path: &str| json!({"path": path, "deletionPolicy": "Delete"});
        cluster.declare("apps", "a-first", &delete("red/app"));
        cluster.declare("red", "second", &delete("red/app"));
        cluster.declare("red", "retained", &json!({}));
        let deciding = replica(cluster, REPLICAS[3]).await;
        let all = [at("red", "second"), at("red", "retained"), at("apps", "a-first")];
        cluster.until_said(&all[0], "Accepted", "PathTaken").await;
        cluster.until_said(&all[1], "Ready", "Ready").await;
        cluster.until_said(&all[2], "Ready", "Ready").await;
        for path in &all {
            let now = k8s_openapi::jiff::Timestamp::now().to_string();
            cluster.edit(path, |repository| repository["metadata"]["deletionTimestamp"] = json!(now));
            cluster.until("it gone", || cluster.api.get(path).is_none()).await;
            let deleted = deciding.lock().unwrap().1.clone();
            assert_eq!(deleted.len(), usize::from(path.contains("a-first")), "{path}: {deleted:?}");
        }
        assert_eq!(deciding.lock().unwrap().1, ["red/app"]);
    })
    .await;
}

#[tokio::test]
async fn what_a_secret_gives_is_accepted_by_every_replica_at_every_moment_of_a_rotation() {
    const SECRET: &str = "/api/v1/namespaces/red/secrets/pull";
    with_operator(&Cluster::new(), async |cluster| {
        cluster.edit(REGISTRY, |registry| registry["spec"]["replicas"] = json!(2));
        cluster.declare("red", "app", &json!({"pullSecrets": [{"name": "pull"}]}));
        let first = replica_number(cluster, 0, REPLICAS[4]).await;
        cluster.until("the first replica told", || has(&first, "red/app")).await;
        let second = replica_number(cluster, 1, REPLICAS[6]).await;
        let all = [first, second];
        let given = || {
            let config = cluster.api.get(SECRET)?["data"][".dockerconfigjson"].as_str()?.to_owned();
            let config: Value = serde_json::from_slice(&BASE64_STANDARD.decode(config).unwrap()).unwrap();
            let entry = config["auths"].as_object()?.values().next()?.clone();
            Some(entry["password"].as_str()?.to_owned())
        };
        cluster.until_said(&at("red", "app"), "Ready", "Ready").await;
        let mut former = given().unwrap();
        let open_all = |password: &str| all.iter().all(|replica| opens(replica, password));
        assert!(open_all(&former));
        for turn in ["1", "2", "3"] {
            cluster.edit(&at("red", "app"), |repository| {
                repository["metadata"]["annotations"] = json!({"berth.dev/rotate": turn});
            });
            let is_another = || {
                let now = given().unwrap();
                assert!(open_all(&now) && open_all(&former));
                now != former
            };
            cluster.until("another password", is_another).await;
            former = given().unwrap();
        }
        // A leak is ended, and neither what was given nor what was announced is accepted any longer.
        cluster.api.remove(SECRET);
        let opens_none = || !all.iter().any(|replica| opens(replica, &former));
        let took = cluster.until("the leak over", opens_none).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        cluster.until("another password", || given().is_some_and(|now| open_all(&now))).await;
        cluster.until_said(&at("red", "app"), "SecretsReady", "Delivered").await;
    })
    .await;
}

#[tokio::test]
async fn a_replication_gets_a_job_whose_end_is_told_and_then_there_is_peace() {
    const MIRROR: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/replications/mirror";
    const JOBS: &str = "/apis/batch/v1/namespaces/apps/jobs/";
    with_operator(&Cluster::new(), async |cluster| {
        let replication = testing::replication("apps", &json!({"trigger": {"type": "Manual"}}));
        cluster.api.put(MIRROR, json!(replication));
        let access = json!([{"serviceAccount": {"name": "replicator"}, "role": "Reader"}]);
        cluster.declare("apps", "all", &json!({"path": "*", "access": access}));
        cluster.until_said(MIRROR, "Ready", "ServiceAccountNotFound").await;
        let account = json!({"metadata": {"name": "replicator", "namespace": "apps"}});
        cluster.api.put("/api/v1/namespaces/apps/serviceaccounts/replicator", account);
        cluster.edit(MIRROR, |replication| {
            replication["metadata"]["annotations"] = json!({"berth.dev/replicate-now": "1"});
        });
        let job = || cluster.api.paths().into_iter().find(|path| path.starts_with(JOBS));
        cluster.until("a Job", || job().is_some()).await;
        cluster.until_said(MIRROR, "Progressing", "Running").await;
        cluster.edit(&job().unwrap(), |job| {
            let now = k8s_openapi::jiff::Timestamp::now().to_string();
            let complete = json!({"type": "Complete", "status": "True", "lastTransitionTime": now});
            job["status"]["conditions"] = json!([complete]);
        });
        let took = cluster.until_said(MIRROR, "Ready", "Replicated").await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        cluster.until_at_rest().await;
    })
    .await;
}

#[tokio::test]
async fn replicas_that_accept_and_say_nothing_hold_up_no_other_registrys_policy() {
    let cluster = Cluster::new();
    for number in 1..=9 {
        silent_replica(&cluster, &format!("silent-{number}"), &format!("127.82.71.{number}")).await;
    }
    with_operator(&cluster, async |cluster| {
        let deciding = replica(cluster, REPLICAS[5]).await;
        // They are asked again meanwhile.
        for name in ["one", "two", "three"] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.declare("red", name, &json!({}));
            let took = cluster.until("the policy brought", || has(&deciding, &format!("red/{name}"))).await;
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
    })
    .await;
}
