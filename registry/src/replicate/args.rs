//! The command line of `berth-registry replicate`: options by hand make the same plan that a file holds.

use std::{net::SocketAddr, path::PathBuf};

use channel::replication::{
    Conflicts, Credentials, Deletions, Destination, End, Filters, Follow, Limits, Plan,
};
use clap::{Args, ValueEnum};

use super::plan::InvalidPlan;
use crate::config::{LogFormat, parse_bytes};

/// `berth-registry replicate`.
#[derive(Debug, Args)]
pub struct ReplicateArgs {
    /// Where images come from: `https://host`, perhaps with `:port` and a path that stands before all repositories.
    /// `http://` is for registries without TLS.
    #[arg(value_name = "FROM", required_unless_present = "plan")]
    from: Option<String>,

    /// Where they go, likewise.
    #[arg(value_name = "TO", required_unless_present = "plan")]
    to: Option<String>,

    /// A plan in JSON, in place of FROM, TO and the options that say what is copied and how.
    #[arg(long, env = "BERTH_REPLICATE_PLAN", value_name = "FILE", conflicts_with_all = ["from", "to", "what", "how"])]
    plan: Option<PathBuf>,

    #[command(flatten)]
    source: SourceArgs,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    what: WhatArgs,

    #[command(flatten)]
    how: HowArgs,

    /// Where the end is written, as JSON of at most 4,000 bytes: what Kubernetes shows of a pod that has ended.
    #[arg(long, value_name = "FILE")]
    termination_log: Option<PathBuf>,

    /// Address of the channel, where an operator asks how far this is: GET /v1/progress. Only clients with a
    /// certificate of --channel-ca are let in.
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

    /// How log lines look, on standard error. What is logged is said by `BERTH_LOG`, for example `oci=debug`.
    #[arg(long, env = "BERTH_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Who logs in where images come from.
#[expect(clippy::struct_field_names, reason = "options say which end they are for")]
#[derive(Debug, Default, Args)]
struct SourceArgs {
    /// Who logs in at FROM, with --from-password-file.
    #[arg(long, value_name = "NAME", requires = "from_password_file", conflicts_with_all = ["plan", "from_docker_config"])]
    from_username: Option<String>,

    /// File with that login's password or token. Read again for each token.
    #[arg(long, value_name = "FILE", requires = "from_username")]
    from_password_file: Option<String>,

    /// File as Docker's config.json, with a login for FROM.
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    from_docker_config: Option<String>,

    /// Certificate authorities of FROM, PEM, in place of the public ones.
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    from_ca: Option<String>,
}

/// Who logs in where they go.
#[expect(clippy::struct_field_names, reason = "options say which end they are for")]
#[derive(Debug, Default, Args)]
struct TargetArgs {
    /// Who logs in at TO, with --to-password-file.
    #[arg(long, value_name = "NAME", requires = "to_password_file", conflicts_with_all = ["plan", "to_docker_config"])]
    to_username: Option<String>,

    /// File with that login's password or token. Read again for each token.
    #[arg(long, value_name = "FILE", requires = "to_username")]
    to_password_file: Option<String>,

    /// File as Docker's config.json, with a login for TO.
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    to_docker_config: Option<String>,

    /// Certificate authorities of TO, PEM, in place of the public ones.
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    to_ca: Option<String>,
}

/// What is copied, and under which name it arrives.
#[derive(Debug, Default, Args)]
#[group(id = "what", multiple = true)]
struct WhatArgs {
    /// Repositories, below FROM's path: `*` is anything within one step, `**` is anything. Without it all that FROM
    /// lists. Names without `*` are copied also where FROM lists none. May be given several times.
    #[arg(long = "repository", value_name = "PATTERN")]
    repositories: Vec<String>,

    /// Tags; `*` is anything. Without it, and without --semver, all. May be given several times.
    #[arg(long = "tag", value_name = "PATTERN")]
    tags: Vec<String>,

    /// Tags that are not copied, whatever else matches. May be given several times.
    #[arg(long = "exclude-tag", value_name = "PATTERN")]
    exclude_tags: Vec<String>,

    /// Tags that are versions within this range, such as `>=1.2, <2`, beside those that --tag names.
    #[arg(long, value_name = "RANGE")]
    semver: Option<String>,

    /// Of images for several platforms only these, such as linux/amd64: TO has to take such images (for a Berth
    /// registry: --allow-sparse copied-indexes). May be given several times.
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<String>,

    /// Leave signatures, attestations and whatever else refers to an image.
    #[arg(long)]
    without_referrers: bool,

    /// Stands before every repository at TO.
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    prefix: String,

    /// Steps of a repository's name that are left out at its beginning, but never the last one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    flatten: u32,
}

/// How it is copied.
#[derive(Debug, Default, Args)]
#[group(id = "how", multiple = true)]
struct HowArgs {
    /// Delete at TO what was deleted at FROM. From a registry that is none of Berth's, this goes by what it lists: only
    /// tags go that were copied from there, and none where over half of them would.
    #[arg(long)]
    propagate_deletions: bool,

    /// What becomes of a tag that points elsewhere at TO.
    #[arg(long, value_enum, default_value_t)]
    conflicts: OnConflict,

    /// Blobs and manifests under way at once.
    #[arg(long, value_name = "N", default_value_t = Limits::default().concurrency)]
    concurrency: u32,

    /// Bytes a second, such as 10Mi, for all transfers together.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    bytes_per_second: Option<u64>,

    /// End where comparing and copying takes longer than so many seconds, with what is done then.
    #[arg(long, value_name = "N")]
    timeout_seconds: Option<u64>,

    /// Go on with what is pushed meanwhile, until nothing was for so many seconds. FROM has to be a Berth registry.
    #[arg(long, value_name = "N")]
    follow_seconds: Option<u64>,
}

/// What becomes of a tag that points elsewhere at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OnConflict {
    /// It moves; between Berth registries only where it was not set later.
    #[default]
    Overwrite,
    /// It stays.
    Keep,
    /// It stays, and that is a failure.
    Fail,
}

/// What to do beside copying.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) termination_log: Option<PathBuf>,
    pub(super) channel: Option<(SocketAddr, channel::tls::Files)>,
}

impl ReplicateArgs {
    /// The plan, and whom to tell.
    pub(super) fn split(self) -> (Result<Plan, InvalidPlan>, Telling) {
        let Self {
            from,
            to,
            plan,
            source,
            target,
            what,
            how,
            termination_log,
            channel_listen,
            channel_cert,
            channel_key,
            channel_ca,
            log_format: _,
        } = self;
        let files = channel_cert.zip(channel_key);
        let files = files.map(|(cert, key)| channel::tls::Files { cert, key, client_ca: channel_ca });
        let telling = Telling { termination_log, channel: channel_listen.zip(files) };
        let plan = match plan {
            Some(path) => InvalidPlan::read(path),
            // That both are given was checked when the command line was parsed.
            None => {
                Ok(by_hand((from.unwrap_or_default(), source), (to.unwrap_or_default(), target), what, &how))
            }
        };
        (plan, telling)
    }
}

fn by_hand(
    (from, source): (String, SourceArgs),
    (to, target): (String, TargetArgs),
    what: WhatArgs,
    how: &HowArgs,
) -> Plan {
    let SourceArgs { from_username, from_password_file, from_docker_config, from_ca } = source;
    let TargetArgs { to_username, to_password_file, to_docker_config, to_ca } = target;
    let WhatArgs { repositories, tags, exclude_tags, semver, platforms, without_referrers, prefix, flatten } =
        what;
    let HowArgs {
        propagate_deletions,
        conflicts,
        concurrency,
        bytes_per_second,
        timeout_seconds,
        follow_seconds,
    } = *how;
    let source = login(from_username.zip(from_password_file), from_docker_config);
    let target = login(to_username.zip(to_password_file), to_docker_config);
    let referrers = !without_referrers;
    Plan {
        source: End { url: from, credentials: source, ca_file: from_ca },
        target: End { url: to, credentials: target, ca_file: to_ca },
        filters: Filters { repositories, tags, exclude_tags, semver, platforms, referrers },
        destination: Destination { prefix, flatten },
        deletions: if propagate_deletions { Deletions::Propagate } else { Deletions::Ignore },
        conflicts: match conflicts {
            OnConflict::Overwrite => Conflicts::Overwrite,
            OnConflict::Keep => Conflicts::Keep,
            OnConflict::Fail => Conflicts::Fail,
        },
        limits: Limits { concurrency, bytes_per_second, timeout_seconds },
        follow: follow_seconds.map(|idle_seconds| Follow { cursor: None, idle_seconds }),
    }
}

fn login(password: Option<(String, String)>, docker: Option<String>) -> Option<Credentials> {
    let password =
        password.map(|(username, password_file)| Credentials::Password { username, password_file });
    password.or(docker.map(Credentials::DockerConfig))
}
