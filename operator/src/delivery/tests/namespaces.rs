//! Where copies go, and where they go from.

use super::*;

#[tokio::test]
async fn the_ca_lies_beside_a_copy() {
    let mut world = World::new(&both());
    world.deliver().await;
    assert_eq!(world.api.get(CA).unwrap()["data"]["ca.crt"], world.context.secrets.serving.cert());
    world.api.remove(CA).unwrap();
    world.deliver().await;
    assert!(world.api.get(CA).is_some());
}

#[tokio::test]
async fn a_namespace_that_has_not_agreed_gets_nothing_and_is_told() {
    let mut world = World::new(&json!([{"name": "pull", "namespaces": {"names": ["apps", "shop", "gone"]}}]));
    world.namespace("shop", &json!({"berth.dev/accept-secrets-from": "other"}));
    let delivered = world.deliver().await;
    assert!(world.api.get(OTHER).is_none());
    let status = &delivered.statuses[0];
    assert_eq!(status.namespaces, 1);
    let shop =
        "there is no such namespace, or it has not agreed: label it berth.dev/accept-secrets-from=apps";
    assert_eq!(status.problems["shop"], shop);
    assert_eq!(status.problems["gone"], shop);
}

#[tokio::test]
async fn a_selector_finds_present_and_future_namespaces() {
    let selector = json!({"matchLabels": {"team": "blue"}});
    let mut world = World::new(&json!([{"name": "pull", "namespaces": {"selector": selector}}]));
    world.deliver().await;
    assert!(world.api.get(OTHER).is_some() && world.api.get(OWN).is_none());
    world.namespace("later", &json!({"berth.dev/accept-secrets-from": "apps", "team": "blue"}));
    assert_eq!(world.deliver().await.statuses[0].namespaces, 2);
    assert!(world.api.get("/api/v1/namespaces/later/secrets/pull").is_some());
}

#[tokio::test]
async fn a_namespace_that_withdraws_its_consent_loses_copy_login_and_ca() {
    let mut world = World::new(&both());
    world.deliver().await;
    let password = world.password(OTHER);
    world.namespace("shop", &json!({}));
    world.watch();
    assert!(!world.opens(&password), "its login ends before the copy is gone");
    world.deliver().await;
    assert!(world.api.get(OTHER).is_none() && world.api.get(CA).is_none());
    assert!(world.api.get(OWN).is_some());
}

#[tokio::test]
async fn a_secret_that_is_no_longer_asked_for_goes() {
    let mut world = World::new(&both());
    world.deliver().await;
    world.repository.spec.pull_secrets.clear();
    assert!(world.deliver().await.statuses.is_empty());
    assert!(
        !world.api.paths().iter().any(|path| path.contains("/secrets/") || path.contains("/configmaps/"))
    );
    assert!(world.logins().is_empty());
}

#[tokio::test]
async fn somebody_elses_secret_is_left_alone_and_told() {
    let registrys = json!({"name": "pull", "namespace": "shop", "managedFields": [{"manager": MANAGER, "operation": "Apply"}], "labels": {"berth.dev/registry": "demo"}});
    let half = json!({"name": "pull", "namespace": "shop", "labels": {"berth.dev/repository": "app", "berth.dev/repository-namespace": "apps"}});
    for metadata in [json!({"name": "pull", "namespace": "shop"}), registrys, half] {
        let foreign = json!({"metadata": metadata, "data": {"a": "Yg=="}});
        let mut world = World::new(&both());
        world.api.put(OTHER, foreign.clone());
        let delivered = world.deliver().await;
        assert_eq!(world.api.get(OTHER).unwrap(), foreign);
        let problem = &delivered.statuses[0].problems["shop"];
        assert!(problem.starts_with("Secret pull exists and was not made for this Repository"), "{problem}");
        assert_eq!(delivered.next, Some(Duration::from_secs(60)), "no watch tells when it goes");
        world.withdraw().await;
        assert_eq!(world.api.get(OTHER).unwrap(), foreign);
    }
}

#[tokio::test]
async fn somebody_elses_secret_of_the_same_instant_is_left_alone_and_told() {
    let foreign = json!({"metadata": {"name": "pull", "namespace": "shop"}, "data": {"a": "Yg=="}});
    let mut world = World::new(&both());
    world.api.forestall(OTHER, foreign.clone());
    let delivered = world.deliver().await;
    assert_eq!(world.api.get(OTHER).unwrap(), foreign);
    assert!(delivered.statuses[0].problems["shop"].starts_with("Secret pull exists and was not made"));
    assert_eq!((delivered.statuses[0].namespaces, world.logins().len()), (1, 1));
}

#[tokio::test]
async fn a_secret_that_takes_the_place_of_the_one_that_was_read_is_not_overwritten() {
    let mut world = World::new(&both());
    world.deliver().await;
    let mut read: Secret = serde_json::from_value(world.api.get(OTHER).unwrap()).unwrap();
    let foreign = json!({"metadata": {"name": "pull", "namespace": "shop", "uid": "theirs"}});
    world.api.put(OTHER, foreign.clone());
    read.data = None;
    let desired = Secret { immutable: Some(true), ..read.clone() };
    let applied = world.context.applier.ensure_from(Some(read), desired).await;
    assert!(matches!(applied, Err(apply::Error::Apply { .. })), "{applied:?}");
    assert_eq!(world.api.get(OTHER).unwrap(), foreign);
}

#[tokio::test]
async fn two_repositories_share_the_ca_and_nothing_else() {
    let mut world = World::new(&both());
    world.deliver().await;
    let first = world.repository.clone();
    let mut second = repository(&json!([{"name": "other", "namespaces": {"names": ["shop"]}}]));
    second.metadata.name = Some("app2".into());
    world.repository = second;
    world.deliver().await;
    world.repository = first;
    world.withdraw().await;
    assert!(world.api.get(OTHER).is_none() && world.api.get(CA).is_some());
    assert!(world.api.get("/api/v1/namespaces/shop/secrets/other").is_some());
}

#[tokio::test]
async fn withdrawing_finds_what_no_watch_has_told() {
    let mut world = World::new(&both());
    world.watch();
    world.deliver_blindly().await;
    withdraw(&world.context, &world.repository).await.unwrap();
    assert!(
        !world.api.paths().iter().any(|path| path.contains("/secrets/") || path.contains("/configmaps/"))
    );
    world.api.take_writes();
    withdraw(&world.context, &world.repository).await.unwrap();
    assert!(world.api.take_writes().is_empty());
}
