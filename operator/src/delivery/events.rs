//! What a watch tells, and what of it is kept and passed on.

use futures::{Stream, StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;

use super::{refusals::Refusals, watched::Change};

/// Bytes of the largest Secret or CA that may be one of ours.
const LARGEST_COPY: usize = 64 << 10;

/// Leaves what may be a copy.
pub(super) fn trim_copy(copy: &mut Secret) {
    copy.metadata.managed_fields = None;
    // Anybody can set the labels of a copy.
    let size: usize = copy.data.iter().flatten().map(|(_, value)| value.0.len()).sum();
    if size > LARGEST_COPY {
        copy.data = None;
    }
}

/// Leaves what may be a CA.
pub(super) fn trim_ca(ca: &mut ConfigMap) {
    ca.metadata.managed_fields = None;
    ca.binary_data = None;
    ca.data.iter_mut().flatten().for_each(|(_, value)| value.truncate(LARGEST_COPY));
}

/// Of which copy something is told.
pub(super) fn metadata_of(secret: Secret) -> PartialObjectMeta<Secret> {
    PartialObjectMeta { metadata: secret.metadata, ..PartialObjectMeta::default() }
}

/// What a watch tells; that it may not watch is noted.
pub(super) fn events<K>(
    client: &Client,
    config: watcher::Config,
    refusals: &Refusals,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let refusals = refusals.clone();
    let events = watcher::watcher(Api::<K>::all(client.clone()), config).default_backoff();
    events.inspect(move |event| match event {
        // It is about to ask.
        Ok(Event::Init) => {}
        Ok(_) => refusals.note(&K::plural(&()), None),
        Err(error) => {
            refusals.note(&K::plural(&()), Some(error));
            tracing::warn!(%error, kind = %K::kind(&()), "failed to watch");
        }
    })
}

/// Lets `keep` take each event in, which tells whether it matters to anybody, and then names what changed.
pub(super) fn changes<K: Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    mut keep: impl FnMut(&Event<K>) -> bool + Send + 'static,
    name: impl Fn(K) -> Change + Send + 'static,
) -> BoxStream<'static, Change> {
    let mut change = move |event: Result<Event<K>, watcher::Error>| {
        let event = event.ok()?;
        let matters = keep(&event);
        match event {
            Event::Apply(object) | Event::Delete(object) => matters.then(|| name(object)),
            Event::InitDone => Some(Change::Anything),
            Event::Init | Event::InitApply(_) => None,
        }
    };
    events.filter_map(move |event| std::future::ready(change(event))).boxed()
}
