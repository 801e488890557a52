//! Berth's registry: OCI Distribution 1.1 over a folder. Complete alone; a channel lets an operator say who may do
//! what.
//!
//! ```text
//!   clients ──► serve (TLS, connections) ──► api (route, decide, answer) ──► storage ──► files
//!                                             access ▲
//!   operator ──► control (mutual TLS) ───────────────┤
//!                                         kubernetes ◄┘ whose a ServiceAccount's token is
//!   kubelet, Prometheus ──► health
//! ```
//!
//! `replicate` is a client: it copies between any two registries.

mod access;
mod api;
mod config;
mod control;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod kubernetes;
mod maintenance;
mod metrics;
mod paths;
mod policy_file;
mod range;
mod replicate;
mod sendfile;
mod serve;
mod storage;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;

pub use config::{Cli, Command, Config, InvalidConfig, LogFormat, ServeArgs};
pub use maintenance::{CheckArgs, GcArgs, ScheduleArgs, check, gc};
pub use replicate::{ReplicateArgs, replicate};
pub use serve::{Error, serve};
