//! The command line and environment, checked before anything is opened: what is in a [`Config`] can be tried.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    kubernetes::{Kubernetes, KubernetesArgs, NoAddress},
    maintenance::{CheckArgs, GcArgs, Schedule, ScheduleArgs},
    replicate::ReplicateArgs,
    storage::Sparse,
};

/// A container registry: stores images and serves them by the OCI Distribution specification.
///
/// `berth-registry serve --root ./data` is a complete registry for this machine. With --listen, --tls-cert and
/// --tls-key others reach it; then a policy (see --policy) says who may do what, or an operator does
/// (see --channel-listen).
#[derive(Debug, Parser)]
#[command(name = "berth-registry", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a root folder until SIGTERM or SIGINT; then finish running transfers and end.
    Serve(Box<ServeArgs>),

    /// Give back the space of what nothing references: blobs that no manifest of their repository needs, content that
    /// no repository has, abandoned uploads. A server does this by itself, see `serve --gc-interval-seconds`; beside
    /// one that is running this asks it. Manifests stay, also without tags.
    ///
    /// Exit code: 0 done, 1 not done.
    #[command(verbatim_doc_comment)]
    Gc(GcArgs),

    /// Verify everything: content against digests, what manifests need, tags, indexes, uploads. Content that does not
    /// match its digest goes to quarantine/, so that the next push brings it back; all else is left as it is without
    /// --repair. Beside a server that is running this asks it.
    ///
    /// Exit code: 0 nothing that was stored is lost, or all was repaired; 3 damage is left; 1 not checked.
    #[command(verbatim_doc_comment)]
    Check(CheckArgs),

    /// Copy from any registry to any other one: by digest, the tag last, only what is not there. Progress is a bar on a
    /// terminal, otherwise JSON on standard output, a line a second at most.
    ///
    /// Exit code: 0 everything is equal; 1 some images failed; 2 the plan, or the command line, is wrong; 3 the source
    /// can't be reached, or lets nobody in; 4 the same of the target, or it is full; 5 deletions were stopped; 6 time was
    /// over; 7 ended by SIGTERM or SIGINT. What was done stays, and the next run goes on from there.
    #[command(verbatim_doc_comment)]
    Replicate(Box<ReplicateArgs>),
}

/// What --help says of --policy.
const POLICY_HELP: &str = "\
A policy in YAML or JSON that says who may do what: nobody else may do anything. Read again within seconds
when it changes; one that can't be used is refused whole, and the former one goes on deciding.

An example, in which the robot `ci` pushes to `team/…`, people with a password read there, and everybody
reads `team/web`:

    logins:
    - username: ci
      secrets: [<SHA-256 of a random secret, hexadecimal>]
    htpasswd: |
      alice:$2y$10$…
    repositories:
    - path: team/*
      access:
      - {user: ci, role: Writer}
      - {user: alice, role: Reader}
    - path: team/web
      visibility: Public
      access:
      - {user: ci, role: Writer}

The README explains every field.";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// `berth-registry serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder in which everything is kept; made where it is missing. One server at a time.
    #[arg(long, env = "BERTH_ROOT", value_name = "DIR")]
    root: PathBuf,

    /// Address of the registry's API. Port 0 takes a free one, which the log names.
    #[arg(long, env = "BERTH_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,

    /// Serving certificate, PEM, with the chain that leads to its issuer. Read again when it changes.
    #[arg(long, env = "BERTH_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of the serving certificate, PEM.
    #[arg(long, env = "BERTH_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Address of /healthz, /readyz and /metrics, over plain HTTP. Without it they are not served.
    #[arg(long, env = "BERTH_HEALTH_LISTEN", value_name = "ADDR")]
    health_listen: Option<SocketAddr>,

    /// A policy in YAML or JSON that says who may do what.
    #[arg(
        long,
        env = "BERTH_POLICY",
        value_name = "FILE",
        conflicts_with_all = ["open", "channel_listen"],
        long_help = POLICY_HELP
    )]
    policy: Option<PathBuf>,

    /// Address of the channel, through which an operator says who may do what: PUT /v1/policy, GET /v1/status. Only
    /// clients with a certificate of --channel-ca are let in. With a channel nobody has access to the registry
    /// before a policy is there; the last one is kept in the root and decides from the next start on.
    #[arg(
        long,
        env = "BERTH_CHANNEL_LISTEN",
        value_name = "ADDR",
        requires_all = ["channel_cert", "channel_key", "channel_ca"]
    )]
    channel_listen: Option<SocketAddr>,

    /// The channel's certificate, PEM.
    #[arg(long, env = "BERTH_CHANNEL_CERT", value_name = "FILE", requires = "channel_listen")]
    channel_cert: Option<PathBuf>,

    /// Private key of the channel's certificate, PEM.
    #[arg(long, env = "BERTH_CHANNEL_KEY", value_name = "FILE", requires = "channel_listen")]
    channel_key: Option<PathBuf>,

    /// Certificates that sign the operator's, PEM.
    #[arg(long, env = "BERTH_CHANNEL_CA", value_name = "FILE", requires = "channel_listen")]
    channel_ca: Option<PathBuf>,

    /// Without a policy or channel, serve anonymously also where others can reach it: everybody may read, overwrite and delete
    /// everything.
    #[arg(long, env = "BERTH_OPEN", conflicts_with = "channel_listen")]
    open: bool,

    #[command(flatten)]
    kubernetes: KubernetesArgs,

    #[command(flatten)]
    schedule: ScheduleArgs,

    /// Largest blob that can be pushed, such as 500Mi or 20Gi. Without it the disk is the limit.
    #[arg(long, env = "BERTH_MAX_BLOB_SIZE", value_name = "BYTES", value_parser = parse_bytes)]
    max_blob_size: Option<u64>,

    /// Room that stays free on the disk, such as 512Mi: pushes are refused before it is used, so that reading,
    /// deleting and whatever else lives on the disk go on. Without it a hundredth of the disk, at most 1Gi.
    #[arg(long, env = "BERTH_DISK_RESERVE", value_name = "BYTES", value_parser = parse_bytes)]
    disk_reserve: Option<u64>,

    /// What may be pushed although some of it is missing. Without it a push is refused that names what is not in its
    /// repository, so that whatever is there can be pulled whole.
    #[arg(long, env = "BERTH_ALLOW_SPARSE", value_enum, value_name = "WHAT", default_value_t)]
    allow_sparse: Sparse,

    /// Bytes of the journal at which changes wait for it to be begun anew: for tests.
    #[arg(long, value_name = "BYTES", hide = true, value_parser = parse_bytes)]
    journal_bytes: Option<u64>,

    /// Connections at once; more clients wait. Where it gets full, connections without a request under way end first.
    #[arg(long, env = "BERTH_MAX_CONNECTIONS", value_name = "N", default_value_t = 4096)]
    max_connections: usize,

    /// Connections from one address at once, so that nobody keeps others out. Where it gets full, those without a request
    /// under way end first, and if there is none, the new one does. Behind a proxy all clients have one address.
    #[arg(long, env = "BERTH_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", default_value_t = 2048)]
    max_connections_per_address: usize,

    /// How long a connection may stand still: for tests.
    #[arg(long, value_name = "N", default_value_t = 60, hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    patience_seconds: u64,

    /// How long new connections are still taken after SIGTERM, in seconds, while /readyz says that it is ending: until
    /// whoever sends clients here has noticed. Where others serve meanwhile, in Kubernetes with several replicas, give 3
    /// or so; with none it would only put off the next start. A second signal ends it.
    #[arg(long, env = "BERTH_DRAIN_DELAY_SECONDS", value_name = "N", default_value_t = 0)]
    drain_delay_seconds: u64,

    /// How long running transfers may take to end after that, in seconds.
    #[arg(long, env = "BERTH_GRACE_SECONDS", value_name = "N", default_value_t = 25)]
    grace_seconds: u64,

    /// How log lines look. What is logged is said by `BERTH_LOG`, for example `info` or `registry=debug`.
    #[arg(long, env = "BERTH_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

/// How to serve, checked.
#[derive(Debug)]
pub struct Config {
    pub(crate) root: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) tls: Option<channel::tls::Files>,
    pub(crate) health: Option<SocketAddr>,
    pub(crate) access: WhoDecides,
    /// Who checks ServiceAccounts' tokens.
    pub(crate) kubernetes: Option<Kubernetes>,
    pub(crate) schedule: Schedule,
    pub(crate) limits: crate::storage::Limits,
    pub(crate) connections: crate::serve::ConnectionLimits,
    pub(crate) drain_delay: Duration,
    pub(crate) grace: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// Who says who may do what.
#[derive(Debug)]
pub(crate) enum WhoDecides {
    /// Nobody: everybody may do everything.
    Nobody,
    /// A file.
    Policy(PathBuf),
    /// An operator.
    Channel(Channel),
}

/// Where the operator reaches this registry.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) listen: SocketAddr,
    pub(crate) tls: channel::tls::Files,
}

/// Why a configuration is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Nobody asked for the whole network to be let in.
    #[error(
        "refusing to serve anonymously on {0}: whoever reaches it could read, overwrite and delete everything. Listen \
         on a loopback address (--listen 127.0.0.1:5000), give a policy that says who may do what (--policy), or say --open if that is what you want"
    )]
    Anonymous(SocketAddr),
    /// Nobody could log in so.
    #[error("--kubernetes is for a registry with a policy (--policy) or an operator (--channel-listen)")]
    KubernetesWithoutPolicy,
    /// Not in a pod.
    #[error(
        "--kubernetes needs to know where the Kubernetes API is: this is no pod, so give --kubernetes-api and \
         --kubernetes-folder"
    )]
    NoKubernetes,
}

impl TryFrom<ServeArgs> for Config {
    type Error = InvalidConfig;

    fn try_from(args: ServeArgs) -> Result<Self, InvalidConfig> {
        let ServeArgs {
            root,
            listen,
            tls_cert,
            tls_key,
            health_listen,
            policy,
            channel_listen,
            channel_cert,
            channel_key,
            channel_ca,
            open,
            kubernetes,
            schedule,
            max_blob_size,
            disk_reserve,
            allow_sparse,
            journal_bytes,
            max_connections,
            max_connections_per_address,
            patience_seconds,
            drain_delay_seconds,
            grace_seconds,
            log_format,
        } = args;
        if policy.is_none() && channel_listen.is_none() && !open && !listen.ip().is_loopback() {
            return Err(InvalidConfig::Anonymous(listen));
        }
        // That these are given together was checked when the command line was parsed.
        let files = |cert: Option<PathBuf>, key: Option<PathBuf>, client_ca| {
            cert.zip(key).map(|(cert, key)| channel::tls::Files { cert, key, client_ca })
        };
        let channel = channel_listen.zip(files(channel_cert, channel_key, channel_ca));
        let access = match (policy, channel) {
            (Some(policy), _) => WhoDecides::Policy(policy),
            (None, Some((listen, tls))) => WhoDecides::Channel(Channel { listen, tls }),
            (None, None) => WhoDecides::Nobody,
        };
        let kubernetes = kubernetes.api().map_err(|NoAddress| InvalidConfig::NoKubernetes)?;
        if kubernetes.is_some() && matches!(access, WhoDecides::Nobody) {
            return Err(InvalidConfig::KubernetesWithoutPolicy);
        }
        Ok(Self {
            root,
            listen,
            tls: files(tls_cert, tls_key, None),
            health: health_listen,
            access,
            kubernetes,
            schedule: schedule.into(),
            limits: crate::storage::Limits {
                reserve: disk_reserve,
                largest_blob: max_blob_size,
                sparse: allow_sparse,
                journal: journal_bytes,
            },
            connections: crate::serve::ConnectionLimits {
                connections: max_connections,
                of_one_address: max_connections_per_address,
                patience: Duration::from_secs(patience_seconds),
            },
            drain_delay: Duration::from_secs(drain_delay_seconds),
            grace: Duration::from_secs(grace_seconds),
            log_format,
        })
    }
}

/// A number of bytes, with or without one of Kubernetes' binary suffixes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    let (digits, shift) = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)]
        .into_iter()
        .find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, shift)))
        .unwrap_or((text, 0));
    let number = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or("give a number of bytes, if you like with one of the suffixes Ki, Mi, Gi, Ti")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn config(arguments: &str) -> Result<Config, String> {
        let line = format!("berth-registry serve --root data {arguments}");
        let command =
            Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?.command;
        let Command::Serve(args) = command else { return Err("not served".to_owned()) };
        Config::try_from(*args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("1000"), Ok(1000));
        assert_eq!(parse_bytes("3Gi"), Ok(3 << 30));
        for text in ["", "Gi", "-1", "+1", "1.5Gi", "1G", "1 Gi", "99999999999Ti"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert!(config("--disk-reserve 5Gi --max-blob-size 20Gi").is_ok());
        assert!(config("--disk-reserve lots").is_err());
    }

    #[test]
    fn anonymous_access_is_for_loopback() {
        assert!(config("").is_ok());
        assert!(config("--listen [::1]:5000").is_ok());
        assert!(config("--listen 0.0.0.0:5000").unwrap_err().contains("say --open"));
        assert!(config("--listen 0.0.0.0:5000 --open").is_ok());
    }

    #[test]
    fn a_channel_is_given_whole() {
        let whole = "--channel-listen 0.0.0.0:8082 --channel-cert c --channel-key k --channel-ca a";
        let config_with_channel = config(&format!("--listen 0.0.0.0:5000 {whole}")).unwrap();
        let WhoDecides::Channel(channel) = config_with_channel.access else { panic!("no channel") };
        assert!(channel.tls.client_ca.is_some(), "the channel is mutual TLS");
        assert!(config("--channel-listen 0.0.0.0:8082 --channel-cert c --channel-key k").is_err());
        assert!(config("--channel-ca a").is_err());
        assert!(config(&format!("--open {whole}")).is_err());
        assert!(config("--tls-cert c").is_err());
        assert!(config(&format!("--policy p {whole}")).is_err());
    }

    #[test]
    fn kubernetes_is_given_with_a_policy_and_an_address() {
        let kubernetes = "--kubernetes --kubernetes-api 10.96.0.1:443";
        assert!(config(&format!("--policy p {kubernetes}")).unwrap().kubernetes.is_some());
        assert!(config("--policy p --kubernetes-api 10.96.0.1:443").unwrap().kubernetes.is_none());
        let of_pod = "--kubernetes --kubernetes-service-host fd00::1 --kubernetes-service-port 443";
        assert!(config(&format!("--policy p {of_pod}")).unwrap().kubernetes.is_some());
        assert!(config(kubernetes).unwrap_err().contains("--policy"));
        assert!(config("--policy p --kubernetes --kubernetes-api nonsense").is_err());
    }

    #[test]
    fn a_policy_file_lets_others_reach_the_registry() {
        let access = config("--listen 0.0.0.0:5000 --policy p.yaml").unwrap().access;
        assert!(matches!(access, WhoDecides::Policy(file) if file.as_os_str() == "p.yaml"));
        assert!(config("--policy p.yaml --open").is_err());
    }
}
