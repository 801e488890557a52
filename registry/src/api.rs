//! The registry's API: every request is authenticated, routed, decided on, answered, logged and counted here.

mod answer;
mod blobs;
mod lists;
mod manifests;
mod operation;
mod query;
mod record;
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

pub(crate) use self::operation::Operation;
use self::{query::Query, record::Record};
use crate::{access::Access, error::Error, metrics::Metrics, storage::Storage};

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const DOCKER_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) access: Access,
    pub(crate) storage: Storage,
    pub(crate) metrics: Arc<Metrics>,
}

/// The one handler of the public listener.
pub(crate) async fn handle(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Response {
    let mut record = Record::start(Arc::clone(&api.metrics), &request, peer);
    let request = request.map(|body| record.count_received(body));
    let id = record.id().to_owned();
    let is_head = request.method() == Method::HEAD;
    // What changes something is never left halfway because a client went away.
    let answered = if request.method().is_safe() {
        answer(api, request, &mut record).await
    } else {
        let task = tokio::spawn(async move {
            let answered = answer(api, request, &mut record).await;
            (answered, record)
        });
        match task.await {
            Ok((answered, with_facts)) => {
                record = with_facts;
                answered
            }
            Err(error) => return Error::Task(error).respond(&id),
        }
    };
    let mut response = answered.unwrap_or_else(|error| error.respond(&id));
    let headers = response.headers_mut();
    headers.insert(DOCKER_API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if is_head {
        response = without_body(response);
    }
    record.follow(response)
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

async fn answer(api: Arc<Api>, request: Request, record: &mut Record) -> Result<Response, Error> {
    if !request.uri().path().starts_with("/v2") {
        return Ok(StatusCode::NOT_FOUND.into_response());
    }
    let caller = api.access.authenticate(request.headers()).map_err(|_| Error::Unauthorized)?;
    let route = Route::parse(request.uri().path()).map_err(|error| not_there(request.method(), error))?;
    record.routed(&route);
    let operation = Operation::of(request.method(), &route)?;
    record.operation(operation);
    if let Some((action, repository)) = operation.action().zip(route.repository()) {
        caller.must(action, repository).map_err(|refusal| Error::refused(refusal, repository))?;
    }
    let query = Query::parse(request.uri().query());
    let (mut parts, body) = request.into_parts();
    let files = parts.extensions.remove();
    let headers = &parts.headers;
    let storage = &api.storage;
    match (operation, route) {
        (Operation::ListRepositories, _) => lists::repositories(storage, caller, &query).await,
        (Operation::ListTags, Route::Tags(name)) => lists::tags(storage, name, &query).await,
        (Operation::ListReferrers, Route::Referrers(name, subject)) => {
            lists::referrers(storage, name, subject, &query).await
        }
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
            manifests::pull(storage, name, reference, headers).await
        }
        (Operation::PushManifest, Route::Manifest(name, reference)) => {
            manifests::push(storage, name, reference, &query, headers, body).await
        }
        (Operation::DeleteManifest, Route::Manifest(name, reference)) => {
            manifests::delete(storage, name, reference).await
        }
        (Operation::StartUpload, Route::Uploads(name)) => {
            uploads::start(storage, caller, name, &query, headers, body).await
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
