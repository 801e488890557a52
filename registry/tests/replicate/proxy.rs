//! A proxy in front of a registry: passes everything on, writes it down, and breaks it where it is told to.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use oci::Route;
use tokio::net::{TcpListener, TcpStream};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is done to a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is answered with this, and the registry never sees it.
    Answer(StatusCode, Vec<(HeaderName, String)>),
    /// The connection ends without an answer, and the registry never sees it.
    Reset,
    /// The registry does it, but nobody hears of it.
    Forget,
    /// The answer's body ends after so many bytes.
    CutAnswer(u64),
    /// The request's body ends after so many bytes, for the registry and for who sends it.
    CutRequest(u64),
    /// The registry gets it without its query.
    NoQuery,
    /// One byte of the answer's body becomes another one.
    Damage,
    /// One byte of each piece of the request's body becomes another one.
    DamageRequest,
    /// The answer's body comes a byte at a time, and never to its end.
    Drip,
}

impl Fault {
    pub(crate) fn status(status: StatusCode) -> Self {
        Self::Answer(status, Vec::new())
    }

    /// With what `Retry-After` says.
    pub(crate) fn too_many(retry_after: &str) -> Self {
        Self::Answer(StatusCode::TOO_MANY_REQUESTS, vec![(header::RETRY_AFTER, retry_after.to_owned())])
    }
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) at: Instant,
    /// What came of it; none where nothing did.
    pub(crate) status: Option<StatusCode>,
}

impl Asked {
    /// `PUT manifest`, `GET blob`, `POST upload`, …
    pub(crate) fn kind(&self) -> String {
        kind(&self.method, &self.path)
    }

    /// What came after a cursor.
    pub(crate) fn is_following(&self) -> bool {
        self.path.contains("/feed?after=")
    }
}

fn kind(method: &Method, path: &str) -> String {
    let path = path.split('?').next().unwrap();
    let what = match Route::parse(path) {
        Ok(Route::Base) => "base",
        Ok(Route::Catalog) => "catalog",
        Ok(Route::Tags(_)) => "tags",
        Ok(Route::Manifest(..)) => "manifest",
        Ok(Route::Blob(..)) => "blob",
        Ok(Route::Uploads(_) | Route::Upload(..)) => "upload",
        Ok(Route::Referrers(..)) => "referrers",
        _ if path == "/token" => "token",
        _ if path.ends_with("/_berth/replication/state") => "state",
        _ if path.ends_with("/_berth/replication/feed") => "feed",
        _ => "other",
    };
    format!("{method} {what}")
}

type Picks = Box<dyn Fn(&Asked) -> bool + Send + Sync>;
type Hook = Box<dyn Fn(&Asked) -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

struct Rule {
    picks: Picks,
    left: AtomicUsize,
    fault: Fault,
}

/// Some requests that are to be broken.
#[derive(Clone)]
pub(crate) struct Broken(Arc<Rule>);

impl Broken {
    /// How many were not asked yet.
    pub(crate) fn left(&self) -> usize {
        self.0.left.load(Ordering::SeqCst)
    }
}

/// What the proxy is told.
#[derive(Default)]
struct Told {
    rules: Mutex<Vec<Arc<Rule>>>,
    /// JSON at paths (without query) that the registry does not know.
    canned: Mutex<HashMap<String, Vec<(StatusCode, String)>>>,
    /// The registry says whose it is.
    honest: AtomicBool,
    /// Goes along with every answer.
    headers: Mutex<HeaderMap>,
    /// Headers that the registry does not get.
    without: Mutex<Vec<&'static str>>,
    before: Mutex<Option<Arc<Hook>>>,
    asked: Mutex<Vec<Asked>>,
}

/// A proxy on a port of its own.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    registry: Arc<Mutex<SocketAddr>>,
    told: Arc<Told>,
}

impl Proxy {
    pub(crate) async fn before(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Arc::new(Mutex::new(registry));
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            registry: Arc::clone(&registry),
            told: Arc::default(),
        };
        let told = Arc::clone(&proxy.told);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (told, registry) = (Arc::clone(&told), Arc::clone(&registry));
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let (told, registry) = (Arc::clone(&told), *registry.lock().unwrap());
                        async move { pass(registry, told, request).await }
                    });
                    // Ends with an error where a fault wants it to.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks the first so many requests that `picks` takes.
    pub(crate) fn fail(
        &self,
        times: usize,
        fault: Fault,
        picks: impl Fn(&Asked) -> bool + Send + Sync + 'static,
    ) -> Broken {
        let rule = Arc::new(Rule { picks: Box::new(picks), left: AtomicUsize::new(times), fault });
        self.told.rules.lock().unwrap().push(Arc::clone(&rule));
        Broken(rule)
    }

    /// Answers a path with these, one after the other; the last one stays.
    pub(crate) fn answer(&self, path: &str, answers: &[(StatusCode, String)]) {
        self.told.canned.lock().unwrap().insert(path.to_owned(), answers.to_vec());
    }

    pub(crate) fn say(&self, name: &'static str, value: &'static str) {
        let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
        self.told.headers.lock().unwrap().insert(name, value);
    }

    /// Lets the registry say that it is one of Berth's.
    pub(crate) fn is_honest(&self) {
        self.told.honest.store(true, Ordering::SeqCst);
    }

    /// Lets it keep that to itself again.
    pub(crate) fn is_foreign(&self) {
        self.told.honest.store(false, Ordering::SeqCst);
    }

    /// Stands in front of another registry from now on.
    pub(crate) fn turn_to(&self, registry: SocketAddr) {
        *self.registry.lock().unwrap() = registry;
    }

    /// Keeps a header of requests to itself.
    pub(crate) fn without(&self, name: &'static str) {
        self.told.without.lock().unwrap().push(name);
    }

    /// Runs before each request.
    pub(crate) fn hook(
        &self,
        hook: impl Fn(&Asked) -> futures::future::BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        *self.told.before.lock().unwrap() = Some(Arc::new(Box::new(hook)));
    }

    /// All that was asked since it was last told.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.told.asked.lock().unwrap())
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.told.asked.lock().unwrap().clone()
    }

    /// Waits until a run follows the feed.
    pub(crate) async fn is_followed(&self) {
        while !self.asked().iter().any(Asked::is_following) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "told to break")
}

async fn pass(
    registry: SocketAddr,
    told: Arc<Told>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let asked = Asked { method, path, headers, at: Instant::now(), status: None };
    let hook = told.before.lock().unwrap().clone();
    if let Some(hook) = hook {
        hook(&asked).await;
    }
    let at = {
        let mut all = told.asked.lock().unwrap();
        all.push(asked.clone());
        all.len() - 1
    };
    for name in told.without.lock().unwrap().iter() {
        request.headers_mut().remove(*name);
    }
    let fault = pick(&told, &asked);
    let answer = match (fault, canned(&told, &asked)) {
        (Some(Fault::Reset), _) => Err(broken()),
        (Some(Fault::Answer(status, headers)), _) => {
            // Whoever is sending hears of it once it has been read, or not at all.
            let mut answer = Response::new(full(Bytes::new()));
            *answer.status_mut() = status;
            answer
                .headers_mut()
                .extend(headers.into_iter().map(|(name, value)| (name, value.parse().unwrap())));
            Ok(answer)
        }
        (None, Some((status, json))) => {
            let mut answer = Response::new(full(json.into()));
            *answer.status_mut() = status;
            Ok(answer)
        }
        (fault, _) => forward(registry, fault, request).await,
    };
    let mut answer = answer?;
    // Registries of others say nothing of this kind.
    if !told.honest.load(Ordering::SeqCst) {
        answer.headers_mut().remove("berth-registry");
    }
    answer.headers_mut().extend(told.headers.lock().unwrap().clone());
    if let Some(asked) = told.asked.lock().unwrap().get_mut(at) {
        asked.status = Some(answer.status());
    }
    Ok(answer)
}

fn pick(told: &Told, asked: &Asked) -> Option<Fault> {
    let rules = told.rules.lock().unwrap().clone();
    let takes = |rule: &&Arc<Rule>| {
        let less = |left: usize| left.checked_sub(1);
        (rule.picks)(asked) && rule.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    };
    rules.iter().find(takes).map(|rule| rule.fault.clone())
}

fn canned(told: &Told, asked: &Asked) -> Option<(StatusCode, String)> {
    let path = asked.path.split('?').next().unwrap();
    let mut canned = told.canned.lock().unwrap();
    let answers = canned.get_mut(path).filter(|_| asked.method == Method::GET)?;
    Some(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

async fn forward(
    registry: SocketAddr,
    fault: Option<Fault>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let tcp = TcpStream::connect(registry).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let cuts = matches!(fault, Some(Fault::CutRequest(_)));
    if matches!(fault, Some(Fault::NoQuery)) {
        *request.uri_mut() = request.uri().path().parse().unwrap();
    }
    let request = request.map(|body| match fault {
        Some(Fault::CutRequest(most)) => body_of(cut(pieces(body), most)),
        Some(Fault::DamageRequest) => body_of(damaged(pieces(body))),
        _ => body_of(pieces(body)),
    });
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if cuts || matches!(fault, Some(Fault::Forget)) {
        return Err(broken());
    }
    Ok(answer.map(|body| match fault {
        Some(Fault::CutAnswer(most)) => body_of(cut(pieces(body), most)),
        Some(Fault::Damage) => body_of(damaged(pieces(body))),
        Some(Fault::Drip) => body_of(dripping(pieces(body))),
        _ => body_of(pieces(body)),
    }))
}

type Pieces = BoxStream<'static, Result<Bytes, io::Error>>;

fn pieces(body: Incoming) -> Pieces {
    BodyStream::new(body)
        .filter_map(async |frame| match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(io::Error::other(error))),
        })
        .boxed()
}

fn body_of(pieces: Pieces) -> Body {
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// Breaks after so many bytes.
fn cut(pieces: Pieces, most: u64) -> Pieces {
    futures::stream::unfold((pieces, most), async |(mut pieces, left)| {
        if left == 0 {
            return Some((Err(broken()), (pieces, 0)));
        }
        let mut piece = pieces.next().await?.ok()?;
        piece.truncate(usize::try_from(left).unwrap());
        let left = left - piece.len() as u64;
        Some((Ok(piece), (pieces, left)))
    })
    .boxed()
}

fn dripping(pieces: Pieces) -> Pieces {
    pieces
        .map(|piece| {
            piece.map(|piece| futures::stream::iter((0..piece.len()).map(move |at| Ok(piece.slice(at..=at)))))
        })
        .try_flatten()
        .then(async |byte| {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            byte
        })
        .boxed()
}

fn damaged(pieces: Pieces) -> Pieces {
    pieces
        .map(|piece| {
            piece.map(|piece| {
                let mut bytes = piece.to_vec();
                bytes[0] ^= 1;
                bytes.into()
            })
        })
        .boxed()
}

/// Where blobs are moved to.
pub(crate) fn redirect(to: &str) -> Fault {
    Fault::Answer(StatusCode::TEMPORARY_REDIRECT, vec![(header::LOCATION, to.to_owned())])
}
