//! What one Registry, Repository or Replication alone can get wrong is refused by the API server, with a sentence that says what is wrong.

use crds::{Registry, Replication, Repository};
use e2e::{Result, Space, cluster::MANAGER, registry, with_namespace};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams, ValidationDirective},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

/// What the API server says to a manifest, without keeping it.
async fn said<K: Resource<DynamicType = ()>>(space: &Space, name: &str, spec: &Value) -> String {
    applied::<K>(space, name, spec, true).await
}

/// What the API server says to a manifest.
async fn applied<K: Resource<DynamicType = ()>>(
    space: &Space,
    name: &str,
    spec: &Value,
    dry_run: bool,
) -> String {
    let api: Api<DynamicObject> = space.dynamic(&ApiResource::erase::<K>(&()));
    let manifest = json!({"apiVersion": "berth.dev/v1alpha1", "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec});
    let parameters = PatchParams {
        dry_run,
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
async fn all_refused<K: Resource<DynamicType = ()>>(space: &Space, cases: &[(&str, Value, &str)]) {
    let mut wrong = Vec::new();
    for (name, spec, expected) in cases {
        let said = said::<K>(space, name, spec).await;
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
        let on = |names: &[&str]| -> Value {
            names.iter().map(|name| json!({"registryRef": {"name": name}})).collect()
        };
        let mut off_nodes = with("fallbacks", on(&["other"]));
        off_nodes["nodeAccess"] = json!({"enabled": false});
        let outside = |url: &str| json!([{"endpoint": {"url": url}}]);
        let either =
            json!([{"registryRef": {"name": "other"}, "endpoint": {"url": "https://eu.example.com"}}]);
        all_refused::<Registry>(
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
                ("demo", with("fallbacks", on(&["demo"])), "a Registry cannot be its own fallback"),
                ("demo", with("fallbacks", on(&["a", "b", "a"])), "a fallback is named twice"),
                ("demo", with("fallbacks", on(&["a", "b", "c", "d", "e"])), "spec.fallbacks"),
                ("demo", with("fallbacks", either), "a fallback is either a registryRef or an endpoint"),
                ("demo", with("fallbacks", json!([{}])), "a fallback is either a registryRef or an endpoint"),
                (
                    "demo",
                    with("fallbacks", outside("http://eu.example.com")),
                    "spec.fallbacks[0].endpoint.url",
                ),
                (
                    "demo",
                    with("fallbacks", outside("https://eu.example.com/a")),
                    "spec.fallbacks[0].endpoint.url",
                ),
                ("demo", off_nodes, "it is nodes that turn to fallbacks"),
            ],
        )
        .await;
        assert_eq!(said::<Registry>(space, &long[..50], &sized("1Gi")).await, "accepted");
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
        all_refused::<Registry>(
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
        assert_eq!(said::<Registry>(space, "demo", &sized("3Gi")).await, "accepted");

        let more = Patch::Merge(json!({"spec": {"replicas": 2}}));
        let scaled = space.api::<Registry>().patch_scale("demo", &PatchParams::default(), &more).await;
        let refusal = scaled.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refusal.contains("replicas may be 1"), "scaling to 2 was answered: {refusal:?}");
        Ok(())
    })
    .await;
}

/// A Repository in a Registry of the same namespace, with this field besides.
fn repository(field: &str, value: Value) -> Value {
    let mut spec = json!({"registryRef": {"name": "demo"}});
    spec[field] = value;
    spec
}

#[tokio::test]
async fn a_wrong_repository_is_refused() {
    with_namespace("invalid_repository", async |space| {
        let name = "the name is the last part of the path in image references";
        let quota = "quota must be a number of bytes from 1 to 4Ei";
        let access = "give either a role or actions";
        let subject = "give one of user, serviceAccount and group";
        let interval = "rotationInterval must be a duration of at least an hour";
        let path = "path must be names of lower-case letters and digits with single '.', '_' or '-' between, parted by '/'";
        let user = "user must be a name of the password file: ASCII without spaces and ':'";
        let group = "group must be system:serviceaccounts:<namespace>, or system:serviceaccounts for all";
        let secret_name = "the Secret's name must be lower-case letters, digits and '-'";
        let except = "except takes patterns of letters, digits, '_', '.' and '-'";
        let secret = |interval: &str| json!([{"name": "pull", "rotationInterval": interval}]);
        let cases = [
            ("app..one", repository("visibility", json!("Private")), name),
            (&"a".repeat(137), repository("visibility", json!("Private")), name),
            ("app", json!({}), "spec.registryRef: Required value"),
            ("app", repository("registryRef", json!({"name": ""})), "spec.registryRef.name"),
            ("app", repository("path", json!("")), path),
            ("app", repository("path", json!("Team/app")), path),
            ("app", repository("path", json!("team//app")), path),
            ("app", repository("path", json!("/team")), path),
            ("app", repository("path", json!("team/")), path),
            ("app", repository("path", json!("team/*/app")), path),
            ("app", repository("path", json!("*")), path),
            ("app", repository("path", json!("a".repeat(201))), "spec.path"),
            ("app", repository("visibility", json!("Secret")), "spec.visibility: Unsupported value"),
            ("app", repository("access", json!([{"user": "ann"}])), access),
            ("app", repository("access", json!([{"user": "ann", "role": "Reader", "actions": ["content/read"]}])), access),
            ("app", repository("access", json!([{"user": "ann", "role": "Owner"}])), "Unsupported value"),
            ("app", repository("access", json!([{"user": "ann", "actions": ["metadata/write"]}])), "metadata/write sets tags on what may be read"),
            ("app", repository("access", json!([{"user": "ann", "actions": []}])), "actions must name at least one"),
            ("app", repository("access", json!([{"user": "", "role": "Reader"}])), user),
            ("app", repository("access", json!([{"role": "Reader"}])), subject),
            (
                "app",
                repository("access", json!([{"user": "ann", "serviceAccount": {"name": "ci"}, "role": "Reader"}])),
                subject,
            ),
            ("app", repository("access", json!([{"group": "system:masters", "role": "Reader"}])), group),
            ("app", repository("access", json!([{"user": "a:b", "role": "Reader"}])), user),
            ("app", repository("pullSecrets", secret("10m")), interval),
            ("app", repository("pullSecrets", secret("soon")), interval),
            ("app", repository("pullSecrets", secret("99999999999999h")), interval),
            ("app", repository("pullSecrets", json!([{"name": "Pull"}])), secret_name),
            ("app", repository("pullSecrets", json!([{"name": "pull"}, {"name": "pull"}])), "duplicate entries for key"),
            (
                "app",
                json!({"registryRef": {"name": "demo"}, "pullSecrets": [{"name": "a"}], "pushSecrets": [{"name": "a"}]}),
                "a pull Secret and a push Secret have the same name",
            ),
            ("app", repository("tags", json!({"except": ["latest"]})), "set mutability to Immutable"),
            ("app", repository("tags", json!({"mutability": "Immutable", "except": ["a b"]})), except),
            ("app", repository("quota", json!("lots")), quota),
            ("app", repository("quota", json!("0")), quota),
            ("app", repository("quota", json!("-1Gi")), quota),
            ("app", repository("quota", json!("1m")), quota),
            ("app", repository("quota", json!("5Ei")), quota),
            ("app", repository("deletionPolicy", json!("Keep")), "spec.deletionPolicy: Unsupported value"),
            ("app", repository("pulSecrets", json!([])), "pulSecrets"),
        ];
        all_refused::<Repository>(space, &cases).await;
        for (name, spec) in [
            ("app.v2-x", json!({"registryRef": {"name": "demo"}})),
            ("app-one", repository("path", json!("team/app__x/*"))),
            ("app", repository("tags", json!({"mutability": "Immutable", "except": ["latest", "dev-*"]}))),
        ] {
            assert_eq!(said::<Repository>(space, name, &spec).await, "accepted", "{name} {spec}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_repository_stays_where_it_is() {
    with_namespace("invalid_repository_change", async |space| {
        let spec = repository("path", json!("team/app"));
        assert_eq!(applied::<Repository>(space, "app", &spec, false).await, "accepted");
        let unnamed = json!({"registryRef": {"name": "demo"}});
        assert_eq!(applied::<Repository>(space, "unnamed", &unnamed, false).await, "accepted");
        let mut moved = spec.clone();
        moved["registryRef"]["name"] = json!("other");
        let path = "path cannot change: create another Repository";
        let cases = [
            ("app", moved, "registryRef cannot change: create another Repository"),
            ("app", repository("path", json!("team/other")), path),
            ("app", unnamed, path),
            ("unnamed", repository("path", json!("team/app")), path),
        ];
        all_refused::<Repository>(space, &cases).await;
        Ok(())
    })
    .await;
}

/// From the Registry `demo` to a registry elsewhere, with this field besides.
fn replication(field: &str, value: Value) -> Value {
    let mut spec = json!({
        "source": {"registryRef": {"name": "demo"}},
        "targets": [{"name": "there", "endpoint": {"url": "https://there.example"}}],
        "serviceAccountName": "replicator",
    });
    spec[field] = value;
    spec
}

#[tokio::test]
async fn a_wrong_replication_is_refused() {
    with_namespace("invalid_replication", async |space| {
        let (good, either) = (replication("suspend", json!(true)), "give either a registryRef or an endpoint");
        let endpoint = |url: &str| json!({"endpoint": {"url": url}});
        let both = json!({"registryRef": {"name": "demo"}, "endpoint": {"url": "https://a"}});
        let twice = json!([{"name": "a", "registryRef": {"name": "a"}}, {"name": "a", "registryRef": {"name": "b"}}]);
        let many: Vec<_> = (0..11).map(|n| json!({"name": n.to_string(), "registryRef": {"name": "a"}})).collect();
        let here = json!([{"name": "here", "registryRef": {"name": "demo"}}]);
        let mut nobody = good.clone();
        nobody["serviceAccountName"] = Value::Null;
        let scheduled = |deadline: &str| {
            json!({"type": "Schedule", "schedule": {"cron": "0 3 * * *", "startingDeadline": deadline}})
        };
        let cases = [
            ("1st", good.clone(), "use at most 50 lower-case letters, digits and '-', starting with a letter"),
            ("repl", nobody, "serviceAccountName is missing"),
            ("repl", replication("source", json!({})), either),
            ("repl", replication("source", both), either),
            ("repl", replication("source", endpoint("http://a.example")), "spec.source.endpoint.url"),
            ("repl", replication("source", endpoint("https://ann:secret@a.example")), "spec.source.endpoint.url"),
            ("repl", replication("targets", json!([])), "spec.targets"),
            ("repl", replication("targets", json!([{"name": "a"}])), either),
            ("repl", replication("targets", twice), "duplicate entries for key"),
            ("repl", replication("targets", json!(many)), "must have at most 10 items"),
            ("repl", replication("targets", here), "a target is the source"),
            ("repl", replication("trigger", json!({"type": "Schedule"})), "schedule belongs to type Schedule"),
            ("repl", replication("trigger", json!({"schedule": {"cron": "0 3 * * *"}})), "schedule belongs to type Schedule"),
            ("repl", replication("trigger", json!({"type": "Manual", "resyncInterval": "1h"})), "resyncInterval belongs to type OnPush"),
            ("repl", replication("trigger", json!({"resyncInterval": "1m"})), "resyncInterval must be a duration of at least five minutes"),
            ("repl", replication("trigger", scheduled("30s")), "startingDeadline must be a duration from one minute to a day"),
            ("repl", replication("trigger", scheduled("25h")), "startingDeadline must be a duration from one minute to a day"),
            ("repl", replication("filters", json!({"platforms": ["linux"]})), "spec.filters.platforms[0]"),
            ("repl", replication("filters", json!({"repositories": ["Team"]})), "spec.filters.repositories[0]"),
            ("repl", replication("destination", json!({"prefix": "/a"})), "spec.destination.prefix"),
            ("repl", replication("destination", json!({"flatten": 0})), "spec.destination.flatten"),
            ("repl", replication("deletions", json!("Delete")), "spec.deletions: Unsupported value"),
            ("repl", replication("conflicts", json!("Ask")), "spec.conflicts: Unsupported value"),
            ("repl", replication("limits", json!({"concurrency": 65})), "spec.limits.concurrency"),
            ("repl", replication("limits", json!({"bytesPerSecond": "fast"})), "bytesPerSecond must be a quantity of bytes"),
            ("repl", replication("limits", json!({"timeout": "5s"})), "timeout must be a duration of at least a minute"),
            ("repl", replication("filter", json!({})), "filter"),
        ];
        all_refused::<Replication>(space, &cases).await;
        let pulls = json!({"source": endpoint("https://ghcr.io/team"), "targets": [{"name": "a", "endpoint": {"url": "https://[::1]:5000"}}], "trigger": scheduled("10m")});
        for spec in [good, pulls, replication("trigger", json!({"resyncInterval": "30m"}))] {
            assert_eq!(said::<Replication>(space, "repl", &spec).await, "accepted", "{spec}");
        }
        Ok(())
    })
    .await;
}
