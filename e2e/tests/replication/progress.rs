//! How far a run is can be seen while it runs.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use e2e::{ensure, image, pair, replication, with_namespace};
use serde_json::json;

/// What is told is no older.
const AGE: Duration = Duration::from_secs(5);
/// Bytes of a layer, and how many of them a run may move in a second.
const LAYER: usize = 30 << 20;
const BYTES_PER_SECOND: &str = "1Mi";

#[tokio::test]
async fn how_far_a_slow_run_is_is_told_all_the_while() {
    with_namespace("progress", async |space| {
        let (here, _) = pair::two(space, "Writer").await?;
        here.push(&image::build("progress", &[LAYER])?, "team/app:1").await?;
        let mut spec = pair::between(&json!({"type": "Manual"}), "Ignore");
        spec["limits"] = json!({"bytesPerSecond": BYTES_PER_SECOND});
        replication::apply(space, "slow", &spec).await?;
        replication::begin(space, "slow", "now").await?;

        let told = Mutex::new(Vec::<(Instant, i64)>::new());
        replication::target(space, "slow", "the run to end", |target| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let moved = target.bytes.moved;
            if moved > 0 && told.last().is_none_or(|(_, last)| *last != moved) {
                told.push((Instant::now(), moved));
            }
            target.runs == 1 && target.job.is_none()
        })
        .await?;
        let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        let longest = told.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default();
        eprintln!("how far it was was told {} times, at most {longest:.1?} apart", told.len());
        ensure!(told.len() >= 5, "how far it was was told {} times", told.len());
        ensure!(longest <= AGE, "how far it was was not told for {longest:.1?}");
        replication::ready(space, "slow").await.map(drop)
    })
    .await;
}
