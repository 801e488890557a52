//! `berth-registry`: reads the command line, sets up logging, serves; or collects, checks, or replicates.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use registry::{Cli, Command, Config, LogFormat};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = match Cli::parse().command {
        Command::Serve(args) => args,
        Command::Gc(args) => return registry::gc(args),
        Command::Check(args) => return registry::check(args),
        Command::Replicate(args) => {
            log(args.log_format);
            provide_crypto();
            return registry::replicate(*args);
        }
    };
    let config = match Config::try_from(*args) {
        Ok(config) => config,
        Err(error) => Cli::command().error(ErrorKind::ValueValidation, error).exit(),
    };
    log(config.log_format);
    provide_crypto();
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> Result<(), registry::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(registry::Error::Runtime)?.block_on(registry::serve(config))
}

/// Fails only where there is a provider already.
fn provide_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Log lines go to standard error.
fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
