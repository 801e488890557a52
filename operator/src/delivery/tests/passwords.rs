//! What opens a login, and until when.

use super::*;
use crate::desired::policy::DeliveredLogin;

#[tokio::test]
async fn every_copy_has_a_login_of_its_own_and_nothing_is_written_twice() {
    let mut world = World::new(&both());
    let delivered = world.deliver().await;
    assert_eq!(delivered.statuses[0].namespaces, 2);
    assert_eq!(delivered.statuses[0].expires.as_deref(), Some("2026-01-31T00:00:00Z"));
    assert_eq!(delivered.next, Some(Duration::from_hours(720)));
    assert_ne!(world.password(OWN), world.password(OTHER));
    let logins = world.logins().into_iter().map(|delivered| (delivered.login.username, delivered.role));
    let names: Vec<_> = logins.collect();
    let (own, other) = ("pull.apps.app.pull.apps".to_owned(), "pull.apps.app.pull.shop".to_owned());
    assert_eq!(names, [(own, Role::Reader), (other, Role::Reader)]);
    assert!(world.opens(&world.password(OWN)) && world.opens(&world.password(OTHER)));
    world.api.take_writes();
    world.deliver().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn the_keys_are_what_kubelet_and_docker_look_for() {
    let mut world = World::new(&json!([{"name": "pull"}]));
    world.repository.spec.path = Some("team/*".into());
    world.repository.spec.push_secrets = serde_json::from_value(json!([{"name": "push"}])).unwrap();
    world.deliver().await;
    let keys = |path: &str| world.auths(path).as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(OWN),
        ["demo.apps.svc.cluster.local:5000/team", "demo.apps.svc:5000/team", "demo.apps:5000/team"]
    );
    let push = "/api/v1/namespaces/apps/secrets/push";
    assert_eq!(keys(push), ["demo.apps.svc.cluster.local:5000", "demo.apps.svc:5000", "demo.apps:5000"]);
    let entry = &world.auths(push)["demo.apps.svc:5000"];
    let auth = BASE64_STANDARD.encode(format!("push.apps.app.push.apps:{}", world.password(push)));
    assert_eq!(entry["auth"], json!(auth));
    assert_eq!(world.logins()[1].role, Role::Writer);
    assert_eq!(world.api.get(push).unwrap()["type"], "kubernetes.io/dockerconfigjson");
}

#[tokio::test]
async fn a_deleted_copy_comes_back_with_another_password_and_the_former_is_over() {
    let mut world = World::new(&both());
    world.deliver().await;
    let (leaked, other) = (world.password(OWN), world.password(OTHER));
    world.api.remove(OWN).unwrap();
    world.deliver().await;
    assert!(!world.opens(&leaked) && world.opens(&world.password(OWN)) && world.opens(&other));
}

#[tokio::test]
async fn an_edited_copy_gets_another_password() {
    let mut world = World::new(&both());
    world.deliver().await;
    let before = world.password(OWN);
    let mine = BASE64_STANDARD.encode(r#"{"auths":{"x":{"username":"a","password":"","auth":""}}}"#);
    world.edit(OWN, |secret| secret["data"][".dockerconfigjson"] = json!(mine));
    world.watch();
    assert_eq!(world.logins().len(), 1, "it opens nothing before it is repaired");
    world.deliver().await;
    assert_ne!(world.password(OWN), before);
    assert!(!world.opens(&before) && world.opens(&world.password(OWN)));
}

#[tokio::test]
async fn one_made_by_hand_with_our_labels_is_not_believed() {
    let mut world = World::new(&both());
    world.deliver().await;
    // All that ours has, in another namespace.
    let mut copied = world.api.get(OWN).unwrap();
    copied["metadata"]["namespace"] = json!("shop");
    world.api.put(OTHER, copied);
    world.watch();
    assert_eq!(world.logins().len(), 1);
    world.deliver().await;
    assert_ne!(world.password(OWN), world.password(OTHER));
    assert_eq!(world.logins().len(), 2);
}

#[tokio::test]
async fn one_that_was_saved_and_put_back_is_not_believed() {
    let mut world = World::new(&both());
    world.deliver().await;
    let (mut saved, leaked) = (world.api.get(OWN).unwrap(), world.password(OWN));
    world.api.remove(OWN).unwrap();
    world.deliver().await;
    world.api.remove(OWN).unwrap();
    // What is put back is another Secret for the API server.
    saved["metadata"]["uid"] = json!("of-the-one-that-was-put-back");
    world.api.put(OWN, saved);
    world.watch();
    assert!(!world.opens(&leaked) && world.logins().len() == 1);
    world.deliver().await;
    assert!(!world.opens(&leaked) && world.opens(&world.password(OWN)));
}

#[tokio::test]
async fn one_without_a_password_yet_gets_it_and_opens_nothing_before() {
    let mut world = World::new(&both());
    world.api.refuse("berth.dev/seal");
    world.watch();
    let delivered = world.deliver_blindly().await;
    assert_eq!((delivered.statuses[0].namespaces, delivered.statuses[0].problems.len()), (0, 2));
    world.watch();
    assert!(world.logins().is_empty() && world.auths(OWN) == json!({}));
    world.api.refuse("nothing");
    world.restart();
    assert_eq!(world.deliver().await.statuses[0].namespaces, 2);
    assert!(world.opens(&world.password(OWN)));
}

#[tokio::test]
async fn labels_that_somebody_took_away_come_back_with_the_same_password() {
    let mut world = World::new(&both());
    world.deliver().await;
    let before = world.password(OWN);
    world.edit(OWN, |secret| secret["metadata"]["labels"] = json!({}));
    world.deliver().await;
    assert_eq!(world.password(OWN), before);
    assert!(world.opens(&before));
}

#[tokio::test]
async fn a_deleted_copy_ends_the_overlap_as_well() {
    let mut world = World::new(&both());
    world.deliver().await;
    let first = world.password(OWN);
    world.rotate("1");
    world.deliver_and_enforce().await;
    world.api.remove(OWN).unwrap();
    world.deliver().await;
    assert!(!world.opens(&first));
}

#[tokio::test]
async fn what_the_watch_has_not_told_yet_makes_no_second_password() {
    let mut world = World::new(&both());
    world.watch();
    world.deliver_blindly().await;
    let first = world.password(OWN);
    world.deliver_blindly().await;
    assert_eq!(world.password(OWN), first);
}

#[tokio::test]
async fn a_pull_secret_that_becomes_a_push_secret_has_another_login() {
    let mut world = World::new(&both());
    world.deliver().await;
    let before = world.password(OWN);
    world.repository.spec.push_secrets = std::mem::take(&mut world.repository.spec.pull_secrets);
    world.deliver().await;
    assert!(!world.opens(&before) && world.opens(&world.password(OWN)));
    assert!(world.logins().iter().all(|delivered| {
        let DeliveredLogin { login, role, .. } = delivered;
        *role == Role::Writer && login.username.starts_with("push.") && login.role.is_none()
    }));
}

#[tokio::test]
async fn nothing_is_said_before_everything_was_read() {
    let world = World::new(&both());
    let registry = testing::registry("demo");
    let key = world.context.secrets.keys.of(&registry);
    assert!(world.context.watched.logins(&world.repository, &key, world.now).is_none());
    let delivered = deliver(&world.context, &world.repository, &registry, world.now).await;
    assert!(matches!(delivered, Err(Error::NotReady)));
}

#[rstest::rstest]
#[case::seal("berth.dev/seal")]
#[case::applied("berth.dev/applied")]
#[tokio::test(start_paused = true)]
async fn what_something_changes_while_it_is_written_is_told_and_tried_again_later(#[case] stripped: &str) {
    let mut world = World::new(&json!([{"name": "pull"}]));
    world.api.strip(Some(stripped));
    world.deliver().await;
    world.api.take_writes();
    // Its own changes bring the operator back at once.
    for _ in 0..5 {
        let delivered = world.deliver().await;
        let problem = &delivered.statuses[0].problems["apps"];
        assert!(problem.starts_with("something changes Secret pull while it is written"), "{problem}");
        assert_eq!(delivered.next, Some(Duration::from_secs(60)));
    }
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
    world.api.strip(None);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(world.deliver().await.statuses[0].namespaces, 1);
    assert!(world.opens(&world.password(OWN)));
}
