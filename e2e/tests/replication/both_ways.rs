//! Two Registries that replicate each other: what is pushed, moved or deleted at either end is so at both, and what came
//! from the other end is not sent back.

use e2e::{
    Result, ensure, pair,
    remote::Remote,
    replication::{self, target},
    tiny, wait, with_namespace,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const OUT: &str = "out";
const BACK: &str = "back";

#[tokio::test]
async fn both_ends_become_the_same_and_nothing_is_sent_back() {
    with_namespace("both_ways", async |space| {
        let (here, there) = pair::two(space, "Admin").await?;
        pair::grant(space, "here", "here", pair::APP, Some("Admin")).await?;
        let one = push(&here, "one").await?;
        let two = push(&there, "two").await?;
        for (name, from, to) in [(OUT, "here", "there"), (BACK, "there", "here")] {
            replication::apply(space, name, &to_each_other(from, to)).await?;
        }
        pair::arrived(&there, "one", &one).await?;
        pair::arrived(&here, "two", &two).await?;

        // Deleted where it came to, moved where it came to.
        let path = |tag| format!("/v2/{}/manifests/{tag}", pair::APP);
        for (end, tag) in [(&there, "one"), (&here, "two")] {
            let gone = end.http().send(Method::DELETE, &path(tag), "").await?;
            ensure!(gone.status == StatusCode::ACCEPTED, "{tag} is deleted with {}", gone.status);
        }
        for end in [&here, &there] {
            end.http().answered(&path("one"), StatusCode::NOT_FOUND).await?;
            end.http().answered(&path("two"), StatusCode::NOT_FOUND).await?;
        }
        // At both at once: the later one stays, whichever that was.
        let (ours, theirs) = tokio::join!(push_as(&here, "both", "ours"), push_as(&there, "both", "theirs"));
        let pushed = [ours?, theirs?];
        wait::poll("both ends to have the same", async || {
            let (ours, theirs) = (
                pair::digest_of(&here, pair::APP, "both").await?,
                pair::digest_of(&there, pair::APP, "both").await?,
            );
            ensure!(ours == theirs, "one end has {ours:?}, the other {theirs:?}");
            ensure!(ours.is_some_and(|digest| pushed.contains(&digest)), "neither of what was pushed");
            Ok(())
        })
        .await?;

        // At rest, one push begins one run, though it is news at the other end as well.
        let at_rest =
            |name| target(space, name, "its run to end", |target| target.job.is_none() && target.runs > 0);
        let [out, back] = [at_rest(OUT).await?, at_rest(BACK).await?];
        let last = push(&here, "last").await?;
        pair::arrived(&there, "last", &last).await?;
        target(space, OUT, "the run to end", |target| target.job.is_none() && target.runs > out.runs).await?;
        let now = target(space, BACK, "its state", |_| true).await?;
        assert_eq!((now.runs, now.job), (back.runs, None), "what came from there went back");
        Ok(())
    })
    .await;
}

fn to_each_other(from: &str, to: &str) -> Value {
    let mut spec = pair::between(&json!({"type": "OnPush"}), "Propagate");
    spec["source"] = json!({"registryRef": {"name": from}});
    spec["targets"] = json!([{"name": to, "registryRef": {"name": to}}]);
    spec
}

async fn push(end: &Remote, tag: &str) -> Result<String> {
    push_as(end, tag, tag).await
}

async fn push_as(end: &Remote, tag: &str, content: &str) -> Result<String> {
    tiny::push(end.http(), pair::APP, tag, content).await
}
