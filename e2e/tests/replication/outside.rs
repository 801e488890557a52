//! By the clock, from a registry outside of the cluster.

use std::time::Duration;

use e2e::{
    Result, Space, account, ensure, image,
    outside::Outside,
    pair,
    registry::{self, Who},
    remote::Remote,
    replication, with_namespace,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;

/// A schedule of each minute, and a run.
const BY_CLOCK: Duration = Duration::from_secs(75);

#[tokio::test]
async fn images_are_fetched_from_outside_by_the_clock() {
    with_namespace("outside", async |space| {
        let Some(outside) = Outside::start(space).await? else {
            eprintln!("skipped: docker-registry is missing");
            return Ok(());
        };
        let image = image::build("outside", &[1000, 50_000])?;
        outside.push(&image, "library/tool:1").await?;
        registry::running(space, &registry::small("here")).await?;
        account::create(space, "mover").await?;
        pair::grant(space, "tool", "here", "team/tool", Some("Writer")).await?;
        let wrong = rcgen::generate_simple_self_signed(["elsewhere".to_owned()])?.cert.pem();
        authority(space, "wrong", &wrong).await?;
        authority(space, "right", &outside.ca).await?;
        let fetched = |ca: &str| {
            json!({
                "source": {"endpoint": {"url": outside.url(), "caSecretRef": {"name": ca}}},
                "targets": [{"name": "here", "registryRef": {"name": "here"}}],
                "serviceAccountName": "mover",
                "filters": {"repositories": ["library/tool"]},
                "destination": {"prefix": "team", "flatten": 1},
                "trigger": {"type": "Schedule", "schedule": {"cron": "* * * * *"}},
            })
        };
        replication::apply(space, "fetch", &fetched("wrong")).await?;
        replication::begin(space, "fetch", "at-once").await?;
        let message = replication::not_ready(space, "fetch", "UntrustedCertificate").await?;
        ensure!(
            message.contains("source") && message.contains("its certificate is not trusted"),
            "it says: {message}"
        );

        replication::apply(space, "fetch", &fetched("right")).await?;
        replication::ready(space, "fetch").await?;
        let here = Remote::open(space, "here", Who::Admin).await?;
        assert_eq!(here.pull("team/tool:1").await?, image.digest);

        // Nobody asks for the next run.
        let before = replication::target(space, "fetch", "it to rest", |target| target.job.is_none()).await?;
        let next = image::build("outside-next", &[1000])?;
        outside.push(&next, "library/tool:2").await?;
        let took = pair::arrived_at(&here, "team/tool", "2", &next.digest).await?;
        ensure!(took < BY_CLOCK, "what was pushed outside arrived after {took:.1?}");
        replication::target(space, "fetch", "the run to be told", |target| {
            target.job.is_none()
                && target.runs > before.runs
                && target.scheduled > before.scheduled
                && target.last_run > before.last_run
        })
        .await?;
        Ok(())
    })
    .await;
}

/// A Secret with a certificate authority.
async fn authority(space: &Space, name: &str, ca: &str) -> Result<()> {
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "stringData": {"ca.crt": ca},
    }))?;
    space.api::<Secret>().create(&PostParams::default(), &secret).await?;
    Ok(())
}
