//! The node access `DaemonSet` and its certificate, both in the operator's namespace and gone with its Deployment.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, RollingUpdateDaemonSet},
        core::v1::{
            Container, EnvVar, EnvVarSource, HostPathVolumeSource, ObjectFieldSelector, PodSecurityContext,
            PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext, Toleration,
            Volume,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};
use kube::{Api, Resource as _};

use super::{CHANNEL_NAME, Failure};
use crate::{
    certificate,
    config::Run,
    context::Context,
    desired::workload::{CHANNEL_PORT, hardened, mount, port, probe, secret_volume},
    names::MANAGER,
};

/// Name of the `DaemonSet`, its Secret and its `ServiceAccount`.
pub(super) const NAME: &str = "berth-node-access";
/// The certs folder in the container.
const CERTS_MOUNT: &str = "/host/certs.d";

/// Selects the pods.
pub(super) fn labels() -> BTreeMap<String, String> {
    [("app.kubernetes.io/name".to_owned(), NAME.to_owned())].into()
}

/// Brings the `DaemonSet` and its certificate about.
pub(super) async fn ensure(context: &Context) -> Result<DaemonSet, Failure> {
    let namespace = &context.config.namespace;
    let metadata = metadata(context).await?;
    let observed = context.applier.get(namespace, NAME).await?;
    let secret = certificate::desired(
        observed.as_ref(),
        metadata.clone(),
        &[CHANNEL_NAME.to_owned()],
        &context.secrets.channel,
        &context.secrets.keys.of_operator(),
        Timestamp::now(),
    )?;
    context.applier.ensure_from(observed, secret).await?;
    Ok(context.applier.ensure(desired(&context.config, metadata)).await?)
}

/// With the operator's Deployment as owner: whoever uninstalls the operator has the nodes cleaned as well.
async fn metadata(context: &Context) -> Result<ObjectMeta, kube::Error> {
    let namespace = &context.config.namespace;
    let operator =
        Api::<Deployment>::namespaced(context.applier.client.clone(), namespace).get_opt(MANAGER).await?;
    let mut labels = labels();
    labels.insert("app.kubernetes.io/managed-by".into(), MANAGER.into());
    Ok(ObjectMeta {
        name: Some(NAME.into()),
        namespace: Some(namespace.clone()),
        labels: Some(labels),
        owner_references: operator.and_then(|operator| operator.owner_ref(&())).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    })
}

fn desired(config: &Run, metadata: ObjectMeta) -> DaemonSet {
    DaemonSet {
        spec: Some(DaemonSetSpec {
            selector: LabelSelector { match_labels: Some(labels()), ..LabelSelector::default() },
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_unavailable: Some(IntOrString::String("10%".into())),
                    ..RollingUpdateDaemonSet::default()
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: metadata.labels.clone(), ..ObjectMeta::default() }),
                spec: Some(pod(config)),
            },
            ..DaemonSetSpec::default()
        }),
        metadata,
        ..DaemonSet::default()
    }
}

fn pod(config: &Run) -> PodSpec {
    PodSpec {
        containers: vec![container(config)],
        service_account_name: Some(NAME.into()),
        enable_service_links: Some(false),
        priority_class_name: Some("system-node-critical".into()),
        node_selector: Some(config.node_selector.iter().cloned().collect()),
        // Every node pulls images, whatever its taints keep away.
        tolerations: Some(vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }]),
        security_context: Some(PodSecurityContext {
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        volumes: Some(vec![
            secret_volume("channel", NAME.into()),
            Volume {
                name: "certs".into(),
                host_path: Some(HostPathVolumeSource {
                    path: config.certs_dir.clone(),
                    type_: Some("DirectoryOrCreate".into()),
                }),
                ..Volume::default()
            },
        ]),
        ..PodSpec::default()
    }
}

fn container(config: &Run) -> Container {
    Container {
        name: "node-access".into(),
        image: Some(config.operator_image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(vec!["node-access".into()]),
        env: Some(vec![
            field("BERTH_NODE", "spec.nodeName"),
            field("BERTH_NAMESPACE", "metadata.namespace"),
            field("BERTH_POD", "metadata.name"),
            field("BERTH_POD_UID", "metadata.uid"),
            value("BERTH_DEPLOYMENT", MANAGER),
            value("BERTH_CERTS_DIR", &config.certs_dir),
            value("BERTH_CERTS_MOUNT", CERTS_MOUNT),
        ]),
        ports: Some(vec![port("health", 8081), port("channel", CHANNEL_PORT.into())]),
        readiness_probe: Some(k8s_openapi::api::core::v1::Probe {
            period_seconds: Some(5),
            ..probe("/readyz")
        }),
        liveness_probe: Some(k8s_openapi::api::core::v1::Probe {
            failure_threshold: Some(6),
            ..probe("/healthz")
        }),
        resources: Some(ResourceRequirements {
            requests: Some(quantities(&[("cpu", "5m"), ("memory", "16Mi")])),
            limits: Some(quantities(&[("memory", "64Mi")])),
            ..ResourceRequirements::default()
        }),
        // The certs folder is root's; the capabilities that make root strong are not needed.
        security_context: Some(SecurityContext { run_as_user: Some(0), run_as_group: Some(0), ..hardened() }),
        volume_mounts: Some(vec![
            mount("certs", CERTS_MOUNT, false),
            mount("channel", "/etc/berth/channel", true),
        ]),
        ..Container::default()
    }
}

fn quantities(of: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    of.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect()
}

fn value(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.into(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
