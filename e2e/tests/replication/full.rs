//! A target that holds no more: that is said, and copying goes on once it may hold more.

use e2e::{ensure, image, pair, replication, repository, with_namespace};
use serde_json::json;

#[tokio::test]
async fn a_full_target_is_said_and_heals() {
    with_namespace("full", async |space| {
        let (here, there) = pair::two(space, "Writer").await?;
        repository::change(space, "there", &json!({"spec": {"quota": "2Mi"}})).await?;
        repository::condition(space, "there", "Ready", "True").await?;
        let (small, large) = (image::build("small", &[1000])?, image::build("large", &[4 << 20])?);
        here.push(&small, "team/app:small").await?;
        here.push(&large, "team/app:large").await?;
        replication::apply(space, "pair", &pair::between(&json!({"type": "Manual"}), "Ignore")).await?;
        replication::begin(space, "pair", "once").await?;
        let message = replication::not_ready(space, "pair", "TargetFull").await?;
        ensure!(message.contains("quota") && message.contains("room"), "it says: {message}");
        // Others arrive all the same.
        pair::arrived(&there, "small", &small.digest).await?;
        let target = replication::target(space, "pair", "the failure to be named", |target| {
            target.failures.iter().any(|failure| failure.image == "team/app:large")
        })
        .await?;
        ensure!(target.images.done == 1 && target.images.failed == 1, "the status tells {target:?}");

        // Nobody asks for another run.
        repository::change(space, "there", &json!({"spec": {"quota": "16Mi"}})).await?;
        pair::arrived(&there, "large", &large.digest).await?;
        replication::ready(space, "pair").await?;
        Ok(())
    })
    .await;
}
