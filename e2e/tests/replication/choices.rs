//! Versions that are chosen, tags that point elsewhere at the target, and a Replication that is suspended.

use crds::replication::Phase;
use e2e::{ensure, pair, replication, tiny, with_namespace};
use serde_json::json;

#[tokio::test]
async fn versions_conflicts_and_suspension_are_as_asked_for() {
    with_namespace("choices", async |space| {
        let (here, there) = pair::two(space, "Writer").await?;
        let theirs = tiny::push(there.http(), pair::APP, "1.1.0", "theirs").await?;
        let mut ours = Vec::new();
        for tag in ["0.9.0", "1.0.0", "1.1.0", "2.0.0", "latest"] {
            ours.push(tiny::push(here.http(), pair::APP, tag, tag).await?);
        }
        let mut spec = pair::between(&json!({"type": "Manual"}), "Ignore");
        spec["filters"]["tags"] = json!({"semver": ">=1.0, <2"});
        spec["conflicts"] = json!("Keep");
        spec["suspend"] = json!(true);
        replication::apply(space, "some", &spec).await?;
        replication::begin(space, "some", "while-suspended").await?;
        let message = replication::not_ready(space, "some", "Suspended").await?;
        ensure!(message.contains("suspend"), "it says: {message}");
        let suspended =
            replication::target(space, "some", "to be suspended", |it| it.phase == Phase::Suspended).await?;
        assert_eq!((suspended.runs, suspended.job), (0, None));

        spec["suspend"] = json!(false);
        replication::apply(space, "some", &spec).await?;
        pair::arrived(&there, "1.0.0", &ours[1]).await?;
        replication::ready(space, "some").await?;
        for tag in ["0.9.0", "2.0.0", "latest"] {
            assert_eq!(pair::digest_of(&there, pair::APP, tag).await?, None, "{tag}");
        }
        assert_eq!(pair::digest_of(&there, pair::APP, "1.1.0").await?.as_ref(), Some(&theirs));

        spec["conflicts"] = json!("Fail");
        replication::apply(space, "some", &spec).await?;
        replication::begin(space, "some", "with-fail").await?;
        replication::not_ready(space, "some", "ImagesFailed").await?;
        let failing =
            replication::target(space, "some", "the failure to be named", |it| !it.failures.is_empty())
                .await?;
        let [failure] = &failing.failures[..] else { panic!("what failed is {:?}", failing.failures) };
        assert_eq!(failure.image, format!("{}:1.1.0", pair::APP));
        ensure!(failure.reason.contains("elsewhere"), "it says: {}", failure.reason);
        assert_eq!(pair::digest_of(&there, pair::APP, "1.1.0").await?, Some(theirs));

        spec["conflicts"] = json!("Overwrite");
        replication::apply(space, "some", &spec).await?;
        replication::begin(space, "some", "with-overwrite").await?;
        pair::arrived(&there, "1.1.0", &ours[2]).await?;
        replication::ready(space, "some").await?;
        Ok(())
    })
    .await;
}
