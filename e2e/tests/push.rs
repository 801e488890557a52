//! A registry's pod dies during a push: the client's retry succeeds, and what was acknowledged is there and intact.

use std::{process::Stdio, sync::Mutex};

use e2e::{
    Context as _, Result, Space, bail, ensure, image,
    image::Image,
    pod,
    registry::{self, Who},
    remote::Remote,
    with_namespace,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    sync::Notify,
};

#[tokio::test]
async fn a_push_survives_the_death_of_the_pod() {
    with_namespace("push_survives", async |space| {
        registry::running(space, &registry::small("demo")).await?;
        let serving = pod::serving(space, "demo", None).await?;

        let small: Vec<Image> = (0..3)
            .map(|number| image::build(&format!("small {number}"), &[300_000, 2000]))
            .collect::<Result<_>>()?;
        let remote = Remote::open(space, "demo", Who::Admin).await?;
        for (number, image) in small.iter().enumerate() {
            remote.push(image, &format!("small:{number}")).await?;
        }
        let large = image::build("large", &[32 << 20; 6])?;

        let blobs = interrupt(space, &serving, &large).await?;
        ensure!(!blobs.is_empty(), "no blob was acknowledged before the pod died");

        pod::serving(space, "demo", Some(&serving)).await?;
        registry::ready(space, "demo").await?;
        let remote = Remote::open(space, "demo", Who::Admin).await?;
        for blob in &blobs {
            remote.http().verify_blob("blobs", blob).await?;
        }
        remote.push(&large, "large:1").await.context("the retried push")?;
        assert_eq!(remote.pull("large:1").await?, large.digest);
        for (number, image) in small.iter().enumerate() {
            assert_eq!(remote.pull(&format!("small:{number}")).await?, image.digest);
        }
        eprintln!("{} blobs were acknowledged while the pod was about to die; all are intact", blobs.len());
        Ok(())
    })
    .await;
}

/// Pushes the image with skopeo and, beside it, one blob after the other; deletes the pod without grace while both
/// are under way. Returns the blobs that were acknowledged.
async fn interrupt(space: &Space, serving: &Pod, large: &Image) -> Result<Vec<String>> {
    let (remote, beside) =
        tokio::try_join!(Remote::open(space, "demo", Who::Admin), Remote::open(space, "demo", Who::Admin))?;
    let acknowledged = Mutex::new(Vec::new());
    let enough = Notify::new();
    let blobs = async {
        for number in 0_u32.. {
            // Each is different, and large enough to be cut in the middle.
            let blob = number.to_be_bytes().repeat(50_000);
            let Ok(digest) = beside.http().push_blob("blobs", &blob).await else {
                break;
            };
            acknowledged.lock().expect("no panic while it was held").push(digest);
            if number == 5 {
                enough.notify_one();
            }
        }
    };
    let death = async {
        let mut skopeo = start(&remote, large)?;
        let mut output = BufReader::new(skopeo.stderr.take().context("skopeo has no output")?);
        let mut said = String::new();
        while !said.contains("Copying blob") && output.read_line(&mut said).await? > 0 {}
        enough.notified().await;
        // Without grace: like a node that is gone, not like a shutdown.
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        space.api::<Pod>().delete(&serving.name_any(), &now).await?;
        output.read_to_string(&mut said).await?;
        if skopeo.wait().await?.success() {
            bail!("skopeo was done before the pod died: make the image larger. It said: {said}");
        }
        Ok(())
    };
    let ((), death) = tokio::join!(blobs, death);
    death?;
    Ok(acknowledged.into_inner()?)
}

/// Starts skopeo so that what it prints, progress too, comes through one pipe.
fn start(remote: &Remote, image: &Image) -> Result<Child> {
    let script = "exec skopeo \"$@\" 1>&2";
    Command::new("sh")
        .args(["-c", script, "skopeo"])
        .args(remote.push_arguments(image, "large:1"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("failed to start skopeo")
}
