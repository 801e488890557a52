//! An API server in memory, enough of one for reconciliation: get, list by labels, watch, create, server-side apply, a merge
//! under a resource version, status, delete.
//!
//! Applying merges objects and replaces lists, takes away what was applied before and is not any more, leaves the
//! manager's trace, and is refused where it names another object's UID; a Service gets an address.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};

use crate::names::MANAGER;

mod watches;

/// Whole, or as long as a watch.
type Answer = UnsyncBoxBody<bytes::Bytes, tower::BoxError>;

/// The API server; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Objects by path.
    objects: BTreeMap<String, Value>,
    watches: watches::Watches,
    /// What was applied last, by path.
    applied: BTreeMap<String, Value>,
    /// Mutating requests, as `PATCH /path`.
    writes: Vec<String>,
    /// Number of the others.
    reads: usize,
    /// How many UIDs were given.
    uids: usize,
    /// What somebody else makes the moment before it would be created here, by path.
    foreseen: BTreeMap<String, Value>,
    /// What can't be read.
    forbidden: Option<String>,
    /// Answers with 422 where the request body has this text.
    refused: Option<String>,
    /// An annotation that is taken away from whatever is applied.
    stripped: Option<String>,
}

impl FakeApi {
    pub(crate) fn client(&self) -> kube::Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move { this.answer(request).await }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().put(path, object);
    }

    pub(crate) fn remove(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().remove(path)
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Mutating requests since the last call.
    pub(crate) fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }

    /// Number of requests that change nothing, since the last call.
    pub(crate) fn take_reads(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().reads)
    }

    /// Refuses requests whose body has this text.
    pub(crate) fn refuse(&self, text: &str) {
        self.0.lock().unwrap().refused = Some(text.into());
    }

    /// Answers with 403 where this is read.
    pub(crate) fn forbid(&self, path: Option<&str>) {
        self.0.lock().unwrap().forbidden = path.map(ToOwned::to_owned);
    }

    /// Takes this annotation away from whatever is applied, as a mutating webhook does.
    pub(crate) fn strip(&self, annotation: Option<&str>) {
        self.0.lock().unwrap().stripped = annotation.map(ToOwned::to_owned);
    }

    /// Somebody else makes this the moment before it would be created.
    pub(crate) fn forestall(&self, path: &str, object: Value) {
        self.0.lock().unwrap().foreseen.insert(path.into(), object);
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Answer>, tower::BoxError> {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        if query.contains("watch=true") {
            return Ok(Response::new(self.0.lock().unwrap().watches.begin(parts.uri.path(), query)));
        }
        let body = body.collect().await?.to_bytes();
        let (status, value) = self.0.lock().unwrap().handle(&parts.method, parts.uri.path(), query, &body);
        let body = Body::from(serde_json::to_vec(&value)?).map_err(Into::into).boxed_unsync();
        Ok(Response::builder().status(status).body(body)?)
    }
}

impl State {
    fn handle(&mut self, method: &Method, path: &str, query: &str, body: &[u8]) -> (StatusCode, Value) {
        if method != Method::GET {
            self.writes.push(format!("{method} {path}"));
            let text = String::from_utf8_lossy(body);
            if self.refused.as_ref().is_some_and(|refused| text.contains(refused)) {
                return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
            }
        }
        self.reads += usize::from(method == Method::GET);
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match *method {
            Method::GET => self.read(path, query),
            Method::PATCH if body.is_array() => {
                // Only finalizers are patched this way; without its last one a deleted object goes.
                (StatusCode::OK, self.remove(path).unwrap_or_default())
            }
            Method::PATCH if body["metadata"]["resourceVersion"].is_string() => self.merge(path, body),
            Method::PATCH => match path.strip_suffix("/status") {
                Some(object) => self.apply(object, &json!({"status": body["status"]})),
                None => self.apply(path, &body),
            },
            Method::DELETE => (StatusCode::OK, self.remove(path).unwrap_or_default()),
            _ => self.create(path, body),
        }
    }

    /// Secrets; Events are only counted.
    fn create(&mut self, collection: &str, mut object: Value) -> (StatusCode, Value) {
        let Some(name) = object["metadata"]["name"].as_str().filter(|_| collection.ends_with("/secrets"))
        else {
            return (StatusCode::CREATED, object);
        };
        let path = format!("{collection}/{name}");
        if let Some(theirs) = self.foreseen.remove(&path) {
            self.put(&path, theirs);
        }
        if self.objects.contains_key(&path) {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        self.uids += 1;
        object["metadata"]["uid"] = json!(format!("uid-{}", self.uids));
        object["metadata"]["managedFields"] = json!([{"manager": MANAGER, "operation": "Update"}]);
        self.put(&path, object.clone());
        (StatusCode::CREATED, object)
    }

    fn read(&self, path: &str, query: &str) -> (StatusCode, Value) {
        if self.forbidden.as_deref() == Some(path) {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        if let Some(object) = self.objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        if !watches::is_collection(path) {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        }
        let listed = self.objects.iter().filter(|(at, object)| is_in(path, at) && selects(query, object));
        let mut listed = listed.map(|(_, object)| object).skip(number(query, "continue").unwrap_or(0));
        let items: Vec<_> = listed.by_ref().take(number(query, "limit").unwrap_or(usize::MAX)).collect();
        let seen = number(query, "continue").unwrap_or(0) + items.len();
        let token = listed.next().map(|_| seen.to_string());
        let version = self.watches.version().to_string();
        (StatusCode::OK, json!({"metadata": {"resourceVersion": version, "continue": token}, "items": items}))
    }

    /// Only service accounts are patched this way.
    fn merge(&mut self, path: &str, mut change: Value) -> (StatusCode, Value) {
        let Some(mut object) = self.objects.get(path).cloned() else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        let version = &mut change["metadata"]["resourceVersion"];
        if *version != object["metadata"]["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        *version = json!(format!("{}+", version.as_str().unwrap_or_default()));
        merge(&mut object, &change);
        self.put(path, object.clone());
        (StatusCode::OK, object)
    }

    fn apply(&mut self, path: &str, desired: &Value) -> (StatusCode, Value) {
        let mut object = self.objects.get(path).cloned().unwrap_or_else(|| json!({}));
        let uid = &desired["metadata"]["uid"];
        match &object["metadata"]["uid"] {
            _ if uid.is_null() => {}
            Value::Null => return failure(StatusCode::CONFLICT, "Conflict"),
            there if there != uid => return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            _ => {}
        }
        if let Some(former) = self.applied.insert(path.to_owned(), desired.clone()) {
            prune(&mut object, &former, desired);
        }
        merge(&mut object, desired);
        object["metadata"]["managedFields"] = json!([{"manager": MANAGER, "operation": "Apply"}]);
        if path.contains("/services/") && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = json!("10.96.0.77");
        }
        let annotations = object["metadata"]["annotations"].as_object_mut();
        if let Some((annotations, stripped)) = annotations.zip(self.stripped.as_ref()) {
            annotations.remove(stripped);
        }
        self.put(path, object.clone());
        (StatusCode::OK, object)
    }

    fn put(&mut self, path: &str, object: Value) {
        self.watches.tell(path, "MODIFIED", &object);
        self.objects.insert(path.into(), object);
    }

    fn remove(&mut self, path: &str) -> Option<Value> {
        let object = self.objects.remove(path)?;
        self.applied.remove(path);
        self.watches.tell(path, "DELETED", &object);
        Some(object)
    }
}

/// Whether the object at this path is in that collection, of one namespace or of all.
fn is_in(collection: &str, object: &str) -> bool {
    let Some((parent, _)) = object.rsplit_once('/') else { return false };
    let (Some((prefix, plural)), Some((of, kind))) = (collection.rsplit_once('/'), parent.rsplit_once('/'))
    else {
        return false;
    };
    parent == collection
        || (plural == kind && of.strip_prefix(prefix).is_some_and(|of| of.starts_with("/namespaces/")))
}

/// The number that a query gives; tokens to continue from are numbers of objects.
fn number(query: &str, name: &str) -> Option<usize> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name)?.1.parse().ok()
}

/// Labels that must be there, or have a value.
fn selects(query: &str, object: &Value) -> bool {
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector="));
    let selector = selector.unwrap_or_default().replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
    let labels = &object["metadata"]["labels"];
    selector.split(',').filter(|label| !label.is_empty()).all(|label| match label.split_once('=') {
        Some((name, value)) => labels[name] == value,
        None => labels[label].is_string(),
    })
}

/// Takes away what `former` has and `desired` has not.
fn prune(object: &mut Value, former: &Value, desired: &Value) {
    let (Some(object), Some(former)) = (object.as_object_mut(), former.as_object()) else { return };
    for (name, former) in former {
        match desired.get(name) {
            Some(desired) => prune(object.entry(name.clone()).or_insert(Value::Null), former, desired),
            None => drop(object.remove(name)),
        }
    }
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    into.remove(name);
                    continue;
                }
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn failure(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let code = status.as_u16();
    (
        status,
        json!({"kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code}),
    )
}
