//! Asks registries what their paths hold: one request a registry, however many Repositories there are.

use std::{collections::HashMap, sync::Arc, time::Duration};

use channel::{
    client,
    usage::{LastPush, PathUsage},
};
use crds::Registry;
use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use crate::{context::Context, controller::Guarded, names, replicas, stores::registry_ref};

/// Registries asked at once.
const CONCURRENCY: usize = 8;
/// How often registries are asked while images come and go.
const BUSY: Duration = Duration::from_secs(20);
/// How often while nothing changes.
const CALM: Duration = Duration::from_secs(80);
/// A round takes no longer, whatever hangs.
const ROUND: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read: of some ten thousands of paths.
const MOST: usize = 8 << 20;
/// A tag has no more characters, nor has a digest, whatever a peer says.
const MAX_NAME: usize = 128;

/// Asks again and again; never ends.
pub(crate) async fn run(context: Arc<Context>) {
    let mut pause = BUSY;
    loop {
        tokio::time::sleep(pause).await;
        let changed = tokio::time::timeout(ROUND, round(&context)).await.unwrap_or(true);
        pause = if changed { BUSY } else { (pause * 2).min(CALM) };
    }
}

/// Asks every Registry that has Repositories; true where something has changed.
async fn round(context: &Context) -> bool {
    let mut asked = futures::stream::iter(registries(context))
        .map(async |registry| {
            ask(context, &registry).await.is_some_and(|usage| learn(context, &registry, usage))
        })
        .buffer_unordered(CONCURRENCY);
    let mut changed = false;
    while let Some(one) = asked.next().await {
        changed |= one;
    }
    changed
}

fn registries(context: &Context) -> Vec<Registry> {
    let repositories = context.stores.repositories.state();
    let readable = repositories.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    let named: HashMap<ObjectRef<Guarded>, _> =
        readable.map(|repository| (registry_ref(repository), repository)).collect();
    let registries = named.into_values().filter_map(|repository| context.stores.registry_of(repository));
    registries.filter(|registry| registry.spec.replicas > 0).collect()
}

/// What a registry's paths hold; none where it does not say. One that is away is its Registry's news, and one that is
/// too old to know the question none at all.
async fn ask(context: &Context, registry: &Registry) -> Option<Vec<PathUsage>> {
    let pod = names::with_suffix(registry, "0");
    let pod: Pod = context.applier.get(&names::namespace(registry), &pod).await.ok()??;
    let (address, client) = (replicas::address(&pod)?, context.channel().ok()?);
    let answer = client.at_most(MOST).get(address, &names::channel(registry), "/v1/usage").await;
    let (namespace, name) = (names::namespace(registry), registry.name_any());
    match answer {
        Ok(usage) => return Some(usage),
        Err(error @ (client::Error::TooLarge { .. } | client::Error::Answer { .. })) => {
            tracing::warn!(%error, namespace, name, "Repositories' tags, sizes and last pushes stay as they are");
        }
        Err(error) => tracing::debug!(%error, namespace, name, "no usage"),
    }
    None
}

/// True where something has changed.
fn learn(context: &Context, registry: &Registry, usage: Vec<PathUsage>) -> bool {
    let usage = usage.into_iter().map(|usage| (usage.path.clone(), credible(usage)));
    let paths = context.usage.learn(registry, usage);
    context.triggers.paths(&names::reference(registry), &paths);
    !paths.is_empty()
}

/// Without what no status could show.
fn credible(usage: PathUsage) -> PathUsage {
    let is_short = |text: &str| text.len() <= MAX_NAME;
    let credible = |push: &LastPush| {
        push.time.parse::<Timestamp>().is_ok()
            && is_short(&push.digest)
            && push.tag.as_deref().is_none_or(is_short)
    };
    PathUsage { last_push: usage.last_push.filter(credible), ..usage }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{self, world::World};

    const REGISTRIES: &str = "/apis/berth.dev/v1alpha1/namespaces/apps/registries";

    fn pushed(path: &str, time: &str) -> PathUsage {
        let push = LastPush { time: time.into(), tag: None, digest: "sha256:0".into() };
        PathUsage { path: path.into(), tags: 1, bytes: 1, last_push: Some(push) }
    }

    #[tokio::test]
    async fn only_registries_with_repositories_are_asked_and_each_once() {
        let mut world = World::empty();
        for name in ["demo", "unused"] {
            world.api.put(&format!("{REGISTRIES}/{name}"), json!(testing::registry(name)));
        }
        for name in ["one", "two"] {
            let path = format!("/apis/berth.dev/v1alpha1/namespaces/apps/repositories/{name}");
            world.api.put(&path, json!(testing::repository("apps", name, &json!({}))));
        }
        world.watch();
        let asked: Vec<_> = registries(&world.context).iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(asked, ["demo"]);
        assert!(!round(&world.context).await);
    }

    #[tokio::test]
    async fn a_change_is_noticed_and_what_is_no_time_left_out() {
        let world = World::empty();
        let registry = testing::registry("demo");
        let said = || vec![pushed("a", "2026-01-01T00:00:00Z"), pushed("b", "yesterday")];
        assert!(learn(&world.context, &registry, said()));
        assert!(!learn(&world.context, &registry, said()));
        let push = |path| match world.context.usage.of(&registry, path) {
            crate::heard::Heard::This(usage) => usage.last_push,
            _ => None,
        };
        assert!(push("a").is_some() && push("b").is_none());
    }
}
