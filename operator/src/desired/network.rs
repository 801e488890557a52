//! How a registry is reached and trusted inside the cluster.

use crds::{Registry, registry::ServiceType};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt as _;

use super::workload::HTTPS;
use crate::names;

/// The Service; a new one asks for `cluster_ip`, the former one's, so that nodes and certificates stay right.
pub(crate) fn service(registry: &Registry, cluster_ip: Option<String>) -> Service {
    let service = &registry.spec.service;
    let port = ServicePort {
        name: Some(HTTPS.into()),
        port: service.port,
        target_port: Some(IntOrString::String(HTTPS.into())),
        protocol: Some("TCP".into()),
        node_port: service.node_port,
        ..ServicePort::default()
    };
    Service {
        metadata: ObjectMeta {
            annotations: Some(service.annotations.clone()),
            ..names::owned(registry, registry.name_any())
        },
        spec: Some(ServiceSpec {
            type_: Some(
                match service.type_ {
                    ServiceType::ClusterIP => "ClusterIP",
                    ServiceType::NodePort => "NodePort",
                    ServiceType::LoadBalancer => "LoadBalancer",
                }
                .into(),
            ),
            cluster_ip,
            selector: Some(names::pod_selector(registry)),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The certificate authority, for people and CI outside the nodes.
pub(crate) fn ca(registry: &Registry, ca: &str) -> ConfigMap {
    ConfigMap {
        metadata: names::owned(registry, names::with_suffix(registry, "ca")),
        data: Some([("ca.crt".to_owned(), ca.to_owned())].into()),
        ..ConfigMap::default()
    }
}
