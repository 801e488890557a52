//! Delivery against an API server in memory.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use channel::policy::{Role, SecretHash};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{
    reflector::{self, store::Writer},
    watcher::Event,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    copies::Keeper,
    refusals::Refusals,
    watched::{Change, NamespaceMeta},
    *,
};
use crate::{
    desired::told::Told,
    heard::Heard,
    names::MANAGER,
    testing::{self, fake_api::FakeApi},
};

mod accounts;
mod cas;
mod namespaces;
mod passwords;
mod rotation;
mod watches;

const OWN: &str = "/api/v1/namespaces/apps/secrets/pull";
const OTHER: &str = "/api/v1/namespaces/shop/secrets/pull";
const CA: &str = "/api/v1/namespaces/shop/configmaps/berth-ca.apps.demo";

/// Namespaces `apps`, where the Repository is, and `shop`, which accepts its Secrets.
struct World {
    api: FakeApi,
    context: Context,
    repository: Repository,
    now: Timestamp,
    secrets: Keeper,
    config_maps: Writer<ConfigMap>,
    namespaces: Writer<NamespaceMeta>,
    service_accounts: Writer<ServiceAccount>,
}

impl World {
    /// With these pull Secrets.
    fn new(pull_secrets: &Value) -> Self {
        let api = FakeApi::default();
        let (a, (config_maps, b)) = (Keeper::default(), reflector::store());
        let ((namespaces, c), (service_accounts, d)) = (reflector::store(), reflector::store());
        let (copies, refusals) = (a.copies(), Refusals::default());
        let watched = Watched { copies, config_maps, namespaces, service_accounts, refusals };
        let world = Self {
            context: Context { watched, ..testing::context(&api) },
            repository: repository(pull_secrets),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            secrets: a,
            config_maps: b,
            namespaces: c,
            service_accounts: d,
            api,
        };
        world.namespace("apps", &json!({}));
        world.namespace("shop", &json!({"berth.dev/accept-secrets-from": "apps", "team": "blue"}));
        world
    }

    fn namespace(&self, name: &str, labels: &Value) {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.api.put(&format!("/api/v1/namespaces/{name}"), object);
    }

    /// Lets the watches tell everything.
    fn watch(&mut self) {
        let paths = self.api.paths();
        let objects = |kind: &str| {
            let of_kind = |path: &&String| path.trim_start_matches("/api/v1/namespaces/").contains(kind);
            let is_namespace = |path: &&String| path.split('/').count() == 5;
            let paths =
                paths.iter().filter(|path| if kind.is_empty() { is_namespace(path) } else { of_kind(path) });
            paths.map(|path| self.api.get(path).unwrap()).collect::<Vec<_>>()
        };
        let ours = |objects: Vec<Value>, label: &str| {
            let is_ours = |object: &Value| object["metadata"]["labels"][label].is_string();
            objects.into_iter().filter(is_ours).collect::<Vec<_>>()
        };
        let copies = ours(objects("/secrets/"), "berth.dev/repository");
        let cas = ours(objects("/configmaps/"), "berth.dev/registry-name");
        let (namespaces, accounts) = (objects(""), objects("/serviceaccounts/"));
        fill(copies, |event| {
            self.secrets.take(event);
        });
        fill(cas, |event| self.config_maps.apply_watcher_event(event));
        fill(namespaces, |event| self.namespaces.apply_watcher_event(event));
        fill(accounts, |event| self.service_accounts.apply_watcher_event(event));
    }

    /// With what the watches told last.
    async fn deliver_blindly(&self) -> Delivered {
        deliver(&self.context, &self.repository, &testing::registry("demo"), self.now).await.unwrap()
    }

    async fn deliver(&mut self) -> Delivered {
        self.watch();
        let delivered = self.deliver_blindly().await;
        assert!(delivered.failed.is_none(), "{:?}", delivered.failed);
        self.watch();
        delivered
    }

    async fn withdraw(&mut self) {
        self.watch();
        withdraw(&self.context, &self.repository).await.unwrap();
        self.watch();
    }

    /// Lets every replica decide by what the watches told last, and tells of it.
    fn enforce(&mut self) {
        self.watch();
        let told = Arc::new(Told::of(&self.repository, &self.logins()));
        self.context.enforced.learn(&testing::registry("demo"), [(told.path().to_owned(), told)].into_iter());
    }

    /// Rotates, as far as it goes where replicas answer.
    async fn deliver_and_enforce(&mut self) -> Delivered {
        self.deliver().await;
        self.enforce();
        self.deliver().await
    }

    /// Whether every replica lets this password in.
    fn is_known(&self, password: &str) -> bool {
        let hash = SecretHash::of(password.as_bytes());
        let heard = self.context.enforced.of(&testing::registry("demo"), &self.repository.path());
        let Heard::This(told) = heard else { return false };
        self.logins().iter().any(|delivered| told.opens(&delivered.login.username, &hash))
    }

    fn logins(&self) -> Logins {
        let key = self.context.secrets.keys.of(&testing::registry("demo"));
        self.context.watched.logins(&self.repository, &key, self.now).unwrap()
    }

    /// Whether this password opens a login now.
    fn opens(&self, password: &str) -> bool {
        let hash = SecretHash::of(password.as_bytes());
        self.logins().iter().any(|delivered| delivered.login.secrets.contains(&hash))
    }

    fn auths(&self, path: &str) -> Value {
        let config = self.api.get(path).unwrap()["data"][".dockerconfigjson"].as_str().unwrap().to_owned();
        let config: Value = serde_json::from_slice(&BASE64_STANDARD.decode(config).unwrap()).unwrap();
        config["auths"].clone()
    }

    fn password(&self, path: &str) -> String {
        let auths = self.auths(path);
        let entry = auths.as_object().unwrap().values().next().unwrap();
        entry["password"].as_str().unwrap().to_owned()
    }

    fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.api.get(path).unwrap();
        edit(&mut object);
        self.api.put(path, object);
    }

    fn rotate(&mut self, demand: &str) {
        self.repository.annotations_mut().insert("berth.dev/rotate".into(), demand.into());
    }

    /// A password that is announced.
    fn announced(&self, path: &str) -> Option<String> {
        let next = self.api.get(path).unwrap()["data"]["next-password"].as_str().map(ToOwned::to_owned)?;
        Some(String::from_utf8(BASE64_STANDARD.decode(next).unwrap()).unwrap())
    }

    /// An operator that remembers nothing.
    fn restart(&mut self) {
        let former = std::mem::replace(&mut self.context, testing::context(&self.api));
        (self.context.watched, self.context.secrets) = (former.watched, former.secrets);
        self.watch();
    }

    fn later(&mut self, hours: u64) {
        self.now += Duration::from_hours(hours);
    }
}

fn repository(pull_secrets: &Value) -> Repository {
    serde_json::from_value(json!({
        "metadata": {"name": "app", "namespace": "apps", "uid": "uid-of-app"},
        "spec": {"registryRef": {"name": "demo"}, "pullSecrets": pull_secrets},
    }))
    .unwrap()
}

/// In `apps` and `shop`.
fn both() -> Value {
    json!([{"name": "pull", "namespaces": {"names": ["apps", "shop"]}}])
}

fn fill<K: DeserializeOwned>(objects: Vec<Value>, mut take: impl FnMut(&Event<K>)) {
    take(&Event::Init);
    for object in objects {
        take(&Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    take(&Event::InitDone);
}
