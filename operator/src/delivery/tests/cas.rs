//! Where the CA lies without a Secret beside it, and that none is left over.

use super::*;

const OWN_CA: &str = "/api/v1/namespaces/apps/configmaps/berth-ca.apps.demo";
const REGISTRY: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/registries/demo";
const REPOSITORY: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/repositories/app";

/// Where there is a CA, when these may do something.
async fn with_ca(access: &Value) -> Vec<String> {
    let mut world = World::new(&json!([]));
    world.repository.spec.access = serde_json::from_value(access.clone()).unwrap();
    world.namespace("not-agreed", &json!({}));
    assert!(world.deliver().await.statuses.is_empty());
    let paths = world.api.paths().into_iter();
    let paths = paths.filter(|path| path.contains("/configmaps/berth-ca.apps.demo"));
    paths.map(|path| path.split('/').nth(4).unwrap().to_owned()).collect()
}

#[rstest::rstest]
#[case::own(json!([{"serviceAccount": {"name": "ci"}, "role": "Writer"}]), &["apps"])]
#[case::agreed(json!([{"serviceAccount": {"name": "ci", "namespace": "shop"}, "role": "Admin"}]), &["shop"])]
#[case::group(json!([{"group": "system:serviceaccounts:shop", "actions": ["content/write"]}]), &["shop"])]
#[case::who_only_pulls(json!([{"serviceAccount": {"name": "ci"}, "role": "Reader"}]), &[])]
#[case::not_agreed(
    json!([{"serviceAccount": {"name": "ci", "namespace": "not-agreed"}, "role": "Writer"}]), &[]
)]
#[case::not_there(json!([{"serviceAccount": {"name": "ci", "namespace": "gone"}, "role": "Writer"}]), &[])]
#[case::people(json!([{"user": "ann", "role": "Writer"}, {"group": "system:serviceaccounts", "role": "Writer"}]), &[])]
#[tokio::test]
async fn it_lies_where_accounts_may_push_from(#[case] access: Value, #[case] expected: &[&str]) {
    assert_eq!(with_ca(&access).await, expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_over_goes_and_what_is_needed_stays() {
    let mut world = World::new(&both());
    let access = json!([{"serviceAccount": {"name": "ci"}, "role": "Writer"}]);
    world.repository.spec.access = serde_json::from_value(access).unwrap();
    world.api.put(REGISTRY, json!(testing::registry("demo")));
    world.api.put(REPOSITORY, json!(world.repository));
    world.restart();
    world.deliver().await;
    // Both are deleted by hand, of a namespace that takes its consent back.
    for secret in [OWN, OTHER] {
        world.api.remove(secret).unwrap();
    }
    world.namespace("shop", &json!({}));
    world.watch();
    let _ = tokio::time::timeout(Duration::from_secs(40), tidy(&world.context)).await;
    assert!(world.api.get(CA).is_none(), "nobody needs it");
    assert!(world.api.get(OWN_CA).is_some(), "jobs push from there");
    world.watch();
    assert!(world.context.watched.concerns(&Change::Within("apps".into()), &world.repository));

    world.api.remove(REGISTRY).unwrap();
    world.restart();
    let _ = tokio::time::timeout(Duration::from_secs(40), tidy(&world.context)).await;
    assert!(world.api.get(OWN_CA).is_none());
}

#[tokio::test(start_paused = true)]
async fn where_all_is_needed_nothing_is_asked() {
    let mut world = World::new(&both());
    world.api.put(REGISTRY, json!(testing::registry("demo")));
    world.api.put(REPOSITORY, json!(world.repository));
    world.restart();
    world.deliver().await;
    world.api.take_reads();
    world.api.take_writes();
    let _ = tokio::time::timeout(Duration::from_secs(120), tidy(&world.context)).await;
    assert_eq!((world.api.take_reads(), world.api.take_writes()), (0, Vec::new()));
    assert!(world.api.get(CA).is_some());
}
