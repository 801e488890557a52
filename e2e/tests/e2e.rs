//! End-to-end tests against a real cluster with the operator deployed: a module a feature, a namespace a test.
//!
//! Run them with `make e2e`, or one of them with `cargo test -p e2e --test e2e -- <name>`.

#![expect(clippy::print_stderr, reason = "times that were measured are shown with --nocapture")]

mod access;
mod deletion;
mod fallback;
mod identities;
mod invalid;
mod kubectl;
mod mistakes;
mod nodes;
mod owned_objects;
mod pull;
mod push;
mod replication;
mod repositories;
mod restart;
mod scale;
mod secrets;
mod subjects;
mod tenants;
mod two;
