//! What the operator and node access are told when they start. Every option can be given by environment, too.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser};
use tracing_subscriber::EnvFilter;

/// Berth's operator: reconciles Registries, and keeps nodes able to pull from them.
#[derive(Debug, Parser)]
#[command(name = "berth-operator", version, about)]
pub(crate) enum Command {
    /// Reconcile the Registries of the cluster.
    Run(Run),
    /// Keep containerd's configuration on this node; started by the operator's DaemonSet.
    NodeAccess(NodeAccess),
}

/// Options of the operator. Powers over the cluster come from here only, never from a resource of a tenant.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// The operator's own namespace, where its keys and the node access DaemonSet lie.
    #[arg(long, env = "BERTH_NAMESPACE", default_value = "berth-system")]
    pub(crate) namespace: String,
    /// The operator's own pod: its identity in the leader's Lease, which no other operator may share.
    #[arg(long, env = "BERTH_POD")]
    pub(crate) pod: String,
    /// Image of the registries.
    #[arg(long, env = "BERTH_REGISTRY_IMAGE")]
    pub(crate) registry_image: String,
    /// Image of node access: the operator's own.
    #[arg(long, env = "BERTH_OPERATOR_IMAGE")]
    pub(crate) operator_image: String,
    /// DNS suffix of the cluster, a name in every serving certificate.
    #[arg(long, env = "BERTH_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Folder on the nodes that containerd's `config_path` names.
    #[arg(long, env = "BERTH_CERTS_DIR", default_value = "/etc/containerd/certs.d")]
    pub(crate) certs_dir: String,
    /// Namespaces whose Registries nodes may reach and trust, separated by commas; `*` is every namespace.
    #[arg(long, env = "BERTH_NODE_ACCESS_NAMESPACES", default_value = "*", value_delimiter = ',')]
    pub(crate) node_access_namespaces: Vec<String>,
    /// Registries outside of the cluster to which nodes may turn where a Registry names them as a fallback, separated by
    /// commas: `host:port`, or `host` for port 443, and `*.example.com` is everything below. None where left out.
    #[arg(
        long,
        env = "BERTH_FALLBACK_HOSTS",
        default_value = "",
        hide_default_value = true,
        value_delimiter = ','
    )]
    pub(crate) fallback_hosts: Vec<String>,
    /// Labels of the nodes that get node access, as `key=value,…`; all nodes where left out.
    #[arg(long, env = "BERTH_NODE_SELECTOR", value_delimiter = ',', value_parser = label)]
    pub(crate) node_selector: Vec<(String, String)>,
    /// Where the API server asks about new pods, TLS.
    #[arg(long, env = "BERTH_ADMISSION_LISTEN", default_value = "0.0.0.0:8443")]
    pub(crate) admission_listen: SocketAddr,
    /// Where health and metrics are served, plain HTTP.
    #[arg(long, env = "BERTH_HEALTH_LISTEN", default_value = "0.0.0.0:8081")]
    pub(crate) health_listen: SocketAddr,
}

/// Options of node access.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeAccess {
    /// The node's name, as its reports show it.
    #[arg(long, env = "BERTH_NODE")]
    pub(crate) node: String,
    /// The operator's namespace, where the DaemonSet lies.
    #[arg(long, env = "BERTH_NAMESPACE", default_value = "berth-system")]
    pub(crate) namespace: String,
    /// Node access' own pod, to which its tokens are bound; without it there are none.
    #[arg(long, env = "BERTH_POD")]
    pub(crate) pod: Option<String>,
    /// The UID of that pod.
    #[arg(long, env = "BERTH_POD_UID")]
    pub(crate) pod_uid: Option<String>,
    /// The operator's Deployment: once it is deleted, the node's files go as well.
    #[arg(long, env = "BERTH_DEPLOYMENT", default_value = "berth-operator")]
    pub(crate) deployment: String,
    /// The certs folder as mounted into this container.
    #[arg(long, env = "BERTH_CERTS_MOUNT", default_value = "/host/certs.d")]
    pub(crate) certs_mount: PathBuf,
    /// The same folder as containerd sees it on the node, for the paths written into its configuration.
    #[arg(long, env = "BERTH_CERTS_DIR", default_value = "/etc/containerd/certs.d")]
    pub(crate) certs_dir: PathBuf,
    /// Where the operator calls, mutual TLS.
    #[arg(long, env = "BERTH_CHANNEL_LISTEN", default_value = "0.0.0.0:8082")]
    pub(crate) channel_listen: SocketAddr,
    /// Folder with `tls.crt`, `tls.key` and `ca.crt` of the channel.
    #[arg(long, env = "BERTH_CHANNEL_TLS", default_value = "/etc/berth/channel")]
    pub(crate) channel_tls: PathBuf,
    /// Where health is served, plain HTTP.
    #[arg(long, env = "BERTH_HEALTH_LISTEN", default_value = "0.0.0.0:8081")]
    pub(crate) health_listen: SocketAddr,
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("'{text}' is no label: write key=value"))
}

/// `RUST_LOG`, or what people want to see by default.
pub(crate) fn log_filter() -> EnvFilter {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let usual = || EnvFilter::new(format!("info,kube=warn,hyper=warn,{NO_ANSWERS}"));
    if asked.is_empty() {
        return usual();
    }
    EnvFilter::try_new(format!("{asked},{NO_ANSWERS}")).unwrap_or_else(|_| usual())
}

/// At lower levels kube writes answers that it cannot read, and these may be Secrets.
const NO_ANSWERS: &str = "kube_client::client=error";
