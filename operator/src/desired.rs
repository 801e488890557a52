//! The objects that a Registry asks for, as pure functions of the Registry and what else is known.

pub(crate) mod access;
pub(crate) mod network;
pub(crate) mod storage;
pub(crate) mod workload;
