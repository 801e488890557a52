//! Service accounts use what they should, and keep what is others'.

use super::*;

const ACCOUNT: &str = "/api/v1/namespaces/shop/serviceaccounts/default";

fn world() -> World {
    let namespaces = json!({"names": ["shop"]});
    let accounts = json!({"names": ["default"], "selector": {"matchLabels": {"team": "blue"}}});
    let world = World::new(&json!([{"name": "pull", "namespaces": namespaces, "serviceAccounts": accounts}]));
    world.api.put(ACCOUNT, account("default", &json!({})));
    world
}

fn account(name: &str, labels: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "labels": labels, "resourceVersion": "1"},
        "imagePullSecrets": [{"name": "mine"}],
    })
}

fn used(world: &World) -> Vec<String> {
    let account = world.api.get(ACCOUNT).unwrap();
    let secrets = account["imagePullSecrets"].as_array().unwrap().iter();
    secrets.map(|secret| secret["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_account_uses_the_secret_while_it_should() {
    let mut world = world();
    world.deliver().await;
    assert_eq!(used(&world), ["mine", "pull"]);
    world.api.take_writes();
    world.deliver().await;
    assert!(world.api.take_writes().is_empty());
    world.repository.spec.pull_secrets[0].service_accounts.names.clear();
    world.deliver().await;
    assert_eq!(used(&world), ["mine"]);
    let annotations = &world.api.get(ACCOUNT).unwrap()["metadata"]["annotations"];
    assert!(annotations.get("berth.dev/attached").is_none());
}

#[tokio::test]
async fn accounts_that_come_later_use_it_too() {
    let later = "/api/v1/namespaces/shop/serviceaccounts/later";
    let mut world = world();
    world.deliver().await;
    world.api.put(later, account("later", &json!({"team": "blue"})));
    world.api.put(&later.replace("later", "red"), account("red", &json!({"team": "red"})));
    world.api.take_writes();
    world.deliver().await;
    assert_eq!(world.api.take_writes(), [format!("PATCH {later}")]);
}

#[tokio::test]
async fn an_entry_that_was_there_before_is_not_ours_to_remove() {
    let mut world = world();
    world.edit(ACCOUNT, |account| account["imagePullSecrets"] = json!([{"name": "pull"}]));
    world.deliver().await;
    world.withdraw().await;
    assert_eq!(used(&world), ["pull"]);
}

#[tokio::test]
async fn a_write_of_somebody_else_at_the_same_time_is_not_lost() {
    let mut world = world();
    world.watch();
    world.edit(ACCOUNT, |account| {
        account["imagePullSecrets"] = json!([{"name": "mine"}, {"name": "new"}]);
        account["metadata"]["resourceVersion"] = json!("2");
    });
    let delivered = world.deliver_blindly().await;
    assert!(delivered.failed.is_none());
    assert_eq!(used(&world), ["mine", "new", "pull"]);
}

#[tokio::test]
async fn what_goes_is_detached() {
    for withdrawn in [false, true] {
        let mut world = world();
        world.deliver().await;
        if withdrawn {
            world.withdraw().await;
        } else {
            world.repository.spec.pull_secrets.clear();
            world.deliver().await;
        }
        assert_eq!(used(&world), ["mine"]);
        assert!(world.api.get(OTHER).is_none());
    }
}

#[tokio::test]
async fn a_deleted_copy_does_not_keep_its_entry_from_being_removed() {
    let mut world = world();
    world.deliver().await;
    world.api.remove(OTHER).unwrap();
    world.withdraw().await;
    assert_eq!(used(&world), ["mine"]);
}

#[tokio::test]
async fn an_entry_stays_while_its_copy_cannot_be_mended() {
    let mut world = world();
    world.deliver().await;
    world.api.remove(OTHER).unwrap();
    world.api.refuse("dockerconfigjson");
    world.watch();
    let delivered = world.deliver_blindly().await;
    assert!(delivered.statuses[0].problems["shop"].contains("failed to apply Secret pull"));
    assert_eq!(used(&world), ["mine", "pull"]);
}

#[tokio::test]
async fn a_selector_that_can_not_be_read_is_told() {
    let selector = json!({"matchExpressions": [{"key": "team", "operator": "Like"}]});
    for (field, name) in [("namespaces", "namespaces"), ("serviceAccounts", "service accounts")] {
        let mut secret = json!({"name": "pull", "namespaces": {"names": ["apps"]}});
        secret[field]["selector"] = selector.clone();
        let mut world = World::new(&json!([secret]));
        let problems = world.deliver().await.statuses.remove(0).problems;
        let told = format!("the selector of {name} cannot be read, use In,");
        assert!(problems["apps"].starts_with(&told), "{problems:?}");
    }
}

/// Somebody took the finalizer away, so that nobody was asked to take anything back.
#[tokio::test(start_paused = true)]
async fn what_a_repository_left_that_went_by_force_is_found() {
    const REPOSITORY: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/repositories/app";
    let mut world = world();
    world.api.put(REPOSITORY, json!(world.repository));
    world.restart();
    world.deliver().await;
    let tidied = async |world: &mut World| {
        world.restart();
        let _ = tokio::time::timeout(Duration::from_secs(40), tidy(&world.context)).await;
        world.watch();
    };
    tidied(&mut world).await;
    assert!(world.api.get(OTHER).is_some());
    assert_eq!(used(&world), ["mine", "pull"]);
    world.api.remove(REPOSITORY);
    tidied(&mut world).await;
    assert!(world.api.get(OTHER).is_none());
    assert_eq!(used(&world), ["mine"]);
    // The CA follows once the watches have told that no copy is there.
    tidied(&mut world).await;
    assert!(world.api.get(CA).is_none());
    world.api.take_writes();
    tidied(&mut world).await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}
