//! What the demo and the end-to-end tests share: a cluster, namespaces that come and go, images made of this
//! machine's files, and standard clients (`kubectl`, `skopeo`) that push and pull from outside the cluster.
//!
//! Everything waits on conditions that it names; what it waited for in vain, and what it saw instead, is in the error.

pub mod account;
#[cfg(test)]
mod cited;
pub mod cluster;
pub mod command;
pub mod dump;
pub mod forward;
pub mod http;
pub mod image;
pub mod namespace;
pub mod node;
pub mod operator;
pub mod outside;
pub mod owned;
pub mod pair;
pub mod pod;
pub mod registry;
pub mod remote;
pub mod replication;
pub mod repository;
pub mod tiny;
pub mod told;
pub mod wait;

pub use anyhow::{Context, Error, Result, bail, ensure};
pub use cluster::Space;
pub use namespace::{with_namespace, with_patience, with_whole_cluster};
