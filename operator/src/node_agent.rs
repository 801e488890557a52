//! Node access: keeps one node's containerd able to resolve, trust and reach the registries that the operator names.
//!
//! ```text
//!   operator ──PUT /v1/node-access──► server ──► files ──► <certs.d>/demo.apps.svc:5000/{ca.crt,hosts.toml}
//!                                        └─────► probe ──► the registry's ClusterIP
//! ```
//!
//! It decides nothing and asks nobody: the operator calls it. What it wrote stays when it, the operator or the API
//! server is away, so that pulls go on; it goes once the operator is uninstalled.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use channel::tls::{self, Files, Reloading, TlsListener};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use self::credentials::{Credentials, Pod};
use crate::{
    config,
    health::{self, Readiness},
};

mod credentials;
mod files;
mod hosts_toml;
mod probe;
mod server;
mod uninstall;

/// Requests under way have this long to end once the pod is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Why node access can't run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to load the channel's certificate: {0}")]
    Certificate(#[from] tls::Error),
    #[error("failed to listen at {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("failed to serve health: {0}")]
    Health(io::Error),
    #[error("failed to wait for signals: {0}")]
    Signals(io::Error),
    #[error("failed to remove this node's files: {0}")]
    Uninstall(io::Error),
}

/// Serves the channel until the pod is told to stop.
pub(crate) async fn run(config: config::NodeAccess) -> Result<(), Error> {
    let config::NodeAccess {
        node: name,
        namespace,
        pod,
        pod_uid,
        deployment,
        certs_mount,
        certs_dir,
        channel_listen,
        channel_tls,
        health_listen,
    } = config;
    let certs = files::CertsFolder::new(certs_mount, certs_dir);
    if let Err(error) = certs.tidy() {
        tracing::error!(%error, "failed to clean up after a run that was cut short");
    }
    let pod = pod.zip(pod_uid).map(|(name, uid)| Pod { namespace: namespace.clone(), name, uid });
    let node = Arc::new(server::Node::new(name, certs, Credentials::new(pod)));
    tokio::spawn(Arc::clone(&node).stay_fresh());

    let certificate = Reloading::load(Files {
        cert: channel_tls.join("tls.crt"),
        key: channel_tls.join("tls.key"),
        client_ca: Some(channel_tls.join("ca.crt")),
    })?;
    let listen = |source| Error::Listen { address: channel_listen, source };
    let tcp = TcpListener::bind(channel_listen).await.map_err(listen)?;
    tokio::spawn(Arc::clone(&certificate).follow());

    let readiness = Readiness::default();
    readiness.set(true);
    let mut stop = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let channel = axum::serve(TlsListener::new(tcp, certificate), server::router(Arc::clone(&node)))
        .with_graceful_shutdown(async { drop(stopped.await) });
    let mut channel = tokio::spawn(channel.into_future());
    tracing::info!(address = %channel_listen, "node access is ready");

    tokio::select! {
        _ = stop.recv() => {}
        served = health::serve(health_listen, readiness, Router::new()) => served.map_err(Error::Health)?,
    }
    drop(stopping);
    if tokio::time::timeout(GRACE, &mut channel).await.is_err() {
        channel.abort();
    }
    leave(&node, &namespace, &deployment).await
}

async fn leave(node: &server::Node, namespace: &str, deployment: &str) -> Result<(), Error> {
    if let Some(reason) = uninstall::reason(namespace, deployment).await {
        node.uninstall().map_err(Error::Uninstall)?;
        tracing::info!(reason, "removed this node's files");
    }
    Ok(())
}
