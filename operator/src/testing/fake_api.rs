//! An API server in memory, enough of one for reconciliation: get, list, server-side apply, status, delete.
//!
//! Applying merges objects and replaces lists, and leaves the manager's trace; a Service gets an address.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use crate::names::MANAGER;

/// The API server; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Objects by path.
    objects: BTreeMap<String, Value>,
    /// Mutating requests, as `PATCH /path`.
    writes: Vec<String>,
    /// Answers with 422 where the request body has this text.
    refused: Option<String>,
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
        self.0.lock().unwrap().objects.insert(path.into(), object);
    }

    pub(crate) fn remove(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.remove(path)
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Mutating requests since the last call.
    pub(crate) fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }

    /// Refuses requests whose body has this text.
    pub(crate) fn refuse(&self, text: &str) {
        self.0.lock().unwrap().refused = Some(text.into());
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, tower::BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let (status, value) = self.0.lock().unwrap().handle(&parts.method, parts.uri.path(), &body);
        Ok(Response::builder().status(status).body(Body::from(serde_json::to_vec(&value)?))?)
    }
}

impl State {
    fn handle(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        if method != Method::GET {
            self.writes.push(format!("{method} {path}"));
            let text = String::from_utf8_lossy(body);
            if self.refused.as_ref().is_some_and(|refused| text.contains(refused)) {
                return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
            }
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match *method {
            Method::GET => self.read(path),
            Method::PATCH if body.is_array() => {
                // Only finalizers are patched this way; without its last one a deleted object goes.
                (StatusCode::OK, self.objects.remove(path).unwrap_or_default())
            }
            Method::PATCH => match path.strip_suffix("/status") {
                Some(object) => self.apply(object, &json!({"status": body["status"]})),
                None => self.apply(path, &body),
            },
            Method::DELETE => (StatusCode::OK, self.objects.remove(path).unwrap_or_default()),
            _ => (StatusCode::CREATED, body),
        }
    }

    fn read(&self, path: &str) -> (StatusCode, Value) {
        if let Some(object) = self.objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        if path.ends_with("/pods") {
            let prefix = format!("{path}/");
            let items: Vec<_> =
                self.objects.iter().filter(|(at, _)| at.starts_with(&prefix)).map(|(_, pod)| pod).collect();
            return (StatusCode::OK, json!({"metadata": {}, "items": items}));
        }
        failure(StatusCode::NOT_FOUND, "NotFound")
    }

    fn apply(&mut self, path: &str, desired: &Value) -> (StatusCode, Value) {
        let object = self.objects.entry(path.to_owned()).or_insert_with(|| json!({}));
        merge(object, desired);
        object["metadata"]["managedFields"] = json!([{"manager": MANAGER, "operation": "Apply"}]);
        if path.contains("/services/") && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = json!("10.96.0.77");
        }
        (StatusCode::OK, object.clone())
    }
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
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
