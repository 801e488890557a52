//! The channel of a run: an operator asks how far it is.

use std::{net::SocketAddr, sync::Arc};

use axum::{Json, Router, extract::State, routing::get};
use channel::{replication::Progress, tls};
use tokio::net::TcpListener;

use super::tally::Tally;

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error("failed to listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// Listens; what serves then never ends by itself.
pub(super) async fn listen(
    address: SocketAddr,
    files: tls::Files,
    tally: Tally,
) -> Result<impl Future<Output = ()>, Error> {
    let certificate = tls::Reloading::load(files)?;
    let listen = |source| Error::Listen { address, source };
    let tcp = TcpListener::bind(address).await.map_err(listen)?;
    let address = tcp.local_addr().map_err(listen)?;
    tracing::info!(listener = "channel", %address, "listening");
    let router = Router::new().route("/v1/progress", get(progress)).with_state(tally);
    let listener = tls::TlsListener::new(tcp, Arc::clone(&certificate));
    Ok(async move {
        let served = async { axum::serve(listener, router).await };
        let ((), served) = tokio::join!(certificate.follow(), served);
        if let Err(error) = served {
            tracing::error!(%error, "the channel broke");
        }
    })
}

async fn progress(State(tally): State<Tally>) -> Json<Progress> {
    Json(tally.progress())
}
