//! What node access writes onto nodes, and what it leaves alone.

use crds::Registry;
use e2e::{
    Result, Space, ensure, image, node, operator, pod,
    registry::{self, Who},
    remote::Remote,
    wait, with_namespace, with_whole_cluster,
};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

const DAEMON_SET: &str = "berth-node-access";
/// What somebody else wrote for containerd.
const FOREIGN: &str = "# by somebody else\nserver = \"https://mirror.example\"\n";

fn hosts_toml(host: &str) -> String {
    format!("{}/{host}/hosts.toml", node::CERTS)
}

/// Which file it is, when it was changed, and what is in it.
async fn fingerprint(space: &Space, node: &str, path: &str) -> Result<String> {
    node::shell(space, node, &format!("stat -c '%i %y %a %U' {path} && cat {path}")).await
}

async fn appears(space: &Space, node: &str, path: &str) -> Result<String> {
    wait::poll(&format!("{path} on {node}"), async || node::read(space, node, path).await).await
}

async fn disappears(space: &Space, node: &str, path: &str) -> Result<()> {
    wait::poll(&format!("{path} to be gone from {node}"), async || {
        ensure!(!node::exists(space, node, path).await?, "it is there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn somebody_elses_hosts_stay_as_they_are() {
    with_namespace("foreign_hosts", async |space| {
        let worker = node::workers(space).await?.remove(0);
        let folder = format!("{}/other-{}.example:5000", node::CERTS, space.namespace);
        let path = format!("{folder}/hosts.toml");
        node::write(space, &worker, &path, FOREIGN).await?;
        let before = fingerprint(space, &worker, &path).await?;
        let kept = async {
            registry::running(space, &registry::small("demo")).await?;
            ensure!(fingerprint(space, &worker, &path).await? == before, "changed while a Registry appeared");
            registry::delete(space, "demo").await?;
            disappears(space, &worker, &hosts_toml(&format!("demo.{}.svc:5000", space.namespace))).await?;
            ensure!(fingerprint(space, &worker, &path).await? == before, "changed while a Registry went");
            Ok(())
        }
        .await;
        node::shell(space, &worker, &format!("rm -r {folder}")).await?;
        kept
    })
    .await;
}

#[tokio::test]
async fn somebody_elses_file_for_our_host_stays_and_is_reported() {
    with_namespace("conflict", async |space| {
        let worker = node::workers(space).await?.remove(0);
        let path = hosts_toml(&format!("demo.{}.svc:5000", space.namespace));
        node::write(space, &worker, &path, FOREIGN).await?;
        let before = fingerprint(space, &worker, &path).await?;

        registry::apply(space, &registry::small("demo")).await?;
        let what = format!("condition NodesReady to be False because of {worker}");
        let conflict = |registry: &Registry| {
            let condition = registry::find(registry, "NodesReady");
            let nodes = registry.status.as_ref().and_then(|status| status.nodes.clone()).unwrap_or_default();
            condition.is_some_and(|it| it.status == "False" && it.message.contains(&worker))
                && nodes.ready + 1 == nodes.total
        };
        let registry = wait::until(&space.api(), "demo", &what, conflict).await?;
        let why = registry::why(&registry, "NodesReady");
        ensure!(why.contains("hosts.toml"), "the message does not say which file: {why}");
        ensure!(
            fingerprint(space, &worker, &path).await? == before,
            "the file was changed while it was in the way"
        );

        // It goes neither with the Registry, nor does the next one take it for its own.
        registry::delete(space, "demo").await?;
        registry::apply(space, &registry::small("demo")).await?;
        wait::until(&space.api(), "demo", &what, conflict).await?;
        ensure!(
            fingerprint(space, &worker, &path).await? == before,
            "the file was changed when the Registry went"
        );

        node::shell(space, &worker, &format!("rm {path}")).await?;
        registry::condition(space, "demo", "NodesReady", "True").await?;
        ensure!(node::read(space, &worker, &path).await? != FOREIGN, "the file is back");
        registry::ready(space, "demo").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_deleted_file_is_written_again() {
    with_namespace("node_file", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let host = registry::endpoint(&registry)?;
        let image = image::build("node file", &[1000])?;
        Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:1").await?;
        let worker = node::workers(space).await?.remove(0);
        let path = hosts_toml(&host);
        let before = node::read(space, &worker, &path).await?;

        node::shell(space, &worker, &format!("rm {path}")).await?;
        assert_eq!(appears(space, &worker, &path).await?, before);
        node::shell(space, &worker, &format!("rm -r {}/{host}", node::CERTS)).await?;
        assert_eq!(appears(space, &worker, &path).await?, before);
        pod::run_on(space, &[worker], &format!("{host}/app:1"), "demo-reader", "node file").await
    })
    .await;
}

#[tokio::test]
async fn an_edited_file_of_ours_is_reverted() {
    with_namespace("node_edit", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let path = hosts_toml(&registry::endpoint(&registry)?);
        let worker = node::workers(space).await?.remove(0);
        let before = node::read(space, &worker, &path).await?;
        // Ours by its first lines, with something wrong at the end.
        node::write(space, &worker, &path, &format!("{before}\n[host.\"https://wrong.example\"]\n")).await?;
        wait::poll("the file to be as before", async || {
            ensure!(node::read(space, &worker, &path).await? == before, "it is not");
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn node_access_can_be_turned_off_and_on() {
    with_namespace("node_access_off", async |space| {
        let spec = json!({"storage": {"volume": {"size": "1Gi"}}, "nodeAccess": {"enabled": false}});
        let (registry, _) = registry::running(space, &registry::with_spec("demo", &spec)).await?;
        let path = hosts_toml(&registry::endpoint(&registry)?);
        let nodes = node::all(space).await?;
        for node in &nodes {
            ensure!(!node::exists(space, node, &path).await?, "{node} was given access");
        }
        registry::change(space, "demo", json!({"nodeAccess": {"enabled": true}})).await?;
        registry::condition(space, "demo", "NodesReady", "True").await?;
        for node in &nodes {
            node::read(space, node, &path).await?;
        }
        registry::change(space, "demo", json!({"nodeAccess": {"enabled": false}})).await?;
        for node in &nodes {
            disappears(space, node, &path).await?;
        }
        registry::ready(space, "demo").await.map(drop)
    })
    .await;
}

/// As in an upgrade: files stay, so that pulls go on.
#[tokio::test]
async fn a_restarted_agent_leaves_files_as_they_are() {
    with_whole_cluster("agents", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let path = hosts_toml(&registry::endpoint(&registry)?);
        let worker = node::workers(space).await?.remove(0);
        let before = fingerprint(space, &worker, &path).await?;

        let pods: Api<Pod> = operator::space(space).api();
        let former = agents(space).await?;
        for pod in &former {
            pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
        }
        for pod in &former {
            wait::gone(&pods, &pod.name_any()).await?;
        }
        all_agents_ready(space, |_| true).await?;
        // And they work: a further Registry arrives on the nodes.
        registry::running(space, &registry::small("next")).await?;
        registry::condition(space, "demo", "NodesReady", "True").await?;
        ensure!(fingerprint(space, &worker, &path).await? == before, "files of nodes were written anew");
        Ok(())
    })
    .await;
}

async fn agents(space: &Space) -> Result<Vec<Pod>> {
    let pods = operator::space(space).api::<Pod>().list(&ListParams::default()).await?;
    let belongs = |pod: &Pod| pod.owner_references().iter().any(|owner| owner.name == DAEMON_SET);
    Ok(pods.items.into_iter().filter(belongs).collect())
}

async fn all_agents_ready(space: &Space, condition: impl Fn(&DaemonSet) -> bool) -> Result<()> {
    let daemon_sets: Api<DaemonSet> = operator::space(space).api();
    wait::until(&daemon_sets, DAEMON_SET, "node access to be back on all nodes", |daemon_set: &DaemonSet| {
        let status = daemon_set.status.clone().unwrap_or_default();
        let all = status.desired_number_scheduled;
        condition(daemon_set) && all > 0 && status.number_ready == all
    })
    .await
    .map(drop)
}

/// The deletion of the `DaemonSet` means that node access is uninstalled, so files may go; they come back with it.
#[tokio::test]
async fn the_daemon_set_comes_back() {
    with_whole_cluster("daemon_set", async |space| {
        let (registry, _) = registry::running(space, &registry::small("demo")).await?;
        let path = hosts_toml(&registry::endpoint(&registry)?);
        let mut before = Vec::new();
        for node in node::all(space).await? {
            before.push((node.clone(), node::read(space, &node, &path).await?));
        }

        let daemon_sets: Api<DaemonSet> = operator::space(space).api();
        let former = daemon_sets.get(DAEMON_SET).await?;
        let agents = agents(space).await?;
        daemon_sets.delete(DAEMON_SET, &DeleteParams::default()).await?;
        for agent in agents {
            wait::gone(&operator::space(space).api::<Pod>(), &agent.name_any()).await?;
        }
        all_agents_ready(space, |daemon_set| daemon_set.uid() != former.uid()).await?;
        for (node, content) in before {
            assert_eq!(appears(space, &node, &path).await?, content);
        }
        registry::running(space, &registry::small("next")).await?;
        registry::condition(space, "demo", "NodesReady", "True").await.map(drop)
    })
    .await;
}
