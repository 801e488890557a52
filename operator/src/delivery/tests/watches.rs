//! What the watches tell, and what they keep.

use futures::StreamExt as _;

use super::*;

#[tokio::test]
async fn only_what_delivery_reads_is_kept() {
    let mut world = World::new(&both());
    world.deliver().await;
    world.api.put(
        "/api/v1/namespaces/shop/secrets/theirs",
        json!({"metadata": {"name": "theirs", "namespace": "shop"}}),
    );
    let account = json!({
        "metadata": {
            "name": "default",
            "namespace": "shop",
            "resourceVersion": "7",
            "labels": {"a": "b"},
            "annotations": {"much": "text", "berth.dev/attached": "apps/app/pull"},
        },
        "imagePullSecrets": [{"name": "pull"}],
        "secrets": [{"name": "token"}],
    });
    world.api.put("/api/v1/namespaces/shop/serviceaccounts/default", account);
    let (watched, changes) = Watched::start(&world.api.client(), world.context.watched.namespaces.clone());
    assert!(!watched.is_ready());
    let (tell, mut told) = futures::channel::mpsc::unbounded();
    let watching = tokio::spawn(changes.map(Ok).forward(tell));
    let ready = async {
        while !watched.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready).await.unwrap();
    watching.abort();
    let copies = watched.copies(&world.repository);
    assert_eq!(copies.len(), 2);
    assert!(copies.iter().all(|secret| secret.metadata.managed_fields.is_none()));
    assert_eq!(watched.config_maps.len(), 2);
    let account = watched.service_accounts.state()[0].clone();
    assert_eq!(
        serde_json::to_value(&*account).unwrap()["metadata"],
        json!({
            "name": "default",
            "namespace": "shop",
            "resourceVersion": "7",
            "labels": {"a": "b"},
            "annotations": {"berth.dev/attached": "apps/app/pull"},
        })
    );
    assert!(account.image_pull_secrets.is_some() && account.secrets.is_none());
    let mut changes = Vec::new();
    while let Ok(change) = told.try_recv() {
        changes.push(change);
    }
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(changes.iter().all(|change| matches!(change, Change::Anything)), "all is looked at anew");
}

#[tokio::test(start_paused = true)]
async fn what_it_may_not_watch_is_told_after_a_while_and_until_it_may() {
    let mut world = World::new(&both());
    world.watch();
    world.api.forbid(Some("/api/v1/serviceaccounts"));
    let (watched, changes) = Watched::start(&world.api.client(), world.context.watched.namespaces.clone());
    let watching = tokio::spawn(changes.for_each(|_| std::future::ready(())));
    let until = async |holds: &dyn Fn() -> bool| {
        while !holds() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let start = tokio::time::Instant::now();
    until(&|| watched.is_blind()).await;
    assert!(start.elapsed() >= Duration::from_secs(30));
    assert_eq!(watched.refused(), ["serviceaccounts"]);
    let key = world.context.secrets.keys.of(&testing::registry("demo"));
    let logins = |repository: &Repository| watched.logins(repository, &key, world.now);
    assert_eq!(logins(&world.repository), Some(Vec::new()));
    world.api.forbid(None);
    until(&|| watched.is_ready()).await;
    assert!(watched.refused().is_empty() && !watched.is_blind());
    watching.abort();
}

#[tokio::test]
async fn a_change_concerns_whom_it_may_matter_to() {
    let mut world = World::new(&both());
    world.deliver().await;
    let mut other = repository(&json!([{"name": "pull"}]));
    other.metadata.namespace = Some("elsewhere".into());
    let watched = &world.context.watched;
    let concerned = |change: &Change| {
        assert!(!watched.concerns(change, &other), "{change:?}");
        watched.concerns(change, &world.repository)
    };
    assert!(concerned(&Change::Within("shop".into())));
    assert!(!concerned(&Change::Within("kube-system".into())));
    assert!(concerned(&Change::Namespace("shop".into())));
    let copy: PartialObjectMeta<Secret> = serde_json::from_value(world.api.get(OTHER).unwrap()).unwrap();
    assert!(concerned(&Change::Copy(copy.into())));
    let mut without = world.repository.clone();
    without.spec.pull_secrets.clear();
    assert!(watched.concerns(&Change::Namespace("shop".into()), &without), "it has a copy");
    let opening = |namespace: &str| watched.may_open(&Change::Namespace(namespace.into()), &world.repository);
    assert!(opening("shop") && !opening("new"));
}
