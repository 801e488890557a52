//! Watches of an API server in memory: of a kind in all namespaces, whatever their selectors.

use bytes::Bytes;
use futures::{StreamExt as _, channel::mpsc};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::Answer;

/// What happened, and who wants to know.
#[derive(Default)]
pub(super) struct Watches {
    /// Collection and event, in the order of resource versions, which begin with 1.
    log: Vec<(String, Bytes)>,
    /// Collection and who watches it.
    watching: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
}

impl Watches {
    /// The newest resource version.
    pub(super) fn version(&self) -> usize {
        self.log.len() + 1
    }

    /// Something happened to the object at this path.
    pub(super) fn tell(&mut self, path: &str, type_: &str, object: &Value) {
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = json!((self.version() + 1).to_string());
        let event = Bytes::from(format!("{}\n", json!({"type": type_, "object": object})));
        let collection = collection(path);
        self.watching
            .retain(|(watched, to)| *watched != collection || to.unbounded_send(event.clone()).is_ok());
        self.log.push((collection, event));
    }

    /// All that happened since the version that the query names, and all that will.
    pub(super) fn begin(&mut self, collection: &str, query: &str) -> Answer {
        let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let since: usize = since.and_then(|version| version.parse().ok()).unwrap_or(1);
        let (to, events) = mpsc::unbounded();
        for (_, event) in self.log.iter().skip(since - 1).filter(|(changed, _)| changed == collection) {
            to.unbounded_send(event.clone()).unwrap();
        }
        self.watching.push((collection.to_owned(), to));
        let events = events.map(Ok::<_, std::convert::Infallible>);
        axum::body::Body::from_stream(events).map_err(Into::into).boxed_unsync()
    }
}

/// Group and version, and what comes after.
fn split(path: &str) -> (String, Vec<&str>) {
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let group = if parts[0] == "api" { 2 } else { 3 };
    (parts[..group].join("/"), parts[group..].to_vec())
}

/// Whether objects of a kind are at this path, of one namespace or of all.
pub(super) fn is_collection(path: &str) -> bool {
    matches!(split(path).1[..], [_] | ["namespaces", _, _])
}

/// Where the object at this path is listed with those of all namespaces.
pub(super) fn collection(path: &str) -> String {
    match split(path) {
        (group, rest) if matches!(rest[..], ["namespaces", _, _, _]) => format!("/{group}/{}", rest[2]),
        (group, rest) => format!("/{group}/{}", rest[0]),
    }
}
