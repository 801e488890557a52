//! `make demo`: from a Registry that is applied to pods on every node that run an image pulled from it.
//!
//! Needs a cluster in which the operator is deployed. Can be run again and again; the Registry stays.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use crds::Registry;
use e2e::{
    Context as _, Result, Space,
    cluster::{self, OPERATOR_NAMESPACE},
    ensure, image, node, operator, pod,
    registry::{self, Who},
    remote::Remote,
};
use k8s_openapi::{
    api::apps::v1::Deployment,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, ResourceExt as _};

/// What the pods run.
const IMAGE: &str = "hello:1";
/// Bytes of its layers beside the one with programs.
const LAYERS: [usize; 3] = [8 << 20, 3 << 20, 200_000];

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            eprintln!("{}", next_steps());
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<()> {
    let sample = sample()?;
    let space = Space::named(&sample.namespace().unwrap_or_else(|| "default".into())).await?;
    is_deployed(&space).await?;
    let workers = node::workers(&space).await?;
    ensure!(!workers.is_empty(), "no node of context {} takes pods", space.context);

    let endpoint = bring_up(&space, &sample).await?;
    let pushed = push(&space, &sample.name_any()).await?;
    let reference = format!("{endpoint}/{IMAGE}");
    pull_everywhere(&space, &sample.name_any(), &workers, &reference, pushed).await?;
    println!("\n{}", to_try(&space, &sample.name_any(), &endpoint));
    Ok(())
}

/// The Registry that people start from, too.
fn sample() -> Result<Registry> {
    let path = sample_path();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    serde_yaml::from_str(&text).with_context(|| format!("{} is no Registry", path.display()))
}

fn sample_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manifests/samples/registry.yaml")
}

async fn is_deployed(space: &Space) -> Result<()> {
    let kinds = Api::<CustomResourceDefinition>::all(space.client.clone());
    let kind = kinds.get_opt("registries.berth.dev").await.context("the cluster does not answer")?;
    ensure!(
        kind.is_some(),
        "the cluster of context {} does not know Registries: run `make deploy` first",
        space.context
    );
    let deployments: Api<Deployment> = operator::space(space).api();
    let deployed = deployments.get_opt(operator::DEPLOYMENT).await?;
    ensure!(deployed.is_some(), "no operator runs in {OPERATOR_NAMESPACE}: run `make deploy` first");
    Ok(())
}

async fn bring_up(space: &Space, sample: &Registry) -> Result<String> {
    let name = sample.name_any();
    let there = space.api::<Registry>().get_opt(&name).await?.is_some();
    let what = if there { "is there from an earlier run; applied again" } else { "applied" };
    println!("Registry {name} in namespace {} {what}.", space.namespace);
    let (ready, took) = registry::running(space, sample).await?;
    let endpoint = registry::endpoint(&ready)?;
    let nodes = ready.status.and_then(|status| status.nodes).unwrap_or_default();
    println!(
        "  It is Ready after {:.1} s, at {endpoint}; {} nodes can pull from it.",
        took.as_secs_f64(),
        nodes.summary
    );
    Ok(endpoint)
}

/// Pushes the image from outside the cluster and says when that was done.
async fn push(space: &Space, name: &str) -> Result<Instant> {
    let image = tokio::task::spawn_blocking(|| image::build("hello from Berth", &LAYERS)).await??;
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let megabytes = image.size as f64 / 1e6;
    println!(
        "Made an image of {} layers, {megabytes:.1} MB, from files of this machine.",
        image.layers.len()
    );
    let began = Instant::now();
    let remote = Remote::open(space, name, Who::Admin).await?;
    remote.push(&image, IMAGE).await?;
    println!("  skopeo pushed it as {IMAGE} ({}) in {:.1} s,", image.digest, began.elapsed().as_secs_f64());
    println!(
        "  from outside the cluster through `kubectl port-forward`, as the administrator (Secret {name}-admin)."
    );
    Ok(Instant::now())
}

async fn pull_everywhere(
    space: &Space,
    name: &str,
    workers: &[String],
    reference: &str,
    pushed: Instant,
) -> Result<()> {
    for node in workers {
        pod::remove(space, &pod_name(name, node)).await?;
    }
    let began = Instant::now();
    println!("Started a pod of {reference} on each node that takes pods,");
    println!("  with the imagePullSecret {name}-reader, which may pull and nothing else.");
    for node in workers {
        pod::start(space, &pod_name(name, node), node, reference, Some(&format!("{name}-reader"))).await?;
    }
    let waiting = workers.iter().map(|node| async move {
        let pod = pod_name(name, node);
        pod::running(space, &pod).await?;
        println!("  {node}: runs after {:.1} s", began.elapsed().as_secs_f64());
        pod::expect_seed(space, &pod, "hello from Berth").await
    });
    futures::future::try_join_all(waiting).await?;
    println!("  From the end of the push to all pods running: {:.1} s.", pushed.elapsed().as_secs_f64());
    Ok(())
}

fn pod_name(registry: &str, node: &str) -> String {
    format!("{registry}-hello-{node}")
}

fn to_try(space: &Space, name: &str, endpoint: &str) -> String {
    let (context, namespace) = (&space.context, &space.namespace);
    let kubectl = format!("kubectl --context {context} --namespace {namespace}");
    format!(
        "Try next:
  {kubectl} get registries                    # ready, endpoint, nodes
  {kubectl} describe registry {name}          # what it is doing, and why
  {kubectl} get pods -o wide                  # the pods that run the image
  kubectl --context {context} explain registry.spec

  # Push an image of yours. Any pod may then run {endpoint}/<repository>:<tag>.
  {kubectl} get configmap {name}-ca -o 'jsonpath={{.data.ca\\.crt}}' > ca.crt
  {kubectl} get secret {name}-admin -o 'jsonpath={{.data.password}}' | base64 -d
  {kubectl} port-forward service/{name} 5000 &
  skopeo login --cert-dir . --username admin localhost:5000
  skopeo copy --dest-cert-dir . docker-archive:<file> docker://localhost:5000/<repository>:<tag>

  {kubectl} delete registry {name}            # under deletionPolicy Retain the images stay"
    )
}

fn next_steps() -> String {
    let kubectl = format!("kubectl --context {}", cluster::context());
    format!(
        "What may help:
  {kubectl} -n {OPERATOR_NAMESPACE} get pods
  {kubectl} -n {OPERATOR_NAMESPACE} logs deployment/{}
  {kubectl} describe registry demo
  {kubectl} get events --sort-by .lastTimestamp
  make demo     # can be run again: it takes up what is there",
        operator::DEPLOYMENT
    )
}
