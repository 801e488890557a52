//! The objects that a Registry asks for, as pure functions of the Registry and what else is known.

pub(crate) mod access;
pub(crate) mod network;
pub(crate) mod policy;
pub(crate) mod storage;
pub(crate) mod told;
pub(crate) mod workload;
