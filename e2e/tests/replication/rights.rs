//! What the ServiceAccount of a Replication was not granted does not leave the one registry, nor reach the other.

use e2e::{Result, Space, ensure, image, pair, remote::Remote, replication, with_namespace};
use serde_json::{Value, json};

/// A repository that `mover` has no right to.
const SECRET: &str = "team/secret";

#[tokio::test]
async fn what_may_not_be_read_or_written_is_not_copied_and_is_named() {
    with_namespace("rights", async |space| {
        let (here, there) = pair::two(space, "Writer").await?;
        pair::grant(space, "secret-here", "here", SECRET, None).await?;
        pair::grant(space, "secret-there", "there", SECRET, Some("Writer")).await?;
        let image = image::build("rights", &[1000])?;
        for repository in [pair::APP, SECRET] {
            here.push(&image, &format!("{repository}:1")).await?;
        }
        once(space, "secret", &[SECRET], &json!({})).await?;
        once(space, "both", &[pair::APP, SECRET], &json!({})).await?;
        once(space, "elsewhere", &[pair::APP], &json!({"prefix": "elsewhere"})).await?;

        let message = replication::not_ready(space, "secret", "SourceUnauthorized").await?;
        ensure!(message.contains("mover") && message.contains("Reader"), "it says: {message}");
        names(space, "secret", SECRET).await?;

        pair::arrived(&there, "1", &image.digest).await?;
        replication::not_ready(space, "both", "ImagesFailed").await?;
        names(space, "both", SECRET).await?;

        let message = replication::not_ready(space, "elsewhere", "TargetUnauthorized").await?;
        ensure!(message.contains("mover") && message.contains("Writer"), "it says: {message}");
        for repository in [SECRET, "elsewhere/team/app"] {
            ensure!(is_absent(&there, repository).await?, "{repository} is there");
        }
        Ok(())
    })
    .await;
}

/// A run by hand, of these repositories.
async fn once(space: &Space, name: &str, repositories: &[&str], destination: &Value) -> Result<()> {
    let mut spec = pair::between(&json!({"type": "Manual"}), "Ignore");
    spec["filters"] = json!({"repositories": repositories});
    spec["destination"] = destination.clone();
    replication::apply(space, name, &spec).await?;
    replication::begin(space, name, "now").await
}

/// Waits until a failure names the repository.
async fn names(space: &Space, name: &str, repository: &str) -> Result<()> {
    let what = format!("a failure to name {repository}");
    replication::target(space, name, &what, |target| {
        target.failures.iter().any(|failure| failure.image.starts_with(repository))
    })
    .await
    .map(drop)
}

async fn is_absent(there: &Remote, repository: &str) -> Result<bool> {
    Ok(pair::digest_of(there, repository, "1").await?.is_none())
}
