//! Threads for copying. To compare needs none, and most runs find nothing to copy: so there are some only once an image
//! is brought.

use std::{fmt, num::NonZero, sync::OnceLock, thread};

use futures::FutureExt as _;
use tokio::runtime::{Builder, Runtime};

/// As many as there are processors; none where there is only one.
#[derive(Default)]
pub(super) struct Workers(OnceLock<Option<Runtime>>);

impl Workers {
    /// Does it there. Ends with who waits for it.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        match self.0.get_or_init(start) {
            Some(runtime) => {
                let (work, done) = work.remote_handle();
                runtime.spawn(work);
                done.await
            }
            None => work.await,
        }
    }
}

fn start() -> Option<Runtime> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    if processors < 2 {
        return None;
    }
    let runtime = Builder::new_multi_thread().worker_threads(processors).enable_all().build();
    runtime.inspect_err(|error| tracing::warn!(%error, "failed to start threads, one has to do")).ok()
}

impl Drop for Workers {
    /// Without waiting, which nobody may who is asynchronous.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take().flatten() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workers")
    }
}
