//! What one Registry alone can get wrong is refused by the API server, with a sentence that says what is wrong.

use crds::Registry;
use e2e::{Result, Space, cluster::MANAGER, registry, with_namespace};
use kube::{
    Api,
    api::{Patch, PatchParams, ValidationDirective},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

/// What the API server says to a manifest, without keeping it.
async fn said(space: &Space, name: &str, spec: &Value) -> String {
    let api: Api<DynamicObject> = space.dynamic(&ApiResource::erase::<Registry>(&()));
    let manifest = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Registry", "metadata": {"name": name}, "spec": spec});
    let parameters = PatchParams {
        dry_run: true,
        force: true,
        field_manager: Some(MANAGER.into()),
        field_validation: Some(ValidationDirective::Strict),
    };
    match api.patch(name, &parameters, &Patch::Apply(manifest)).await {
        Ok(_) => "accepted".into(),
        Err(kube::Error::Api(status)) => status.message,
        Err(error) => format!("no answer: {error}"),
    }
}

/// Tries all cases, then tells all that were answered otherwise.
async fn all_refused(space: &Space, cases: &[(&str, Value, &str)]) {
    let mut wrong = Vec::new();
    for (name, spec, expected) in cases {
        let said = said(space, name, spec).await;
        if !said.contains(expected) {
            wrong.push(format!("{name} {spec}\n  expected: {expected}\n  said: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sized(size: &str) -> Value {
    json!({"storage": {"volume": {"size": size}}})
}

fn with(field: &str, value: Value) -> Value {
    let mut spec = sized("1Gi");
    spec[field] = value;
    spec
}

#[tokio::test]
async fn a_wrong_manifest_is_refused() {
    with_namespace("invalid", async |space| {
        let long = "a".repeat(51);
        let name = "use at most 50 lower-case letters, digits and '-', starting with a letter";
        let size = "size must be a quantity of bytes greater than zero";
        let node_port = "nodePort needs type NodePort or LoadBalancer";
        let replicas = "replicas may be 1, or 0 to stop the registry";
        all_refused(
            space,
            &[
                ("1demo", sized("1Gi"), name),
                ("demo.one", sized("1Gi"), name),
                (&long, sized("1Gi"), name),
                ("demo", sized("0"), size),
                ("demo", sized("-1Gi"), size),
                ("demo", sized("lots"), size),
                ("demo", sized(""), "spec.storage.volume.size"),
                ("demo", json!({}), "spec.storage: Required value"),
                ("demo", json!({"storage": {}}), "spec.storage.volume: Required value"),
                ("demo", with("replicas", json!(2)), replicas),
                ("demo", with("replicas", json!(-1)), "spec.replicas"),
                ("demo", with("service", json!({"nodePort": 30500})), node_port),
                ("demo", with("service", json!({"type": "ClusterIP", "nodePort": 30500})), node_port),
                ("demo", with("service", json!({"port": 70000})), "spec.service.port"),
                (
                    "demo",
                    with("service", json!({"type": "ExternalName"})),
                    "spec.service.type: Unsupported value",
                ),
                ("demo", with("deletionPolicy", json!("Keep")), "spec.deletionPolicy: Unsupported value"),
                ("demo", with("storge", json!({})), "storge"),
            ],
        )
        .await;
        assert_eq!(said(space, &long[..50], &sized("1Gi")).await, "accepted");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_wrong_change_is_refused() {
    with_namespace("invalid_change", async |space| -> Result<()> {
        registry::running(space, &registry::with_spec("demo", &sized("2Gi"))).await?;
        let volume = |volume: Value| json!({"storage": {"volume": volume}});
        let classed = |class: &str| json!({"replicas": 0, "storage": {"volume": {"size": "2Gi", "storageClassName": class}}});
        registry::apply(space, &registry::with_spec("classed", &classed("one"))).await?;
        let class = "storageClassName cannot change once the volume is claimed";
        all_refused(
            space,
            &[
                ("demo", sized("2000Mi"), "size can grow but not shrink"),
                ("demo", volume(json!({"size": "2Gi", "storageClassName": "other"})), class),
                ("classed", classed("other"), class),
                ("classed", sized("2Gi"), class),
                ("demo", json!({"replicas": 3, "storage": {"volume": {"size": "2Gi"}}}), "replicas may be 1"),
            ],
        )
        .await;
        assert_eq!(said(space, "demo", &sized("3Gi")).await, "accepted");

        let more = Patch::Merge(json!({"spec": {"replicas": 2}}));
        let scaled = space.api::<Registry>().patch_scale("demo", &PatchParams::default(), &more).await;
        let refusal = scaled.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refusal.contains("replicas may be 1"), "scaling to 2 was answered: {refusal:?}");
        Ok(())
    })
    .await;
}
