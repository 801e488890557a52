//! The operator is away while something is pushed, and begins the run once it is back.

use e2e::{operator, pair, replication, tiny, with_whole_cluster};

#[tokio::test]
async fn what_was_pushed_while_the_operator_was_away_arrives() {
    with_whole_cluster("pushed_meanwhile", async |space| {
        let (here, there) = pair::two(space, "Writer").await?;
        let before = tiny::push(here.http(), pair::APP, "before", "before").await?;
        replication::apply(space, "pair", &pair::between(&serde_json::json!({"type": "OnPush"}), "Ignore"))
            .await?;
        pair::arrived(&there, "before", &before).await?;
        replication::target(space, "pair", "a run to end", |target| target.job.is_none() && target.runs > 0)
            .await?;
        operator::scale(space, 0).await?;
        let pushed = tiny::push(here.http(), pair::APP, "meanwhile", "meanwhile").await;
        operator::scale(space, 1).await?;
        pair::arrived(&there, "meanwhile", &pushed?).await?;
        replication::ready(space, "pair").await?;
        Ok(())
    })
    .await;
}
