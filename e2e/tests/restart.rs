//! The operator restarts or is away: an unchanged world gets no mutating request, and registries go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::Registry;
use e2e::{
    Result, Space, ensure, image, node, operator,
    owned::{ALL, CLAIM},
    pod,
    registry::{self, Who},
    remote::Remote,
    wait, with_whole_cluster,
};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Pod, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};

const WRITES: &str = "berth_operator_writes_total";
const RECONCILES: &str = "berth_operator_reconciles_total";
/// How long the operator is watched for writes that should not be. Not a wait for anything to happen.
const WATCHED: Duration = Duration::from_secs(30);

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
    see("Status", "storage".into(), status.storage.map(|storage| storage.used_bytes.to_string()));
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

#[tokio::test]
async fn registries_serve_while_the_operator_is_away() {
    with_whole_cluster("operator_away", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let image = image::build("away", &[1000])?;
        Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:1").await?;
        let former = pod::serving(space, "demo", None).await?;

        operator::scale(space, 0).await?;
        let went_on = async {
            // The new pod has nobody to ask: it serves with what it was told before.
            space.api::<Pod>().delete(&former.name_any(), &DeleteParams::default()).await?;
            pod::serving(space, "demo", Some(&former)).await?;
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

#[tokio::test]
async fn a_restarted_operator_changes_nothing() {
    with_whole_cluster("restart", async |space| {
        registry::running(space, &registry::small("demo")).await?;
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

        operator::restart(space).await?;
        wait::poll("the new operator to look at every Registry", async || {
            let reconciled: u64 = operator::counter(space, RECONCILES).await?.values().sum();
            let registries = others.len() as u64 + 1;
            ensure!(reconciled >= registries, "{reconciled} reconciliations of {registries} Registries");
            Ok(())
        })
        .await?;
        tokio::time::sleep(WATCHED).await;

        let after = versions(space).await?;
        ensure!(before == after, "changed by the restart: {:?}", changed(&before, &after));
        let mut writes = operator::counter(space, WRITES).await?;
        if other_registries(space).await? != others {
            // Theirs may have had a reason: a disk that fills, a user.
            writes.remove("{kind=\"Registry/status\"}");
        }
        ensure!(writes.is_empty(), "the new operator sent mutating requests: {writes:?}");
        // Nodes may take a moment to answer; anything else is a failure.
        let mut outcomes = operator::counter(space, RECONCILES).await?;
        outcomes.retain(|labels, _| !labels.contains("\"ok\"") && !labels.contains("\"nodes_pending\""));
        ensure!(outcomes.is_empty(), "reconciliations failed: {outcomes:?}");
        Ok(())
    })
    .await;
}

fn changed(one: &BTreeMap<String, String>, two: &BTreeMap<String, String>) -> Vec<String> {
    let keys: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    let changed = keys.into_iter().filter(|key| one.get(*key) != two.get(*key));
    changed.map(|key| format!("{key}: {:?} became {:?}", one.get(key), two.get(key))).collect()
}
