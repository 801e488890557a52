//! What people see with `kubectl get`, and what they begin with.

use std::{fs, path::Path};

use crds::{Registry, Replication, Repository};
use e2e::{
    Context as _, Result, Space, account,
    cluster::MANAGER,
    ensure, image,
    registry::{self, Who},
    remote::Remote,
    replication, repository, wait, with_namespace,
};
use kube::{
    Resource,
    api::{Patch, PatchParams, ValidationDirective},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

/// Every sample is taken, whatever namespace it is applied in.
#[tokio::test]
async fn the_samples_are_taken() {
    with_namespace("samples", async |space| {
        let parameters = PatchParams {
            dry_run: true,
            field_manager: Some(MANAGER.into()),
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::default()
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manifests/samples");
        for sample in fs::read_dir(folder)? {
            let path = sample?.path();
            let mut object: DynamicObject = serde_yaml::from_str(&fs::read_to_string(&path)?)?;
            object.metadata.namespace = Some(space.namespace.clone());
            let types = object.types.clone().context("a sample without a kind")?;
            let resource = match types.kind.as_str() {
                "Registry" => ApiResource::erase::<Registry>(&()),
                "Repository" => ApiResource::erase::<Repository>(&()),
                _ => ApiResource::erase::<Replication>(&()),
            };
            let name = object.metadata.name.clone().context("a sample without a name")?;
            let taken = space.dynamic(&resource).patch(&name, &parameters, &Patch::Apply(&object)).await;
            taken.with_context(|| format!("{} is not taken", path.display()))?;
        }
        Ok(())
    })
    .await;
}

/// The only row that `kubectl get` shows of this kind: what is in each column.
async fn row<K: Resource<DynamicType = ()>>(space: &Space) -> Result<Value> {
    let url = K::url_path(&(), Some(&space.namespace));
    let request = http::Request::get(url)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let table: Value = space.client.request(request).await?;
    let columns = table["columnDefinitions"].as_array().context("no table")?;
    let rows = table["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [row] = rows else { e2e::bail!("not one row: {table}") };
    let cells = row["cells"].as_array().context("no cells")?;
    let named = columns.iter().zip(cells).map(|(column, cell)| {
        let name = column["name"].as_str().unwrap_or_default().to_owned();
        (name, cell.clone())
    });
    Ok(Value::Object(named.collect()))
}

/// `kubectl get` tells of each kind whether it works, where it is and how far along.
#[tokio::test]
async fn columns_tell_what_people_ask() {
    with_namespace("columns", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let endpoint = registry::endpoint(&registry)?;
        account::create(space, "mover").await?;
        let access = json!([{"serviceAccount": {"name": "mover"}, "role": "Reader"}]);
        let spec = json!({"visibility": "Cluster", "access": access});
        repository::ready(space, &repository::with_spec("app", &spec)).await?;
        let image = image::build("columns", &[1000])?;
        let name = format!("{}/app:1", space.namespace);
        Remote::open(space, "demo", Who::Admin).await?.push(&image, &name).await?;
        let pushed = |repository: &Repository| {
            repository.status.as_ref().is_some_and(|status| status.tags == Some(1) && status.size.is_some())
        };
        wait::until(&space.api(), "app", "the push to be told", pushed).await?;
        let spec = json!({
            "source": {"registryRef": {"name": "demo"}},
            "targets": [{"name": "elsewhere", "endpoint": {"url": "https://registry.example"}}],
            "serviceAccountName": "mover",
            "suspend": true,
        });
        replication::apply(space, "mirror", &spec).await?;
        let told = |replication: &Replication| {
            let status = replication.status.as_ref();
            status.is_some_and(|status| status.source.is_some() && status.summary.is_some())
        };
        wait::until(&space.api(), "mirror", "its source to be told", told).await?;

        let shown = row::<Registry>(space).await?;
        assert_eq!(shown["Ready"], "True");
        assert_eq!(shown["Endpoint"], json!(endpoint));
        ensure!(shown["Nodes"].as_str().is_some_and(|nodes| nodes.contains('/')), "Nodes: {shown}");

        let shown = row::<Repository>(space).await?;
        assert_eq!(shown["Reference"], json!(format!("{endpoint}/{}/app", space.namespace)));
        assert_eq!(shown["Visibility"], "Cluster");
        assert_eq!(shown["Tags"], 1);
        assert_eq!(shown["Ready"], "True");
        for column in ["Size", "Last Push", "Age"] {
            let is_told =
                shown[column].as_str().is_some_and(|cell| cell.starts_with(|it: char| it.is_ascii_digit()));
            ensure!(is_told, "{column}: {shown}");
        }

        let shown = row::<Replication>(space).await?;
        ensure!(shown["Source"].as_str().is_some_and(|source| source.contains("demo")), "Source: {shown}");
        for column in ["Targets", "Ready", "Reason"] {
            ensure!(shown[column].is_string(), "{column}: {shown}");
        }
        Ok(())
    })
    .await;
}
