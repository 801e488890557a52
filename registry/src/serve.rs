//! From a configuration to a server that runs, and from SIGTERM to one that has ended: readiness goes first, then,
//! after a delay, no new connection is taken, then running transfers finish within the grace time.

mod activity;
mod connections;
mod places;
mod socket;
mod waiting;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use channel::tls;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::connections::Limits as ConnectionLimits;
use self::{connections::Connections, socket::Plain};
use crate::{
    access::{Access, Reviewer},
    api::{self, Api, Changes, Followers, Forms},
    config::{Channel, Config, WhoDecides},
    control::Control,
    health::{self, Health},
    maintenance::{self, Maintenance},
    metrics::Metrics,
    policy_file::{self, PolicyFile},
    storage::{self, Storage},
};

/// Why the server can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No threads, or the like.
    #[error("failed to start: {0}")]
    Runtime(io::Error),
    /// The root can't be used.
    #[error("{0}")]
    Root(String),
    /// An address is taken or not ours.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The policy can't be used.
    #[error(transparent)]
    Policy(#[from] policy_file::Error),
    /// Certificates can't be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Serves until SIGTERM or SIGINT.
pub async fn serve(config: Config) -> Result<(), Error> {
    let storage =
        Storage::open(&config.root, config.limits).map_err(|error| Error::Root(error.to_string()))?;
    let mut signals = Signals::new().map_err(Error::Runtime)?;
    let (sender, ends) = mpsc::channel(1);
    tokio::spawn(async move { while sender.send(signals.next().await).await.is_ok() {} });
    serve_until(config, storage, ends, |_, _| {}).await
}

/// Serves what is in a storage until `ends` says why not longer, with less patience when it says so again; `listening` hears of each listener's address.
pub(crate) async fn serve_until(
    config: Config,
    storage: Storage,
    mut ends: mpsc::Receiver<&'static str>,
    listening: impl Fn(&'static str, SocketAddr) + Send + Sync,
) -> Result<(), Error> {
    let Config {
        root: _,
        listen,
        tls,
        health,
        access: decides,
        kubernetes,
        schedule,
        limits: _,
        connections,
        drain_delay,
        grace,
        log_format: _,
    } = config;
    allow_many_files();
    let metrics = Arc::new(Metrics::new());
    let draining = Arc::new(AtomicBool::new(false));
    let access = match decides {
        WhoDecides::Nobody => Access::Open,
        WhoDecides::Policy(_) | WhoDecides::Channel(_) => {
            let reviewer = kubernetes.map(|kubernetes| Arc::new(kubernetes) as Arc<dyn Reviewer>);
            Access::reviewed_by(reviewer, &storage.token_key().await?)
                .map_err(|error| Error::Runtime(error.into()))?
        }
    };

    let (work, probes) = (CancellationToken::new(), CancellationToken::new());
    let mut serving = Servers::default();
    let mut probing = Servers::default();
    if let Some(address) = health {
        let state = Health {
            access: access.clone(),
            storage: storage.clone(),
            metrics: Arc::clone(&metrics),
            draining: Arc::clone(&draining),
        };
        let served = (health::router(state), ConnectionLimits::default());
        listening("health", probing.start("health", address, None, served, &probes).await?);
    }
    if tls.is_none() && !matches!(decides, WhoDecides::Nobody) {
        tracing::warn!("passwords travel in the clear: give --tls-cert and --tls-key");
    }
    match decides {
        WhoDecides::Nobody => {}
        WhoDecides::Policy(path) => {
            serving.follow(PolicyFile::load(path, access.clone(), storage.clone())?, &work);
        }
        WhoDecides::Channel(Channel { listen, tls }) => {
            let control = Control::new(access.clone(), storage.clone(), work.clone());
            control.load().await?;
            let served = (control.router(), ConnectionLimits::default());
            listening("channel", serving.start("channel", listen, Some(tls), served, &work).await?);
        }
    }
    let maintenance = Maintenance::new(storage.clone(), schedule.grace, work.clone());
    if let Some(socket) = storage.control() {
        tokio::spawn(maintenance::listen(socket, maintenance.clone()));
    }
    maintenance.follow(schedule, &metrics);
    let api = Arc::new(Api {
        access,
        storage: storage.clone(),
        metrics,
        changes: Changes::default(),
        followers: Followers::until(work.clone()),
        forms: Forms::default(),
        tls: tls.is_some(),
    });
    let router = Router::new().fallback(api::handle).with_state(api);
    listening("registry", serving.start("registry", listen, tls, (router, connections), &work).await?);
    let reason = ends.recv().await.unwrap_or("nobody is left");
    let (delay_seconds, grace_seconds) = (drain_delay.as_secs(), grace.as_secs());
    tracing::info!(reason, delay_seconds, grace_seconds, "shutting down");
    draining.store(true, Ordering::Release);
    // Whoever can't wait asks twice.
    let _ = tokio::time::timeout(drain_delay, ends.recv()).await;
    work.cancel();
    if tokio::time::timeout(grace, serving.end()).await.is_err() {
        tracing::warn!("transfers were still running at the end of the grace time");
    }
    if let Err(error) = storage.close().await {
        tracing::error!(%error, "not everything is on the disk: who follows the feed may have to begin anew");
    }
    probes.cancel();
    // Whoever probes right now does not hold up the end.
    let _ = tokio::time::timeout(Duration::from_secs(1), probing.end()).await;
    tracing::info!("ended");
    Ok(())
}

/// Each connection is a file to the system, which by habit allows few.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "failed to allow more open files");
    }
}

/// Listeners and their connections.
#[derive(Default)]
struct Servers(JoinSet<()>);

impl Servers {
    /// Listens and serves until `end`; the address.
    async fn start(
        &mut self,
        what: &'static str,
        address: SocketAddr,
        tls: Option<tls::Files>,
        (router, limits): (Router, ConnectionLimits),
        end: &CancellationToken,
    ) -> Result<SocketAddr, Error> {
        let certificate = tls.map(tls::Reloading::load).transpose()?;
        let listen = |source| Error::Listen { address, source };
        let tcp = TcpListener::bind(address).await.map_err(listen)?;
        let address = tcp.local_addr().map_err(listen)?;
        let connections = Connections::new(router, limits, end.clone());
        tracing::info!(listener = what, %address, tls = certificate.is_some(), "listening");
        match certificate {
            None => self.0.spawn(connections.serve(Plain(tcp))),
            Some(certificate) => {
                let following = end.clone().run_until_cancelled_owned(Arc::clone(&certificate).follow());
                self.0.spawn(async move {
                    following.await;
                });
                self.0.spawn(connections.serve(tls::TlsListener::new(tcp, certificate)))
            }
        };
        Ok(address)
    }

    /// Looks at a policy's file until `end`.
    fn follow(&mut self, policy: PolicyFile, end: &CancellationToken) {
        let following = end.clone().run_until_cancelled_owned(policy.follow());
        self.0.spawn(async move {
            following.await;
        });
    }

    /// Waits until all have ended.
    async fn end(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// What asks the server to end.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Self::Root(error.to_string())
    }
}

impl From<storage::OpenError> for Error {
    fn from(error: storage::OpenError) -> Self {
        Self::Root(error.to_string())
    }
}
