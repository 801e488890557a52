//! Mistakes that only show at run time become a condition that says what to do, and heal when the cause is gone.

use crds::Registry;
use e2e::{
    Context as _, Result, Space, ensure, image,
    owned::{ALL, CLAIM, Owned},
    pod,
    registry::{self, Who},
    remote::Remote,
    wait, with_namespace,
};
use k8s_openapi::{
    api::{core::v1::Pod, storage::v1::StorageClass},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
    core::DynamicObject,
};
use serde_json::{Value, json};

/// Waits until the Registry is not ready and all of `parts` are in the condition's message.
async fn unready_because(space: &Space, name: &str, parts: &[&str]) -> Result<Registry> {
    let what = format!("condition Ready to be False with a message that names {parts:?}");
    wait::until(&space.api(), name, &what, |registry| {
        registry::find(registry, "Ready")
            .is_some_and(|it| it.status == "False" && parts.iter().all(|part| it.message.contains(part)))
    })
    .await
}

/// An object of a user that is in the way of a Registry: the Registry's name, the object's kind, its content.
fn in_the_way() -> [(&'static str, Owned, Value); 3] {
    let [service, _, _, _, admin, ..] = ALL;
    let claim =
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    [
        ("by-service", service, json!({"spec": {"ports": [{"port": 80}], "selector": {"app": "shop"}}})),
        ("by-secret", admin, json!({"stringData": {"password": "users own"}})),
        ("by-claim", CLAIM, claim),
    ]
}

#[tokio::test]
async fn a_users_object_in_the_way_is_left_alone_and_reported() {
    with_namespace("in_the_way", async |space| {
        let mut users = Vec::new();
        for (name, owned, mut content) in in_the_way() {
            content["metadata"] = json!({"name": owned.name(name)});
            let resource = owned.resource();
            content["apiVersion"] = json!(resource.api_version);
            content["kind"] = json!(resource.kind);
            let object: DynamicObject = serde_json::from_value(content)?;
            users.push(space.dynamic(&resource).create(&PostParams::default(), &object).await?);
            registry::apply(space, &registry::small(name)).await?;
        }
        for ((name, owned, _), former) in in_the_way().into_iter().zip(users) {
            let object_name = owned.name(name);
            let api = space.dynamic(&owned.resource());
            unready_because(space, name, &[owned.kind, &object_name]).await?;
            let now = api.get(&object_name).await?;
            ensure!(untouched(&former, &now), "{} {object_name} of the user was changed", owned.kind);

            api.delete(&object_name, &DeleteParams::default()).await?;
            registry::ready(space, name).await?;
        }
        Ok(())
    })
    .await;
}

/// Whether nothing was changed but what Kubernetes itself fills in.
fn untouched(former: &DynamicObject, now: &DynamicObject) -> bool {
    let content =
        |object: &DynamicObject| ["spec", "data", "type"].map(|field| object.data.get(field).cloned());
    former.uid() == now.uid()
        && former.labels() == now.labels()
        && former.owner_references() == now.owner_references()
        && content(former) == content(now)
}

#[tokio::test]
async fn a_missing_storage_class_is_reported_and_heals() {
    with_namespace("storage_class", async |space| {
        let classes: Api<StorageClass> = Api::all(space.client.clone());
        let name = &space.namespace;
        let spec = json!({"storage": {"volume": {"size": "1Gi", "storageClassName": name}}});
        registry::apply(space, &registry::with_spec("demo", &spec)).await?;
        unready_because(space, "demo", &["demo-data", name]).await?;

        let existing = classes.list(&ListParams::default()).await?.items;
        ensure!(!existing.is_empty(), "the cluster has no storage class");
        let mut class = existing[0].clone();
        class.metadata =
            kube::api::ObjectMeta { name: Some(name.clone()), ..kube::api::ObjectMeta::default() };
        classes.create(&PostParams::default(), &class).await?;
        let healed = registry::ready(space, "demo").await;
        classes.delete(name, &DeleteParams::default()).await?;
        healed.map(drop)
    })
    .await;
}

/// The volume of a class without expansion stays as it is: that is said, and the registry goes on, restarts included.
#[tokio::test]
async fn a_volume_that_cannot_grow_goes_on_serving() {
    with_namespace("no_growth", async |space| {
        let classes: Api<StorageClass> = Api::all(space.client.clone());
        let fixed = classes
            .list(&ListParams::default())
            .await?
            .items
            .into_iter()
            .find(|class| class.allow_volume_expansion != Some(true));
        let class = fixed.context("every storage class of the cluster allows expansion")?.name_any();
        let spec = |size: &str| json!({"storage": {"volume": {"size": size, "storageClassName": class}}});
        registry::running(space, &registry::with_spec("demo", &spec("1Gi"))).await?;
        let image = image::build("no growth", &[1000])?;
        Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:1").await?;

        registry::apply(space, &registry::with_spec("demo", &spec("2Gi"))).await?;
        let said = |registry: &Registry| {
            let current = |it: &&Condition| it.observed_generation == registry.metadata.generation;
            let conditions = registry.status.iter().flat_map(|status| &status.conditions).filter(current);
            conditions.into_iter().any(|it| it.message.contains("demo-data"))
        };
        wait::until(&space.api(), "demo", "a condition to say that demo-data does not grow", said).await?;
        let former = pod::serving(space, "demo", None).await?;
        space.api::<Pod>().delete(&former.name_any(), &DeleteParams::default()).await?;
        pod::serving(space, "demo", Some(&former)).await?;
        registry::condition(space, "demo", "Available", "True").await?;
        assert_eq!(Remote::open(space, "demo", Who::Reader).await?.pull("app:1").await?, image.digest);

        // The growth can be taken back.
        registry::running(space, &registry::with_spec("demo", &spec("1Gi"))).await?;
        registry::condition(space, "demo", "StorageReady", "True").await?;

        registry::delete(space, "demo").await?;
        // The former one's pod may still serve, and be taken for the next one's.
        wait::gone(&space.api::<Pod>(), "demo-0").await?;
        // The next one wants more than the kept claim has, and takes it up nevertheless.
        registry::apply(space, &registry::with_spec("demo", &spec("2Gi"))).await?;
        registry::condition(space, "demo", "Available", "True").await?;
        assert_eq!(Remote::open(space, "demo", Who::Reader).await?.pull("app:1").await?, image.digest);
        Ok(())
    })
    .await;
}
