//! The registry's API: every request is routed, authenticated, decided on, answered, logged and counted here.

mod answer;
mod blobs;
mod changes;
mod incoming;
mod lists;
mod manifests;
mod operation;
mod query;
mod record;
mod replication;
mod shares;
mod tokens;
mod uploads;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::body::Body as _;
use oci::{Route, name::InvalidReference, route::InvalidRoute};

pub(crate) use self::{changes::Changes, operation::Operation, replication::Followers, tokens::Forms};
use self::{incoming::Rest, query::Query, record::Record, shares::Who};
use crate::{
    access::{Access, Caller, Origin, Wanted},
    error::Error,
    metrics::Metrics,
    storage::Storage,
};

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const DOCKER_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const BERTH_REGISTRY: HeaderName = HeaderName::from_static(channel::feed::REGISTRY_HEADER);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) access: Access,
    pub(crate) storage: Storage,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) changes: Changes,
    pub(crate) followers: Followers,
    pub(crate) forms: Forms,
    /// Whether clients speak TLS to this server itself.
    pub(crate) tls: bool,
}

/// The one handler of the public listener.
pub(crate) async fn handle(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Response {
    let record = Record::start(Arc::clone(&api.metrics), &request, peer);
    let (parts, body) = request.into_parts();
    let (body, rest) = record.count_received(body);
    let request = Request::from_parts(parts, body);
    let id = record.id().to_owned();
    let is_head = request.method() == Method::HEAD;
    let registry = api.storage.id().and_then(|id| HeaderValue::from_str(id.as_str()).ok());
    let (answered, record) = answer(api, request, peer, rest, record).await;
    let mut response = answered.unwrap_or_else(|error| error.respond(&id));
    let headers = response.headers_mut();
    headers.insert(DOCKER_API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(registry) = registry {
        headers.insert(BERTH_REGISTRY, registry);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if is_head {
        response = without_body(response);
    }
    match record {
        Some(record) => record.follow(response),
        None => response,
    }
}

/// What can't be a tag can't be there: who only looks is told so.
fn not_there(method: &Method, error: InvalidRoute) -> Error {
    match error {
        InvalidRoute::Reference(InvalidReference::Tag(_)) if method.is_safe() => {
            Error::ManifestUnknown("of such a name".to_owned())
        }
        error => error.into(),
    }
}

/// What HEAD gets of an answer made for GET.
fn without_body(mut response: Response) -> Response {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    response.map(|_| Body::empty())
}

/// A request that was decided on.
struct Allowed {
    request: Request,
    caller: Caller,
    who: Who,
    route: Route,
    operation: Operation,
}

/// What comes of deciding.
enum Decided {
    /// There is no more to do.
    Answered(Response),
    Allowed(Box<Allowed>),
}

/// The answer, and the record unless it was lost with a task.
///
/// Whoever is refused while still sending is listened to for a while, or the refusal would not reach them; some clients
/// hang too, containerd 1.6 for example. Who waits to be asked for a body needs nothing of the kind.
async fn answer(
    api: Arc<Api>,
    request: Request,
    peer: SocketAddr,
    rest: Rest,
    mut record: Record,
) -> (Result<Response, Error>, Option<Record>) {
    let waits = request.headers().contains_key(header::EXPECT);
    let finish = async move |answered: Result<Response, Error>, record: Record| {
        if answered.is_err() && (!waits || record.has_received()) {
            rest.discard().await;
        }
        (answered, Some(record))
    };
    let allowed = match decide(&api, request, peer, &mut record).await {
        Ok(Decided::Allowed(allowed)) => *allowed,
        Ok(Decided::Answered(response)) => return finish(Ok(response), record).await,
        Err(error) => return finish(Err(error), record).await,
    };
    if !allowed.operation.changes() {
        return finish(perform(&api, allowed).await, record).await;
    }
    let change = match api.changes.begin(&allowed.who).await {
        Ok(change) => change,
        Err(error) => return finish(Err(error), record).await,
    };
    let task = tokio::spawn(async move {
        let answered = perform(&api, allowed).await;
        drop(change);
        finish(answered, record).await
    });
    task.await.unwrap_or_else(|error| (Err(Error::Task(error)), None))
}

async fn decide(
    api: &Api,
    request: Request,
    peer: SocketAddr,
    record: &mut Record,
) -> Result<Decided, Error> {
    let path = request.uri().path();
    if path == tokens::PATH {
        record.operation(Operation::IssueToken);
        return tokens::issue(api, request, peer.ip(), record).await.map(Decided::Answered);
    }
    if !path.starts_with("/v2") {
        return Ok(Decided::Answered(StatusCode::NOT_FOUND.into_response()));
    }
    let parsed = parse(&request);
    if let Ok((route, operation)) = &parsed {
        record.routed(route);
        record.operation(*operation);
    }
    // Who may not come in is not even told that a path makes no sense.
    let wanted = parsed.as_ref().map_or(Wanted::Entry, |(route, operation)| operation.wanted(route));
    let caller = api.access.authenticate(request.headers(), peer.ip()).await;
    record.login(caller.as_ref().ok().and_then(Caller::login));
    let caller = match caller.and_then(|caller| caller.must(wanted).map(|()| caller)) {
        Ok(caller) => caller,
        Err(refusal) => {
            let origin = Origin::of(request.headers(), request.uri(), api.tls);
            return Err(Error::refused(refusal, wanted, origin.as_ref()));
        }
    };
    let (route, operation) = parsed?;
    let who = Who::of(caller.login(), peer.ip());
    Ok(Decided::Allowed(Box::new(Allowed { request, caller, who, route, operation })))
}

/// What a request is about.
fn parse(request: &Request) -> Result<(Route, Operation), Error> {
    let route = Route::parse(request.uri().path()).map_err(|error| not_there(request.method(), error))?;
    let operation = Operation::of(request.method(), &route)?;
    Ok((route, operation))
}

/// Does what has been decided on. Who may not read does not learn from it what is there.
async fn perform(api: &Api, allowed: Allowed) -> Result<Response, Error> {
    let Allowed { request, caller, who, route, operation } = allowed;
    let blind = route.repository().filter(|repository| !caller.may_know(repository)).cloned();
    let answered = dispatch(api, caller, who, request, (route, operation)).await;
    answered.map_err(|error| match blind {
        Some(repository) if error.tells_what_is_there() => Error::Denied(repository),
        _ => error,
    })
}

async fn dispatch(
    api: &Api,
    caller: Caller,
    who: Who,
    request: Request,
    (route, operation): (Route, Operation),
) -> Result<Response, Error> {
    let storage = &api.storage;
    let query = Query::parse(request.uri().query());
    let (mut parts, body) = request.into_parts();
    let files = parts.extensions.remove();
    let headers = &parts.headers;
    match (operation, route) {
        (Operation::ListRepositories, _) => lists::repositories(storage, caller, &query).await,
        (Operation::FollowFeed, _) => replication::feed(api, caller, &query).await,
        (Operation::ListTags, Route::Tags(name)) => lists::tags(storage, name, &query).await,
        (Operation::ListReferrers, Route::Referrers(name, subject)) => {
            lists::referrers(storage, name, subject, &query).await
        }
        (Operation::ReadState, Route::State(name)) => replication::state(storage, name, &query).await,
        (Operation::CheckBlob, Route::Blob(name, digest)) => {
            blobs::check(storage, name, digest, headers).await
        }
        (Operation::PullBlob, Route::Blob(name, digest)) => {
            blobs::pull(storage, name, digest, headers, files).await
        }
        (Operation::DeleteBlob, Route::Blob(name, digest)) => blobs::delete(storage, name, digest).await,
        (Operation::CheckManifest, Route::Manifest(name, reference)) => {
            manifests::check(storage, name, reference, headers).await
        }
        (Operation::PullManifest, Route::Manifest(name, reference)) => {
            manifests::pull(storage, name, reference, headers, files).await
        }
        (Operation::PushManifest, Route::Manifest(name, reference)) => {
            let memory = api.changes.manifest(&who);
            manifests::push(api, &caller, (name, reference), &query, headers, (body, memory)).await
        }
        (Operation::DeleteManifest, Route::Manifest(name, reference)) => {
            manifests::delete(storage, &caller, (name, reference), headers).await
        }
        (Operation::StartUpload, Route::Uploads(name)) => {
            uploads::start(storage, (caller, &who), name, &query, headers, body).await
        }
        (Operation::CheckUpload, Route::Upload(name, id)) => uploads::check(storage, name, &id).await,
        (Operation::AppendUpload, Route::Upload(name, id)) => {
            uploads::append(storage, name, &id, headers, body).await
        }
        (Operation::FinishUpload, Route::Upload(name, id)) => {
            uploads::finish(storage, name, &id, &query, headers, body).await
        }
        (Operation::CancelUpload, Route::Upload(name, id)) => uploads::cancel(storage, name, &id).await,
        // `Operation::of` gave an operation that fits the route.
        _ => Ok(([(header::CONTENT_TYPE, "application/json")], Body::from("{}")).into_response()),
    }
}

#[cfg(test)]
mod tests;
