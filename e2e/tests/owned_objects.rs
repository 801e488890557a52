//! What belongs to a Registry stays as it should be: deleted objects come back, edited ones are reverted, and what
//! others added to them stays.

use std::collections::BTreeMap;

use crds::Registry;
use e2e::{
    Context as _, Result, Space, ensure, image, node,
    owned::{ALL, CLAIM, Owned},
    pod,
    registry::{self, Who},
    remote::Remote,
    wait, with_namespace,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::{Value, json};

/// A Registry `demo` with an image, and its digest.
async fn filled(space: &Space) -> Result<(Registry, String)> {
    let (registry, _) = registry::running(space, &registry::small("demo")).await?;
    let image = image::build("owned", &[1000])?;
    Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:1").await?;
    Ok((registry, image.digest))
}

/// Fails unless images can still be pulled from outside and by a pod.
async fn serves(space: &Space, registry: &Registry, digest: &str) -> Result<()> {
    registry::ready(space, "demo").await?;
    pod::serving(space, "demo", None).await?;
    let pulled = Remote::open(space, "demo", Who::Reader).await?.pull("app:1").await?;
    ensure!(pulled == digest, "app:1 is {pulled}");
    let worker = node::workers(space).await?.remove(0);
    pod::run_on(space, &[worker], &format!("{}/app:1", registry::endpoint(registry)?), "demo-reader", "owned")
        .await
}

async fn get(space: &Space, owned: &Owned) -> Result<DynamicObject> {
    let name = owned.name("demo");
    let found = space.dynamic(&owned.resource()).get(&name).await;
    found.with_context(|| format!("failed to get {} {name}", owned.kind))
}

#[tokio::test]
async fn a_deleted_object_comes_back() {
    with_namespace("comes_back", async |space| {
        let (registry, digest) = filled(space).await?;
        for owned in &ALL {
            let former = get(space, owned).await?;
            let api = space.dynamic(&owned.resource());
            api.delete(&former.name_any(), &DeleteParams::default()).await?;
            let what = format!("{} {} to come back after it was deleted", owned.kind, former.name_any());
            let back = wait::until(&api, &former.name_any(), &what, |object| {
                object.uid() != former.uid() && object.metadata.deletion_timestamp.is_none()
            })
            .await?;
            ensure!(back.labels() == former.labels(), "{what}: with labels {:?}", back.labels());
            match (owned.kind, former.name_any().as_str()) {
                ("Service", _) => {
                    assert_eq!(back.data["spec"]["clusterIP"], former.data["spec"]["clusterIP"]);
                }
                ("Secret", "demo-admin" | "demo-reader") => same_logins(&former, &back),
                ("ConfigMap", _) => assert_eq!(back.data["data"], former.data["data"]),
                _ => {}
            }
        }
        serves(space, &registry, &digest).await
    })
    .await;
}

/// Compares without ever showing them.
fn same_logins(former: &DynamicObject, back: &DynamicObject) {
    assert!(back.data["data"] == former.data["data"], "{} came back with another login", back.name_any());
    assert_eq!(back.data["type"], former.data["type"]);
}

/// The claim is in use, so Kubernetes only marks it; and it must never be replaced by an empty one meanwhile.
#[tokio::test]
async fn a_deleted_claim_goes_on_serving_and_says_so() {
    with_namespace("claim", async |space| {
        let (registry, digest) = filled(space).await?;
        let claims = space.dynamic(&CLAIM.resource());
        let former = get(space, &CLAIM).await?;
        claims.delete(&former.name_any(), &DeleteParams::default()).await?;
        let marked = wait::until(&claims, &former.name_any(), "the claim to be marked", |claim| {
            claim.metadata.deletion_timestamp.is_some()
        })
        .await?;
        assert_eq!(marked.uid(), former.uid());
        let what = "a condition to say that the claim is about to go";
        wait::until(&space.api(), "demo", what, |registry: &Registry| {
            let conditions = registry.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.message.contains("demo-data"))
        })
        .await?;
        let pulled = Remote::open(space, "demo", Who::Reader).await?.pull("app:1").await?;
        assert_eq!(pulled, digest, "images of {} while its claim is marked", registry.name_any());
        Ok(())
    })
    .await;
}

/// Edits that a person or another controller might make: the object, a patch, and what must be as before.
fn edits() -> Vec<(Owned, Value, &'static str)> {
    let [service, stateful_set, tls, _, admin, reader, ca, account] = ALL;
    vec![
        (
            service,
            json!({"spec": {"ports": [{"name": "https", "port": 6000, "targetPort": 1}]}}),
            "/spec/ports",
        ),
        (service, json!({"spec": {"selector": {"app.kubernetes.io/instance": "other"}}}), "/spec/selector"),
        (stateful_set, json!({"spec": {"replicas": 0}}), "/spec/replicas"),
        (stateful_set, image_patch(), "/spec/template/spec/containers/0/image"),
        (tls, json!({"data": {"tls.crt": "Z2FyYmFnZQ=="}}), "/data/tls.crt"),
        (admin, json!({"data": {"password": "Z3Vlc3NlZA=="}}), "/data/password"),
        (reader, json!({"data": {"username": null}}), "/data/username"),
        (ca, json!({"data": {"ca.crt": "garbage"}}), "/data/ca.crt"),
        (account, json!({"automountServiceAccountToken": true}), "/automountServiceAccountToken"),
        (account, json!({"metadata": {"labels": {"berth.dev/registry": "other"}}}), "/metadata/labels"),
    ]
}

fn image_patch() -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "registry", "image": "registry.invalid/other:1"}]}}}})
}

#[tokio::test]
async fn an_edited_object_is_reverted() {
    with_namespace("reverted", async |space| {
        let (registry, digest) = filled(space).await?;
        for (owned, patch, field) in edits() {
            let former = serde_json::to_value(get(space, &owned).await?)?;
            let api = space.dynamic(&owned.resource());
            // A strategic merge finds the container by its name.
            let patch =
                if owned.kind == "StatefulSet" { Patch::Strategic(&patch) } else { Patch::Merge(&patch) };
            let edited = api.patch(&owned.name("demo"), &PatchParams::default(), &patch).await?;
            let edited = serde_json::to_value(edited)?;
            ensure!(edited.pointer(field) != former.pointer(field), "{} {field} was not edited", owned.kind);
            // A certificate that was overwritten is known to nobody: another one takes its place.
            let renewed = field == "/data/tls.crt";
            let what = format!("{field} of {} to be as it should", owned.kind);
            wait::until(&api, &owned.name("demo"), &what, |object| {
                let Ok(now) = serde_json::to_value(object) else { return false };
                let (now, former, edited) =
                    (now.pointer(field), former.pointer(field), edited.pointer(field));
                if renewed { now != edited } else { now == former }
            })
            .await?;
        }
        serves(space, &registry, &digest).await
    })
    .await;
}

#[tokio::test]
async fn what_others_added_stays() {
    with_namespace("foreign", async |space| {
        registry::running(space, &registry::small("demo")).await?;
        let mark: BTreeMap<&str, &str> = [("example.com/team", "harbour")].into();
        let everything: Vec<Owned> = ALL.into_iter().chain([CLAIM]).collect();
        for owned in &everything {
            let patch = json!({"metadata": {"labels": mark, "annotations": mark}});
            let api = space.dynamic(&owned.resource());
            api.patch(&owned.name("demo"), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        // A change that the operator has to carry into the objects, so that it does write them.
        let spec = json!({"service": {"annotations": {"example.com/ours": "1"}}, "podAnnotations": {"example.com/ours": "1"}});
        registry::change(space, "demo", spec).await?;
        let service = space.dynamic(&ALL[0].resource());
        wait::until(&service, "demo", "the annotation to be carried to the Service", |service| {
            service.annotations().contains_key("example.com/ours")
        })
        .await?;
        registry::ready(space, "demo").await?;
        for owned in &everything {
            let object = get(space, owned).await?;
            for map in [object.labels(), object.annotations()] {
                let kept = map.get("example.com/team").is_some_and(|value| value == "harbour");
                ensure!(kept, "{} {} has lost what a user added: {map:?}", owned.kind, object.name_any());
            }
        }
        Ok(())
    })
    .await;
}
