//! The pod that serves a registry.

use std::collections::BTreeMap;

use crds::{Registry, registry::Resources};
use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy},
        core::v1::{
            Capabilities, ConfigMapProjection, Container, ContainerPort, HTTPGetAction, KeyToPath,
            PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
            ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext,
            ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt as _;

use super::storage;
use crate::names;

/// Name of the public port.
pub(crate) const HTTPS: &str = "https";
/// The public port in the container.
const HTTPS_PORT: i32 = 5000;
const HEALTH_PORT: i32 = 8081;
/// Where the operator calls.
pub(crate) const CHANNEL_PORT: u16 = 8082;
const ROOT: &str = "/var/lib/berth";
const TLS: &str = "/etc/berth/tls";
const CHANNEL: &str = "/etc/berth/channel";
/// Where programs look for what they need to speak to the API server.
const KUBERNETES: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds that the pod's token is good for; the kubelet replaces it long before.
const TOKEN_SECONDS: i64 = 3600;
/// User and group of the registry in its container.
const USER: i64 = 65532;
/// The registry finishes running transfers within its own grace time, which is shorter.
const GRACE_SECONDS: i64 = 30;

/// The account that the registry's pod runs as. Its one right is to ask whose a token is.
pub(crate) fn service_account(registry: &Registry) -> ServiceAccount {
    ServiceAccount {
        metadata: names::owned(registry, names::with_suffix(registry, "registry")),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The `StatefulSet`. Never two pods on one volume, also while a node is away: that is why it is none of the others.
pub(crate) fn stateful_set(registry: &Registry, image: &str) -> StatefulSet {
    let selector = names::pod_selector(registry);
    StatefulSet {
        metadata: names::owned(registry, registry.name_any()),
        spec: Some(StatefulSetSpec {
            replicas: Some(registry.spec.replicas),
            service_name: Some(registry.name_any()),
            // A pod that can't start does not hold up the rollout that mends it.
            pod_management_policy: Some("Parallel".into()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".into()),
                ..StatefulSetUpdateStrategy::default()
            }),
            selector: LabelSelector { match_labels: Some(selector), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(pod_metadata(registry)),
                spec: Some(pod(registry, image)),
            },
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn pod_metadata(registry: &Registry) -> ObjectMeta {
    ObjectMeta {
        labels: Some(names::labels(registry)),
        annotations: Some(registry.spec.pod_annotations.clone()),
        ..ObjectMeta::default()
    }
}

fn pod(registry: &Registry, image: &str) -> PodSpec {
    let spec = &registry.spec;
    PodSpec {
        containers: vec![container(registry, image)],
        service_account_name: Some(names::with_suffix(registry, "registry")),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        node_selector: Some(spec.node_selector.clone()),
        affinity: spec.affinity.clone(),
        tolerations: Some(spec.tolerations.clone()),
        volumes: Some(vec![
            Volume {
                name: "data".into(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: storage::claim_name(registry),
                    read_only: None,
                }),
                ..Volume::default()
            },
            secret_volume("tls", names::with_suffix(registry, "tls")),
            secret_volume("channel", names::with_suffix(registry, "channel")),
            kubernetes_volume(),
        ]),
        ..PodSpec::default()
    }
}

/// The pod's own token and the API server's CA, and nothing else that the usual mount has.
fn kubernetes_volume() -> Volume {
    let token = ServiceAccountTokenProjection {
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "token".into(),
        ..ServiceAccountTokenProjection::default()
    };
    let ca = ConfigMapProjection {
        name: "kube-root-ca.crt".into(),
        items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
        optional: None,
    };
    let sources = [
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(ca), ..VolumeProjection::default() },
    ];
    Volume {
        name: "kubernetes".into(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources.into()) }),
        ..Volume::default()
    }
}

/// A mounted Secret that only the pod's own group reads.
pub(crate) fn secret_volume(name: &str, secret: String) -> Volume {
    Volume {
        name: name.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn container(registry: &Registry, image: &str) -> Container {
    Container {
        name: "registry".into(),
        image: Some(image.into()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(arguments()),
        ports: Some(vec![
            port(HTTPS, HTTPS_PORT),
            port("health", HEALTH_PORT),
            port("channel", CHANNEL_PORT.into()),
        ]),
        readiness_probe: Some(Probe {
            period_seconds: Some(1),
            failure_threshold: Some(3),
            ..probe("/readyz")
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(6),
            ..probe("/healthz")
        }),
        resources: registry.spec.resources.clone().map(resources),
        security_context: Some(hardened()),
        volume_mounts: Some(vec![
            mount("data", ROOT, false),
            mount("tls", TLS, true),
            mount("channel", CHANNEL, true),
            mount("kubernetes", KUBERNETES, true),
        ]),
        ..Container::default()
    }
}

fn resources(of: Resources) -> ResourceRequirements {
    let Resources { requests, limits } = of;
    ResourceRequirements { requests: Some(requests), limits: Some(limits), ..ResourceRequirements::default() }
}

/// No `drain-delay-seconds`: there is one pod to a volume, and the next one starts only when it has ended.
fn arguments() -> Vec<String> {
    let channel = |file: &str| format!("{CHANNEL}/{file}");
    [
        ("root", ROOT.to_owned()),
        ("listen", format!("0.0.0.0:{HTTPS_PORT}")),
        ("tls-cert", format!("{TLS}/tls.crt")),
        ("tls-key", format!("{TLS}/tls.key")),
        ("health-listen", format!("0.0.0.0:{HEALTH_PORT}")),
        ("channel-listen", format!("0.0.0.0:{CHANNEL_PORT}")),
        ("channel-cert", channel("tls.crt")),
        ("channel-key", channel("tls.key")),
        ("channel-ca", channel("ca.crt")),
        // What a Replication with `filters.platforms` copies.
        ("allow-sparse", "copied-indexes".to_owned()),
        ("log-format", "json".to_owned()),
    ]
    .into_iter()
    .fold(vec!["serve".to_owned()], |mut arguments, (name, value)| {
        arguments.push(format!("--{name}={value}"));
        arguments
    })
    .into_iter()
    .chain(["--kubernetes".to_owned()])
    .collect()
}

/// No privileges, no way to more, and nothing to write to but volumes.
pub(crate) fn hardened() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}

pub(crate) fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: number,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

/// Asks the health port.
pub(crate) fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("health".into()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

pub(crate) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// Pods by label.
pub(crate) fn selector_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
