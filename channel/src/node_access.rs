//! What the operator tells every node, and what a node answers.
//!
//! `PUT /v1/node-access` with a [`NodeAccess`] → 200 and a [`NodeReport`] once files are written and every host was
//! probed; `GET /v1/node-access` → the latest [`NodeReport`].

use serde::{Deserialize, Serialize};

/// All registries that nodes should reach. Replaces what was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeAccess {
    /// One entry a registry, sorted by host.
    pub hosts: Vec<Host>,
}

impl NodeAccess {
    /// Names this content; 64 hexadecimal digits.
    #[must_use]
    pub fn revision(&self) -> String {
        crate::revision(self)
    }
}

/// How nodes reach one registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// As written in image references: `demo.default.svc:5000`.
    pub host: String,
    /// Where it really is: `https://10.96.0.20:5000`, the Service's `ClusterIP`.
    pub server: String,
    /// Certificates that sign the server's, PEM.
    pub ca: String,
    /// For which audience nodes get tokens with which they pull what is for every pod of the cluster, where there is such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Where the same images are, in the order in which nodes turn to them when the registry does not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<Fallback>,
}

/// How nodes reach a registry that stands in for another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fallback {
    /// `https://host:port`, of a Service's `ClusterIP` or of a registry outside of the cluster.
    pub server: String,
    /// As [`Host::ca`]; none where nodes trust it anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// As [`Host::audience`], where the registry that it stands in for has something for every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// What a node made of the last [`NodeAccess`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The node's name.
    pub node: String,
    /// [`NodeAccess::revision`] of what is written now; none after a restart, before the operator came by.
    pub revision: Option<String>,
    /// One entry a host, in the order of the [`NodeAccess`].
    pub hosts: Vec<HostReport>,
}

/// One registry as seen from one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// [`Host::host`].
    pub host: String,
    /// Whether pods of this node can pull from it.
    pub state: HostState,
    /// What is wrong and what to do, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Whether pods of a node can pull from a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostState {
    /// The files are there and a probe reached the registry, over TLS and trusted.
    Ready,
    /// The files are there, the probe failed.
    Unreachable,
    /// Somebody else's configuration for the same host is there; it was left as it is.
    Conflict,
    /// The files could not be written.
    Failed,
}
