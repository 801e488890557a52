//! The operator under test: its pods and metrics.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cluster::{OPERATOR_NAMESPACE, Space},
    pod, wait,
};

/// The operator's Deployment.
pub const DEPLOYMENT: &str = "berth-operator";

/// The container in its pods.
const CONTAINER: &str = "operator";

/// The operator's namespace.
#[must_use]
pub fn space(space: &Space) -> Space {
    space.beside(OPERATOR_NAMESPACE)
}

/// The pods of the operator that are not on their way out.
pub async fn pods(space: &Space) -> Result<Vec<Pod>> {
    let space = self::space(space);
    let deployment: Deployment = space.api::<Deployment>().get(DEPLOYMENT).await?;
    let selector = deployment
        .spec
        .and_then(|spec| spec.selector.match_labels)
        .context("the operator has no selector")?;
    let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods = space.api::<Pod>().list(&ListParams::default().labels(&selector.join(","))).await?;
    Ok(pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}

/// Deletes all pods of the operator and waits until all of the new ones are ready.
pub async fn restart(space: &Space) -> Result<()> {
    let api: Api<Pod> = self::space(space).api();
    let former = pods(space).await?;
    for pod in &former {
        api.delete(&pod.name_any(), &DeleteParams::default()).await?;
    }
    for pod in &former {
        wait::gone(&api, &pod.name_any()).await?;
    }
    let deployments: Api<Deployment> = self::space(space).api();
    wait::until(&deployments, DEPLOYMENT, "the operator to be ready again", |deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        status.ready_replicas == wanted && status.observed_generation == deployment.metadata.generation
    })
    .await
    .map(drop)
}

/// Takes the operator away (0) or brings it back (1), and waits until that is so.
pub async fn scale(space: &Space, replicas: i32) -> Result<()> {
    let deployments: Api<Deployment> = self::space(space).api();
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments.patch(DEPLOYMENT, &PatchParams::default(), &patch).await?;
    let what = format!("{replicas} pods of the operator to be ready and no other to be there");
    wait::until(&deployments, DEPLOYMENT, &what, |deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let observed = status.observed_generation == deployment.metadata.generation;
        observed && status.replicas.unwrap_or(0) == replicas && status.ready_replicas.unwrap_or(0) == replicas
    })
    .await
    .map(drop)
}

/// Sets an environment variable of the operator, or takes it away, and waits until no pod is without the change.
pub async fn configure(space: &Space, variable: &str, value: Option<&str>) -> Result<()> {
    let deployments: Api<Deployment> = self::space(space).api();
    let variable = match value {
        Some(value) => json!({"name": variable, "value": value}),
        None => json!({"name": variable, "$patch": "delete"}),
    };
    let container = json!({"name": CONTAINER, "env": [variable]});
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    deployments.patch(DEPLOYMENT, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    wait::until(&deployments, DEPLOYMENT, "all pods of the operator to be new and ready", |deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let observed = status.observed_generation == deployment.metadata.generation;
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        let all = [status.replicas, status.updated_replicas, status.ready_replicas];
        observed && all.iter().all(|replicas| *replicas == wanted)
    })
    .await
    .map(drop)
}

/// A counter's series and their values, over all pods of the operator.
pub async fn counter(space: &Space, name: &str) -> Result<BTreeMap<String, u64>> {
    let mut series = BTreeMap::new();
    for pod in pods(space).await? {
        let text = pod::metrics(&self::space(space), &pod.name_any()).await?;
        for (labels, value) in counted(&text, name) {
            *series.entry(labels.to_owned()).or_default() += value;
        }
    }
    Ok(series)
}

fn counted<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
    let rest = text.lines().filter_map(move |line| line.strip_prefix(name));
    let series = rest.filter(|rest| rest.starts_with([' ', '{']));
    series.filter_map(|rest| {
        rest.rsplit_once(' ').and_then(|(labels, value)| Some((labels, value.parse().ok()?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read() {
        let text = "# TYPE x counter\nx_total{kind=\"A\",n=\"1\"} 2\nx_total{kind=\"B\"} 3\nx_total_more{kind=\"A\"} 9\n";
        let read: Vec<_> = counted(text, "x_total").collect();
        assert_eq!(read, [("{kind=\"A\",n=\"1\"}", 2), ("{kind=\"B\"}", 3)]);
        assert_eq!(counted("y_total 4\n", "y_total").collect::<Vec<_>>(), [("", 4)]);
    }
}
