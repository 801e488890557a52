//! Runs when told so: nothing without the right to read; what is deleted stays where that was not asked for.

use e2e::{ensure, image, pair, replication, repository, with_namespace};
use http::{Method, StatusCode};
use serde_json::json;

#[tokio::test]
async fn a_run_by_hand_needs_the_right_and_keeps_what_was_deleted() {
    with_namespace("by_hand", async |space| {
        let (here, there) = pair::two(space, "Writer").await?;
        let image = image::build("by-hand", &[1000])?;
        here.push(&image, "team/app:1").await?;
        let nothing = json!({"spec": {"access": []}});
        repository::change(space, "here", &nothing).await?;
        repository::condition(space, "here", "Ready", "True").await?;
        replication::apply(space, "once", &pair::between(&json!({"type": "Manual"}), "Ignore")).await?;
        replication::begin(space, "once", "without-right").await?;
        let message = replication::not_ready(space, "once", "SourceUnauthorized").await?;
        ensure!(message.contains("mover") && message.contains("Reader"), "it says: {message}");
        let answer = there.http().send(Method::GET, "/v2/team/app/manifests/1", "").await?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);

        let right = json!({"spec": {"access": [{"serviceAccount": {"name": "mover"}, "role": "Reader"}]}});
        repository::change(space, "here", &right).await?;
        repository::condition(space, "here", "Ready", "True").await?;
        replication::begin(space, "once", "with-right").await?;
        pair::arrived(&there, "1", &image.digest).await?;
        replication::ready(space, "once").await?;

        let gone = here.http().send(Method::DELETE, "/v2/team/app/manifests/1", "").await?;
        assert_eq!(gone.status, StatusCode::ACCEPTED);
        let before =
            replication::target(space, "once", "nothing to run", |target| target.job.is_none()).await?;
        replication::begin(space, "once", "after-deletion").await?;
        replication::target(space, "once", "another run to end", |target| {
            target.job.is_none() && target.runs > before.runs
        })
        .await?;
        pair::arrived(&there, "1", &image.digest).await?;
        Ok(())
    })
    .await;
}
