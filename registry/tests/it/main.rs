//! The registry as its clients see it: the real binary, over the network, on a folder of its own.
//!
//! Names that begin with a number, such as `p07`, say which point of "What a strict registry gets right" they hold.
#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod access;
mod blobs;
mod client;
mod connections;
mod crash;
mod disconnects;
mod drain;
mod feed;
mod full;
mod guests;
mod half_open;
mod image;
mod immutable;
mod kubernetes;
mod layout;
mod limits;
mod lists;
mod maintenance;
mod managed;
mod manifests;
mod pki;
mod policy_file;
mod programs;
mod protocol;
mod purge;
mod quota;
mod sending;
mod server;
mod service_accounts;
mod sparse;
mod standalone;
mod state;
mod tokens;
mod uploads;
mod usage;
mod wire;
