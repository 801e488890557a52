//! Connections of one listener: HTTP/1.1 and HTTP/2, a bounded number of them, each with bounded headers and time to
//! send them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, serve::Listener};
use http::{Request, Version};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::socket::{Patient, Transport, notice_dead_clients};
use crate::sendfile::FileQueue;

/// More clients wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Requests of one client at once over HTTP/2.
const MAX_STREAMS: u32 = 200;
/// Headers of one request over HTTP/2.
const MAX_HEADERS: u32 = 64 << 10;
/// Headers of one request over HTTP/1.1, and what is read of a body at once.
const HTTP1_BUFFER: usize = 128 << 10;
/// For the headers of a request, from the first byte; and for the first request of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// An HTTP/2 client that does not answer pings is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Serves a router to whoever connects.
pub(super) struct Connections {
    router: Router,
    end: CancellationToken,
    places: Arc<Semaphore>,
    http: Builder<TokioExecutor>,
}

impl Connections {
    pub(super) fn new(router: Router, end: CancellationToken) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HTTP1_BUFFER);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(PING_INTERVAL);
        Self { router, end, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)), http }
    }

    /// Until the end is asked for and every connection has finished what it was doing.
    pub(super) async fn serve<L>(self, mut listener: L)
    where
        L: Listener<Addr = SocketAddr, Io: Transport>,
    {
        let graceful = GracefulShutdown::new();
        while let Some((io, peer, place)) = self.accept(&mut listener).await {
            let watcher = graceful.watcher();
            let (router, http) = (self.router.clone(), self.http.clone());
            tokio::spawn(async move {
                let active = Arc::new(AtomicBool::new(false));
                notice_dead_clients(io.tcp());
                let service = service(router, peer, io.files(), Arc::clone(&active));
                let io = TokioIo::new(Patient::new(io));
                let connection = http.serve_connection(io, service).into_owned();
                let mut connection = pin!(watcher.watch(connection));
                // A client that never sends a request would hold its place for ever.
                tokio::select! {
                    ended = &mut connection => log(ended),
                    () = tokio::time::sleep(HEADER_TIMEOUT) => {
                        if active.load(Ordering::Acquire) {
                            log(connection.await);
                        }
                    }
                }
                drop(place);
            });
        }
        // Nobody new is let in from here on.
        drop(listener);
        graceful.shutdown().await;
    }

    /// The next client that there is a place for; none at the end.
    async fn accept<L: Listener<Addr = SocketAddr>>(
        &self,
        listener: &mut L,
    ) -> Option<(L::Io, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let accepted = async {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let (io, peer) = listener.accept().await;
            Some((io, peer, place))
        };
        self.end.run_until_cancelled(accepted).await.flatten()
    }
}

/// The router as hyper calls it; the client's address travels with each request.
fn service(
    router: Router,
    peer: SocketAddr,
    files: Option<FileQueue>,
    active: Arc<AtomicBool>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = axum::response::Response,
    Error = Infallible,
    Future: Send + 'static,
> + Send
+ 'static {
    hyper::service::service_fn(move |request: Request<Incoming>| {
        active.store(true, Ordering::Release);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        // Over HTTP/2 bodies are interleaved.
        if let Some(files) = &files
            && request.version() <= Version::HTTP_11
        {
            request.extensions_mut().insert(files.clone());
        }
        router.clone().oneshot(request)
    })
}

fn log(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection ended");
    }
}
