//! What only tests need, and no released binary has: registries over a bucket in memory, any number of them in one
//! process.

use std::{net::SocketAddr, sync::Arc};

pub use crate::storage::objects::strict::{Failing, Strict};
use crate::{
    Config, Error,
    serve::serve_until,
    storage::{
        Storage,
        objects::{Clock, Objects},
    },
};

/// Serves what is in a bucket until `end` says why not longer; `listening` hears of each listener's address.
pub async fn serve_on(
    bucket: Strict,
    config: Config,
    end: impl Future<Output = &'static str> + Send,
    listening: impl Fn(&'static str, SocketAddr) + Send + Sync,
) -> Result<(), Error> {
    let storage = Storage::over(Objects::open(Arc::new(bucket), Clock::System), config.limits);
    serve_until(config, storage, end, listening).await
}
