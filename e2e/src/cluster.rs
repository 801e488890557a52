//! The cluster under test and a namespace in it.
//!
//! `BERTH_CONTEXT` names the context of the kubeconfig; without it, it is that of the kind cluster of `e2e/cluster`.

use anyhow::{Context as _, Result};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Config, Resource,
    config::KubeConfigOptions,
    core::{ApiResource, DynamicObject},
};

/// Where the operator and node access live.
pub const OPERATOR_NAMESPACE: &str = "berth-system";
/// Field manager of what tests and the demo apply.
pub const MANAGER: &str = "berth-e2e";

/// The context of the cluster under test.
#[must_use]
pub fn context() -> String {
    std::env::var("BERTH_CONTEXT").unwrap_or_else(|_| "kind-berth".into())
}

/// A namespace of the cluster under test, and the way to it.
#[derive(Clone)]
pub struct Space {
    /// Speaks to the API server.
    pub client: Client,
    /// The context, for programs such as `kubectl`.
    pub context: String,
    /// The namespace; it need not exist.
    pub namespace: String,
}

impl Space {
    /// The namespace of this name in the cluster under test.
    pub async fn named(namespace: &str) -> Result<Self> {
        let context = context();
        let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        let config = Config::from_kubeconfig(&options).await.with_context(|| {
            format!("no way to context {context}: `make cluster` makes one, or set BERTH_CONTEXT")
        })?;
        let client = Client::try_from(config)?;
        Ok(Self { client, context, namespace: namespace.into() })
    }

    /// Another namespace of the same cluster.
    #[must_use]
    pub fn beside(&self, namespace: &str) -> Self {
        Self { namespace: namespace.into(), ..self.clone() }
    }

    /// The objects of this kind in the namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType: Default>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The objects of a kind that is known only at run time.
    #[must_use]
    pub fn dynamic(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, resource)
    }
}
