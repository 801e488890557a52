//! Connections of one listener: HTTP/1.1 and HTTP/2, a bounded number of them, each with bounded headers and time to
//! send them. What stands still ends.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, serve::Listener};
use http::{Request, Version};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    activity::{Activity, Answer, Protocol, Verdict},
    places::{Place, Places},
    socket::{Patient, Transport, notice_dead_clients},
};
use crate::sendfile::FileQueue;

/// How many connections, and how long they may stand still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In all. More clients wait in the kernel's queue.
    pub(crate) connections: usize,
    /// From one address. Many clients may stand behind one.
    pub(crate) of_one_address: usize,
    /// For a client that takes nothing of an answer, and for a connection without a request.
    pub(crate) patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4096, of_one_address: 2048, patience: Duration::from_secs(60) }
    }
}

/// Requests of one client at once over HTTP/2.
const MAX_STREAMS: u32 = 100;
/// Of an answer that a client is slow to take over HTTP/2.
const SEND_BUFFER: usize = 128 << 10;
/// Headers of one request over HTTP/2.
const MAX_HEADERS: u32 = 64 << 10;
/// Headers of one request over HTTP/1.1, and what is read of a body at once.
const HTTP1_BUFFER: usize = 64 << 10;
/// For the headers of a request, from the first byte; and for the first request of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// What anybody can cause fills no log.
const COMPLAINTS: Duration = Duration::from_secs(60);
/// An HTTP/2 client that does not answer pings is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Serves a router to whoever connects.
pub(super) struct Connections {
    router: Router,
    end: CancellationToken,
    places: Arc<Places>,
    patience: Duration,
    /// For headers.
    first: Duration,
    /// When it was last said that an address has too many connections.
    complained: Option<Instant>,
    http: Builder<TokioExecutor>,
}

impl Connections {
    pub(super) fn new(router: Router, limits: Limits, end: CancellationToken) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        let first = HEADER_TIMEOUT.min(limits.patience);
        http.http1().timer(TokioTimer::new()).header_read_timeout(first).max_buf_size(HTTP1_BUFFER);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(PING_INTERVAL);
        let places = Places::new(limits.connections, limits.of_one_address);
        Self { router, end, places, patience: limits.patience, first, complained: None, http }
    }

    /// Until the end is asked for and every connection has finished what it was doing.
    pub(super) async fn serve<L>(mut self, mut listener: L)
    where
        L: Listener<Addr = SocketAddr, Io: Transport>,
    {
        // Nothing is sent: it closes when the last connection has ended.
        let (running, mut ended) = mpsc::channel::<Infallible>(1);
        let relieving = tokio::spawn(Arc::clone(&self.places).relieve());
        while let Some((io, peer, place)) = self.accept(&mut listener).await {
            let connection = Connection {
                place,
                peer,
                router: self.router.clone(),
                end: self.end.clone(),
                patience: self.patience,
                first: self.first,
                http: self.http.clone(),
            };
            let running = running.clone();
            tokio::spawn(async move {
                connection.run(io).await;
                drop(running);
            });
        }
        // Nobody new is let in from here on.
        drop((listener, running));
        ended.recv().await;
        relieving.abort();
    }

    /// The next client that there is a place for; none at the end.
    async fn accept<L: Listener<Addr = SocketAddr>>(
        &mut self,
        listener: &mut L,
    ) -> Option<(L::Io, SocketAddr, Place)> {
        let accepted = async {
            loop {
                let (io, peer) = listener.accept().await;
                if let Some(place) = self.places.take(peer.ip()).await {
                    return (io, peer, place);
                }
                if self.complained.is_none_or(|last| last.elapsed() >= COMPLAINTS) {
                    self.complained = Some(Instant::now());
                    tracing::warn!(%peer, "too many connections from one address, and all are busy");
                }
            }
        };
        self.end.run_until_cancelled(accepted).await
    }
}

/// One client.
struct Connection {
    place: Place,
    peer: SocketAddr,
    router: Router,
    end: CancellationToken,
    patience: Duration,
    first: Duration,
    http: Builder<TokioExecutor>,
}

impl Connection {
    async fn run<T: Transport>(self, io: T) {
        let Self { place, peer, router, end, patience, first, http } = self;
        notice_dead_clients(io.tcp());
        let activity = &place.activity;
        let service = service(router, peer, io.files(), Arc::clone(activity));
        let io = TokioIo::new(Patient::new(io, patience));
        let mut connection = pin!(http.serve_connection(io, service));
        let mut looking = tokio::time::interval(patience / 8);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When it was asked to end once nothing is under way.
        let mut asked: Option<Instant> = None;
        loop {
            tokio::select! {
                ended = &mut connection => return log(ended),
                () = place.evicted.cancelled() => return debug("a connection that stood still made place", peer),
                () = end.cancelled(), if asked.is_none() => {
                    connection.as_mut().graceful_shutdown();
                    asked = Some(Instant::now());
                }
                _ = looking.tick() => match activity.verdict(first, patience) {
                    Verdict::Stalled => return debug("a client took nothing any more", peer),
                    Verdict::Idle if asked.is_none() => {
                        connection.as_mut().graceful_shutdown();
                        asked = Some(Instant::now());
                    }
                    // It had time to take what was still on its way.
                    Verdict::Idle if asked.is_some_and(|asked| asked.elapsed() >= patience) => {
                        return debug("an idle connection did not end", peer);
                    }
                    Verdict::Alive | Verdict::Idle => {}
                },
            }
        }
    }
}

/// The router as hyper calls it; the client's address travels with each request.
fn service(
    router: Router,
    peer: SocketAddr,
    files: Option<FileQueue>,
    activity: Arc<Activity>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = http::Response<Answer>,
    Error = Infallible,
    Future: Send + 'static,
> + Send
+ 'static {
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let protocol = if request.version() > Version::HTTP_11 { Protocol::Http2 } else { Protocol::Http1 };
        let exchange = activity.begin(protocol);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        // Over HTTP/2 bodies are interleaved.
        if let Some(files) = files.clone().filter(|_| protocol == Protocol::Http1) {
            request.extensions_mut().insert(files);
        }
        let answered = router.clone().oneshot(request);
        async move { Ok(answered.await?.map(|body| Answer::new(body, exchange))) }
    })
}

fn log(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection ended");
    }
}

fn debug(why: &'static str, peer: SocketAddr) {
    tracing::debug!(why, %peer, "connection ended");
}
