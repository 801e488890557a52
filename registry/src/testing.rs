//! What only tests and benchmarks need, and no released binary has: registries over a bucket in memory, any number of
//! them in one process, and decisions without a server.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::mpsc;

mod decisions;

pub use self::decisions::Decisions;
pub use crate::storage::objects::strict::{Failing, Strict};
use crate::{
    Config, Error,
    serve::serve_until,
    storage::{
        Storage,
        objects::{Clock, Objects},
    },
};

/// Serves what is in a bucket until `ends` says why not longer; `listening` hears of each listener's address.
pub async fn serve_on(
    bucket: Strict,
    config: Config,
    ends: mpsc::Receiver<&'static str>,
    listening: impl Fn(&'static str, SocketAddr) + Send + Sync,
) -> Result<(), Error> {
    let storage = Storage::over(Objects::open(Arc::new(bucket), Clock::System), config.limits);
    serve_until(config, storage, ends, listening).await
}
