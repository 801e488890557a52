//! `berth-operator`: makes registries a thing that a cluster has.
//!
//! `run` reconciles `Registry` and `Repository` resources; `node-access` runs on every node and keeps containerd's
//! configuration for the registries that the operator names.

use clap::Parser as _;

mod admission;
mod apply;
mod authority;
mod bootstrap;
mod certificate;
mod conditions;
mod config;
mod context;
mod controller;
mod delivery;
mod desired;
mod durations;
mod fallbacks;
mod health;
mod heard;
mod keys;
mod lease;
mod metrics;
mod names;
mod node_access;
mod node_agent;
mod pace;
mod people;
mod quantity;
mod reconcile;
mod replicas;
mod replication;
mod repository;
mod status;
mod stores;
mod tenancy;
#[cfg(test)]
mod testing;
mod triggers;
mod usage;

fn main() -> std::process::ExitCode {
    let command = config::Command::parse();
    tracing_subscriber::fmt().json().with_env_filter(config::log_filter()).init();
    // One provider for everything: without this, libraries would have to agree by chance.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::warn!("a crypto provider was installed before");
    }
    match start(command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "stopped");
            std::process::ExitCode::FAILURE
        }
    }
}

fn start(command: config::Command) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    match command {
        config::Command::Run(config) => runtime.block_on(controller::run(config)).map_err(Into::into),
        config::Command::NodeAccess(config) => runtime.block_on(node_agent::run(config)).map_err(Into::into),
    }
}
