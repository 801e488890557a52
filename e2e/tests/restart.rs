//! The operator restarts or is away: an unchanged world gets no mutating request, and registries go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{Registry, Repository};
use e2e::{
    Result, Space, account, ensure,
    image::{self, Image},
    node, operator,
    owned::{ALL, CLAIM},
    pod,
    registry::{self, Login, Who},
    remote::Remote,
    repository, wait, with_whole_cluster,
};
use http::{Method, StatusCode};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Pod, Secret, ServiceAccount},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

const WRITES: &str = "berth_operator_writes_total";
const RECONCILES: &str = "berth_operator_reconciles_total";
/// How long the operator is watched for writes that should not be. Not a wait for anything to happen.
const WATCHED: Duration = Duration::from_secs(30);
/// How full the volume is.
const DISK: &str = "Status storage";

/// The resource version of everything that the operator might write.
async fn versions(space: &Space) -> Result<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    let mut see = |kind: &str, name: String, version: Option<String>| {
        versions.insert(format!("{kind} {name}"), version.unwrap_or_default());
    };
    for owned in ALL.iter().chain([&CLAIM]) {
        let object = space.dynamic(&owned.resource()).get(&owned.name("demo")).await?;
        see(owned.kind, object.name_any(), object.resource_version());
    }
    let registry = space.api::<Registry>().get("demo").await?;
    see("Registry", registry.name_any(), registry.resource_version());
    // What its status is made of, to tell what changed in it.
    let status = registry.status.unwrap_or_default();
    for condition in &status.conditions {
        let since = format!("{} since {}", condition.status, condition.last_transition_time.0);
        see("Condition", condition.type_.clone(), Some(since));
    }
    see("Status", "nodes".into(), status.nodes.map(|nodes| nodes.summary));
    // That is `DISK`.
    see("Status", "storage".into(), status.storage.map(|storage| storage.used_bytes.to_string()));
    for repository in space.api::<Repository>().list(&ListParams::default()).await? {
        see("Repository", repository.name_any(), repository.resource_version());
    }
    for secret in space.api::<Secret>().list(&ListParams::default()).await? {
        see("Secret", secret.name_any(), secret.resource_version());
    }
    for account in space.api::<ServiceAccount>().list(&ListParams::default()).await? {
        see("ServiceAccount", account.name_any(), account.resource_version());
    }
    for pod in space.api::<Pod>().list(&ListParams::default()).await? {
        see("Pod", pod.name_any(), pod.resource_version());
    }
    let own = operator::space(space);
    for secret in own.api::<Secret>().list(&ListParams::default()).await? {
        see("Secret of the operator", secret.name_any(), secret.resource_version());
    }
    for daemon_set in own.api::<DaemonSet>().list(&ListParams::default()).await? {
        see("DaemonSet", daemon_set.name_any(), daemon_set.resource_version());
    }
    Ok(versions)
}

/// Fails where the registry decides otherwise than the Repository `app` says, of a pull Secret, a `ServiceAccount` that
/// pushes, and of nobody.
async fn decides(space: &Space, registry: &Registry, pull: &Login, image: &Image) -> Result<()> {
    let own = format!("{}/app", space.namespace);
    let reader = Remote::with_login(space, registry, Some(pull)).await?;
    let nobody = Remote::with_login(space, registry, None).await?;
    let tags = |path: &str| format!("/v2/{path}/tags/list");
    for (who, remote, path, wanted) in [
        ("the pull Secret", &reader, own.as_str(), StatusCode::OK),
        ("the pull Secret", &reader, "other/app", StatusCode::FORBIDDEN),
        ("nobody", &nobody, own.as_str(), StatusCode::UNAUTHORIZED),
    ] {
        let status = remote.http().send(Method::GET, &tags(path), "").await?.status;
        assert_eq!(status, wanted, "{who} at {path}");
    }
    let upload = format!("/v2/{own}/blobs/uploads/");
    let status = reader.http().send(Method::POST, &upload, "").await?.status;
    assert_eq!(status, StatusCode::FORBIDDEN, "the pull Secret pushes");
    let token = account::token(space, "ci", &account::audience(space, "demo")).await?;
    Remote::with_login(space, registry, Some(&token)).await?.push(image, &format!("{own}:2")).await
}

#[tokio::test]
async fn registries_serve_while_the_operator_is_away() {
    with_whole_cluster("operator_away", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        account::create(space, "ci").await?;
        let spec = json!({
            "pullSecrets": [{"name": "pull"}],
            "access": [{"serviceAccount": {"name": "ci"}, "role": "Writer"}],
        });
        repository::ready(space, &repository::with_spec("app", &spec)).await?;
        let pull = repository::login(space, "pull").await?;
        let image = image::build("away", &[1000])?;
        let admin = Remote::open(space, "demo", Who::Admin).await?;
        admin.push(&image, "app:1").await?;
        admin.push(&image, &format!("{}/app:1", space.namespace)).await?;
        let former = pod::serving(space, "demo", None).await?;

        operator::scale(space, 0).await?;
        let went_on = async {
            decides(space, &registry, &pull, &image).await?;
            // The new pod has nobody to ask: it serves with what it was told before.
            space.api::<Pod>().delete(&former.name_any(), &DeleteParams::default()).await?;
            pod::serving(space, "demo", Some(&former)).await?;
            decides(space, &registry, &pull, &image).await?;
            Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:2").await?;
            let nobody = Remote::open(space, "demo", Who::Nobody).await?;
            ensure!(nobody.pull("app:1").await.is_err(), "anonymous may pull while the operator is away");
            let workers = node::workers(space).await?;
            let reference = format!("{}/app:2", registry::endpoint(&registry)?);
            pod::run_on(space, &workers, &reference, "demo-reader", "away").await
        }
        .await;
        operator::scale(space, 1).await?;
        went_on?;
        registry::ready(space, "demo").await.map(drop)
    })
    .await;
}

/// The resource versions of the cluster's Registries that are not the test's.
async fn other_registries(space: &Space) -> Result<BTreeMap<Option<String>, Option<String>>> {
    let all = Api::<Registry>::all(space.client.clone()).list(&ListParams::default()).await?;
    let others = all.into_iter().filter(|registry| registry.namespace().as_ref() != Some(&space.namespace));
    Ok(others.map(|registry| (registry.uid(), registry.resource_version())).collect())
}

/// A restarted operator looks at every Registry and Repository, and sends no mutating request for any.
async fn restarts_and_writes_nothing(space: &Space) -> Result<()> {
    // Ready comes before the last figures of the status: the world is at rest once nothing changes any more.
    let before = wait::poll("the cluster to come to rest", async || {
        let one = versions(space).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let two = versions(space).await?;
        ensure!(one == two, "changed within 10 s: {:?}", changed(&one, &two));
        Ok(two)
    })
    .await?;
    let others = other_registries(space).await?;
    let repositories = Api::<Repository>::all(space.client.clone()).list(&ListParams::default()).await?;

    operator::restart(space).await?;
    for (kind, there) in [("Registry", others.len() + 1), ("Repository", repositories.items.len())] {
        wait::poll(&format!("the new operator to look at every {kind}"), async || {
            let mut reconciled = operator::counter(space, RECONCILES).await?;
            reconciled.retain(|labels, _| labels.contains(&format!("\"{kind}\"")));
            let reconciled: u64 = reconciled.values().sum();
            ensure!(reconciled >= there as u64, "{reconciled} reconciliations, of {there} objects");
            Ok(())
        })
        .await?;
    }
    tokio::time::sleep(WATCHED).await;

    let (mut before, mut after) = (before, versions(space).await?);
    let mut writes = operator::counter(space, WRITES).await?;
    // A disk of the node's own, which others fill and empty: that is worth a write of the status.
    let disk_changed = before.get(DISK) != after.get(DISK);
    if disk_changed {
        for versions in [&mut before, &mut after] {
            versions.retain(|key, _| key != DISK && key != "Registry demo");
        }
    }
    ensure!(before == after, "changed by the restart: {:?}", changed(&before, &after));
    // Others' Registries may have had such a reason, too.
    if disk_changed || other_registries(space).await? != others {
        writes.remove("{kind=\"Registry/status\"}");
    }
    ensure!(writes.is_empty(), "the new operator sent mutating requests: {writes:?}");
    Ok(())
}

#[tokio::test]
async fn a_restarted_operator_changes_nothing() {
    with_whole_cluster("restart", async |space| {
        registry::running(space, &registry::small("demo")).await?;
        restarts_and_writes_nothing(space).await?;
        // Nodes may take a moment to answer; anything else is a failure.
        let mut outcomes = operator::counter(space, RECONCILES).await?;
        outcomes.retain(|labels, _| !labels.contains("\"ok\"") && !labels.contains("\"nodes_pending\""));
        ensure!(outcomes.is_empty(), "reconciliations failed: {outcomes:?}");
        Ok(())
    })
    .await;
}

/// Two hundred Repositories, a quarter of them with a Secret that is attached.
#[tokio::test]
async fn a_restarted_operator_writes_nothing_for_many_repositories() {
    const MANY: usize = 200;
    with_whole_cluster("many", async |space| {
        registry::running(space, &registry::small("demo")).await?;
        for number in 0..MANY {
            let secret = json!({"name": format!("pull-{number}"), "serviceAccounts": {"names": ["default"]}});
            let secrets = if number % 4 == 0 { vec![secret] } else { Vec::new() };
            let spec = json!({"visibility": "Public", "pullSecrets": secrets});
            repository::apply(space, &repository::with_spec(&format!("app-{number}"), &spec)).await?;
        }
        for number in 0..MANY {
            let known = |repository: &Repository| {
                let ready = repository::find(repository, "Ready").is_some_and(|it| it.status == "True");
                ready && repository.status.as_ref().is_some_and(|status| status.tags.is_some())
            };
            let what = "it to be ready, and what it holds to be known";
            wait::until(&space.api(), &format!("app-{number}"), what, known).await?;
        }
        let account: ServiceAccount = space.api().get("default").await?;
        assert_eq!(repository::names(&account).count(), MANY / 4);
        restarts_and_writes_nothing(space).await
    })
    .await;
}

fn changed(one: &BTreeMap<String, String>, two: &BTreeMap<String, String>) -> Vec<String> {
    let keys: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    let changed = keys.into_iter().filter(|key| one.get(*key) != two.get(*key));
    changed.map(|key| format!("{key}: {:?} became {:?}", one.get(key), two.get(key))).collect()
}
