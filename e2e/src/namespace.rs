//! A namespace of its own for each test, gone afterwards; what was in it is kept in a folder when the test failed.
//!
//! With `BERTH_E2E_KEEP` set, the namespace of a failed test stays to be looked at.

use std::{panic::AssertUnwindSafe, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use crds::Registry;
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::{cluster::Space, dump, wait};

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(600);
/// Carried by all namespaces of one test; its value is the name of the first.
const LABEL: &str = "berth.dev/e2e";

/// Held shared by tests that keep to their namespace, alone by those that change what all of them use.
static CLUSTER: RwLock<()> = RwLock::const_new(());

/// Runs a test in a fresh namespace, beside other tests.
///
/// # Panics
///
/// When the test fails, panics or takes too long: with the reason and the folder that tells more.
pub async fn with_namespace(test: &str, body: impl AsyncFnOnce(&Space) -> Result<()>) {
    let _shared = CLUSTER.read().await;
    run(test, body).await;
}

/// Runs a test in a fresh namespace while no other test of this process runs.
///
/// # Panics
///
/// Like [`with_namespace`].
pub async fn with_whole_cluster(test: &str, body: impl AsyncFnOnce(&Space) -> Result<()>) {
    let _alone = CLUSTER.write().await;
    run(test, body).await;
}

/// Runs a test in a fresh namespace: `prepare` beside other tests, then `body` whatever else happens in the cluster, for
/// what takes long and needs no operator. Its namespace goes beside other tests again.
///
/// # Panics
///
/// Like [`with_namespace`].
pub async fn with_patience<T>(
    test: &str,
    prepare: impl AsyncFnOnce(&Space) -> Result<T>,
    body: impl AsyncFnOnce(&Space, T) -> Result<()>,
) {
    let shared = CLUSTER.read().await;
    let space = begin(test).await;
    let outcome = limited(prepare(&space)).await;
    drop(shared);
    let outcome = match outcome {
        Ok(prepared) => limited(body(&space, prepared)).await,
        Err(error) => Err(error),
    };
    let _shared = CLUSTER.read().await;
    end(test, &space, outcome).await;
}

async fn run(test: &str, body: impl AsyncFnOnce(&Space) -> Result<()>) {
    let space = begin(test).await;
    let outcome = limited(body(&space)).await;
    end(test, &space, outcome).await;
}

async fn begin(test: &str) -> Space {
    match create(test).await {
        Ok(space) => space,
        Err(error) => panic!("failed to make a namespace: {error:#}"),
    }
}

/// What it comes to, within its time; a panic is a failure.
async fn limited<T>(part: impl Future<Output = Result<T>>) -> Result<T> {
    let ran = AssertUnwindSafe(tokio::time::timeout(LIMIT, part)).catch_unwind().await;
    match ran {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(anyhow!("the test took longer than {} s", LIMIT.as_secs())),
        Err(panic) => Err(anyhow!("{}", message(panic.as_ref()))),
    }
}

async fn end(test: &str, space: &Space, mut outcome: Result<()>) {
    if outcome.is_ok() {
        // What can't be removed is a failure too, and worth the same look.
        outcome = clean_up(space).await.context("failed to clean up");
    }
    if let Err(reason) = outcome {
        let reason = format!("{reason:#}");
        let told = match dump::all(space, test, &namespaces(space).await.unwrap_or_default(), &reason).await {
            Ok(folder) => format!("operator logs, events and all objects are in {}", folder.display()),
            Err(error) => format!("and nothing more could be found out: {error:#}"),
        };
        if std::env::var_os("BERTH_E2E_KEEP").is_none() {
            drop(clean_up(space).await);
        }
        panic!("{test}: {reason}\n{told}");
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the test panicked").to_owned()
}

async fn create(test: &str) -> Result<Space> {
    let name = format!("e2e-{}-{}", test.replace('_', "-"), random()?);
    let space = Space::named(&name).await?;
    make(&space, &name, &[]).await?;
    accounts(&space).await?;
    Ok(space)
}

impl Space {
    /// One more namespace for the same test, gone with the first.
    pub async fn another(&self) -> Result<Self> {
        let space = self.labelled(&[]).await?;
        accounts(&space).await?;
        Ok(space)
    }

    /// The same with these labels, just created: nothing may be in it yet.
    pub async fn labelled(&self, labels: &[(&str, &str)]) -> Result<Self> {
        let space = self.beside(&format!("{}-{}", self.namespace, random()?));
        make(&space, &self.namespace, labels).await?;
        Ok(space)
    }

    /// Sets labels of the namespace, or with `null` takes them away.
    pub async fn label(&self, labels: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.patch(&self.namespace, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

fn random() -> Result<String> {
    let mut bytes = [0; 3];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random bytes: {error}"))?;
    Ok(hex::encode(bytes))
}

async fn make(space: &Space, first: &str, labels: &[(&str, &str)]) -> Result<()> {
    let labels = labels.iter().copied().chain([(LABEL, first)]);
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(space.namespace.clone()),
            labels: Some(labels.collect()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::all(space.client.clone()).create(&PostParams::default(), &namespace).await?;
    Ok(())
}

/// Pods are refused until the namespace has its ServiceAccount.
async fn accounts(space: &Space) -> Result<()> {
    let accounts = space.api::<k8s_openapi::api::core::v1::ServiceAccount>();
    wait::until(&accounts, "default", "the namespace's ServiceAccount", |_| true).await.map(drop)
}

/// The namespaces of the test that `space` was made for.
async fn namespaces(space: &Space) -> Result<Vec<String>> {
    let labelled = ListParams::default().labels(&format!("{LABEL}={}", space.namespace));
    let all = Api::<Namespace>::all(space.client.clone()).list(&labelled).await?;
    Ok(all.iter().map(ResourceExt::name_any).collect())
}

/// Registries first, so that no finalizer is left that nobody serves; then the namespaces, whatever became of those.
async fn clean_up(space: &Space) -> Result<()> {
    for namespace in namespaces(space).await? {
        let emptied = remove_registries(&space.beside(&namespace)).await;
        let namespaces = Api::<Namespace>::all(space.client.clone());
        namespaces.delete(&namespace, &DeleteParams::background()).await?;
        emptied?;
    }
    Ok(())
}

async fn remove_registries(space: &Space) -> Result<()> {
    let api: Api<Registry> = space.api();
    let registries = api.list(&ListParams::default()).await?;
    for registry in &registries {
        api.delete(&registry.name_any(), &DeleteParams::default()).await?;
    }
    for registry in &registries {
        wait::gone(&api, &registry.name_any()).await?;
    }
    let left = api.list(&ListParams::default()).await?;
    ensure!(left.items.is_empty(), "a Registry appeared in {} while it was cleaned up", space.namespace);
    Ok(())
}
