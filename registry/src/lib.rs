//! Berth's registry: OCI Distribution 1.1 over a folder. Complete alone; a channel lets an operator say who may do
//! what.
//!
//! ```text
//!   clients ──► serve (TLS, connections) ──► api (route, decide, answer) ──► storage ──► files
//!                                             access ▲
//!   operator ──► control (mutual TLS) ───────────────┘
//!   kubelet, Prometheus ──► health
//! ```

mod access;
mod api;
mod config;
mod control;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod maintenance;
mod metrics;
mod policy_file;
mod range;
mod sendfile;
mod serve;
mod storage;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;

pub use config::{Cli, Command, Config, InvalidConfig, LogFormat, ServeArgs};
pub use maintenance::{CheckArgs, GcArgs, ScheduleArgs, check, gc};
pub use serve::{Error, serve};
