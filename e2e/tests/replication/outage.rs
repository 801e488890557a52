//! A target that is away: others get what is pushed, it is reported, and it catches up alone when it is back.

use std::time::Instant;

use crds::replication::TargetStatus;
use e2e::{
    Result, Space, ensure, image, operator, pair,
    registry::{self, Who},
    remote::Remote,
    replication, wait, with_namespace,
};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use serde_json::json;

use super::FROM_NONE;

const TARGETS: [&str; 3] = ["there", "beside", "away"];

#[tokio::test]
async fn a_target_that_is_away_holds_up_no_other_and_catches_up_alone() {
    with_namespace("outage", async |space| {
        pair::all(space, &TARGETS, "Writer").await?;
        let here = Remote::open(space, "here", Who::Admin).await?;
        let mut spec = pair::between(&json!({"type": "OnPush"}), "Ignore");
        spec["targets"] =
            TARGETS.iter().map(|name| json!({"name": name, "registryRef": {"name": name}})).collect();
        replication::apply(space, "pair", &spec).await?;
        replication::ready(space, "pair").await?;
        registry::change(space, "away", json!({"replicas": 0})).await?;
        wait::gone(&space.api::<Pod>(), "away-0").await?;

        let image = image::build("outage", &[1000])?;
        here.push(&image, "team/app:1").await?;
        let pushed = Instant::now();
        for name in ["there", "beside"] {
            let other = Remote::open(space, name, Who::Admin).await?;
            pair::arrived(&other, "1", &image.digest).await?;
        }
        let took = pushed.elapsed();
        eprintln!("the others had it after {took:.1?}");
        ensure!(took < FROM_NONE, "the others had it after {took:.1?}");

        let failing = away(space, "the outage to be told", |target| {
            let behind = target.behind_since.is_some() && target.lag_seconds.is_some_and(|lag| lag > 0);
            target.reason.as_deref() == Some("TargetUnreachable") && behind
        })
        .await?;
        ensure!(failing.message.is_some(), "nothing is said: {failing:?}");
        away(space, "it to be tried again and again", |target| target.failed_runs >= 3).await?;
        for metric in ["lag_seconds", "failures_total"] {
            ensure!(measured(space, metric).await? > 0, "nothing is measured as {metric}");
        }

        registry::change(space, "away", json!({"replicas": 1})).await?;
        registry::ready(space, "away").await?;
        let back = Instant::now();
        let away = Remote::open(space, "away", Who::Admin).await?;
        pair::arrived(&away, "1", &image.digest).await?;
        eprintln!("what was pushed during an outage arrived {:.1?} after it", back.elapsed());
        let ready = replication::ready(space, "pair").await?;
        let others = ready.status.map(|status| status.targets).unwrap_or_default();
        let mut others = others.into_iter().filter(|target| target.name != "away");
        ensure!(others.all(|target| target.runs <= 2), "the others had runs of their own because of it");
        once(space, "Warning", "").await?;
        once(space, "Normal", "is well again").await
    })
    .await;
}

async fn away(space: &Space, what: &str, holds: impl Fn(&TargetStatus) -> bool) -> Result<TargetStatus> {
    replication::target_named(space, "pair", "away", what, holds).await
}

/// What a metric of all operators says of the target, or what they say together.
async fn measured(space: &Space, metric: &str) -> Result<u64> {
    let series = operator::counter(space, &format!("berth_operator_replication_{metric}")).await?;
    let labels = [format!("namespace=\"{}\"", space.namespace), "target=\"away\"".to_owned()];
    let of_target = |(series, _): &(&String, &u64)| labels.iter().all(|label| series.contains(label));
    Ok(series.iter().filter(of_target).map(|(_, value)| value).sum())
}

/// Fails unless there is one Event of this kind, of the target that was away, and it was published once.
async fn once(space: &Space, type_: &str, text: &str) -> Result<()> {
    let of_pair = format!("involvedObject.kind=Replication,involvedObject.name=pair,type={type_}");
    let events = space.api::<Event>().list(&ListParams::default().fields(&of_pair)).await?.items;
    let message = |event: &Event| event.message.clone().unwrap_or_default();
    let found: Vec<_> = events.iter().filter(|event| message(event).contains(text)).collect();
    let said: Vec<_> = found.iter().map(|event| message(event)).collect();
    ensure!(found.len() == 1 && said[0].starts_with("target away"), "{type_} Events are {said:?}");
    ensure!(found[0].series.is_none(), "it was published again: {:?}", found[0].series);
    Ok(())
}
