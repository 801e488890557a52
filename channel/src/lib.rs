//! The internal channel between the operator, its registries and its nodes.
//!
//! ```text
//!   operator ──PUT /v1/policy, GET /v1/status──► berth-registry       (each replica)
//!   operator ──GET /v1/usage, DELETE /v1/repositories─► berth-registry
//!   operator ──GET /v1/feed──────────────────► berth-registry
//!   operator ──GET /v1/progress──────────────► berth-registry replicate  (each Job's pod)
//!   operator ──PUT /v1/node-access, GET ───────► node access agent    (each node)
//! ```
//!
//! Both servers listen with mutual TLS: they accept only a client certificate that the operator's channel CA
//! signed for client use, and prove by theirs which registry (or that node access) they are. This crate holds what
//! both ends share: the messages, the TLS set-up (also used by the registry's public listener), a client.

pub mod client;
pub mod feed;
pub mod node_access;
pub mod policy;
pub mod replication;
pub mod tls;
pub mod usage;

/// Names a message by its content: the same one has the same name everywhere and after every restart. 64 hexadecimal
/// digits.
fn revision(message: &impl serde::Serialize) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(serde_json::to_vec(message).unwrap_or_default()))
}
