//! What is copied, and that nothing is copied twice.

use oci::manifest::{DOCKER_IMAGE, DOCKER_LIST, INDEX};
use serde_json::{Value, json};

use crate::{
    client::Client,
    image::{descriptor, image, noise, sha256},
    proxy::Asked,
    world::World,
};

/// Everything that may lie in a registry.
pub(crate) async fn fill(client: &Client) {
    let amd = client.push_noise("team/app", None, 1, None).await;
    let mut arm = client.push_noise("team/app", None, 2, None).await;
    arm["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let inner = client.push_index("team/app", None, INDEX, &[arm]).await;
    let index = client.push_index("team/app", Some("v1"), INDEX, &[amd.clone(), inner]).await;
    let signature = client.push_noise("team/app", None, 3, Some(&index)).await;
    client.push_noise("team/app", None, 4, Some(&signature)).await;
    client.push_noise("team/app", None, 5, Some(&amd)).await;
    client.push_noise("team/app", Some("plain"), 6, None).await;
    // The same content in another repository.
    client.push_noise("other", Some("copy"), 6, None).await;
    docker(client).await;
    artifact(client).await;
    build_cache(client).await;
    // An empty layer, and one that is elsewhere.
    client.push_blob("odd", "").await;
    client.push_blob("odd", "{}").await;
    let mut odd = image(b"{}", &[b""]);
    let mut foreign =
        descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", b"never pushed");
    foreign["urls"] = json!(["https://elsewhere.example/layer"]);
    odd["layers"].as_array_mut().unwrap().push(foreign);
    client.put_manifest("odd", "foreign", &odd).await.expect(http::StatusCode::CREATED);
}

async fn docker(client: &Client) {
    let (config, layer) = ("{\"docker\":1}", noise(7, 5000));
    client.push_blob("docker", config).await;
    client.push_blob("docker", layer.clone()).await;
    let document = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_IMAGE,
        "config": descriptor("application/vnd.docker.container.image.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer)],
    });
    let digest = sha256(document.to_string().as_bytes()).to_string();
    client.put_manifest("docker", &digest, &document).await.expect(http::StatusCode::CREATED);
    let child = descriptor(DOCKER_IMAGE, document.to_string().as_bytes());
    client.push_index("docker", Some("latest"), DOCKER_LIST, &[child]).await;
}

/// As oras pushes one.
async fn artifact(client: &Client) {
    client.push_blob("artifacts", "{}").await;
    client.push_blob("artifacts", "a chart").await;
    let mut document = image(b"{}", &[b"a chart"]);
    document["artifactType"] = json!("application/vnd.example.chart");
    document["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
    document["layers"][0]["mediaType"] = json!("application/vnd.example.chart.content");
    client.put_manifest("artifacts", "chart", &document).await.expect(http::StatusCode::CREATED);
}

/// As `BuildKit` pushes one: an index of plain blobs.
async fn build_cache(client: &Client) {
    let (config, layer) = ("{\"layers\":[]}", noise(8, 5000));
    client.push_blob("artifacts", config).await;
    client.push_blob("artifacts", layer.clone()).await;
    let blobs = [
        descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer),
        descriptor("application/vnd.buildkit.cacheconfig.v0", config.as_bytes()),
    ];
    client.push_index("artifacts", Some("cache"), INDEX, &blobs).await;
}

pub(crate) const ALL: [&str; 5] = ["team/app", "other", "docker", "odd", "artifacts"];
/// Tags in all of them.
pub(crate) const TAGS: u64 = 7;

fn writes(asked: &[Asked]) -> Vec<String> {
    let writes = asked.iter().filter(|asked| !matches!(asked.method.as_str(), "GET" | "HEAD"));
    writes.map(|asked| format!("{} {}", asked.method, asked.path)).collect()
}

#[tokio::test]
async fn everything_arrives_as_it_was_and_nothing_is_sent_twice() {
    let world = World::new().await;
    fill(&world.source.client()).await;
    let ran = world.copy().await;
    world.is_equal(&ALL).await;
    assert_eq!((ran.progress.total, ran.progress.done, ran.progress.skipped), (TAGS, TAGS, 0));
    let first = world.to.take();
    let puts: Vec<_> = first.iter().filter(|asked| asked.kind() == "PUT upload").collect();
    let mut digests: Vec<_> = puts.iter().map(|put| put.path.split("digest=").nth(1).unwrap()).collect();
    digests.sort_unstable();
    let all = digests.len();
    digests.dedup();
    assert_eq!(digests.len(), all, "what both repositories have is sent once, and mounted");
    assert!(first.iter().any(|asked| asked.path.contains("mount=sha256:")));
    world.from.take();

    let again = world.copy().await;
    assert_eq!((again.progress.done, again.progress.skipped, again.progress.bytes_moved), (0, TAGS, 0));
    assert_eq!(writes(&world.to.take()), Vec::<String>::new());
    let heads = world.from.take().into_iter().filter(|asked| asked.kind() == "HEAD manifest").count();
    assert_eq!(heads as u64, TAGS, "one for each tag");
    assert!(again.progress.equal_at.is_some() && again.progress.failures.is_empty());
}

#[tokio::test]
async fn the_tag_comes_last() {
    let world = World::new().await;
    fill(&world.source.client()).await;
    world.copy().await;
    let asked = world.to.take();
    let put = |end: &str| {
        let found = asked.iter().position(|asked| asked.method == "PUT" && asked.path.ends_with(end));
        found.unwrap_or_else(|| panic!("nobody put {end}"))
    };
    let tag = put("team/app/manifests/v1");
    let in_repository = |asked: &Asked| asked.path.contains("/team/app/") && asked.method == "PUT";
    // All blobs and manifests but those of the other tag.
    let before =
        asked[..tag].iter().filter(|asked| in_repository(asked) && asked.path.contains("manifests/sha256:"));
    assert_eq!(before.count(), 6, "children, signatures and what refers to those are there before");
}

#[tokio::test]
async fn referrers_that_come_later_are_found() {
    let world = World::new().await;
    let client = world.source.client();
    let subject = client.push_noise("a", Some("v1"), 1, None).await;
    world.copy().await;
    client.push_noise("a", None, 2, Some(&subject)).await;
    world.copy().await;
    world.is_equal(&["a"]).await;
    let path = format!("/v2/a/referrers/{}", subject["digest"].as_str().unwrap());
    let list: Value = world.target.client().get(&path).await.json();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_tag_that_moves_while_it_is_copied_is_one_or_the_other() {
    let world = World::new().await;
    let client = world.source.client();
    client.push_noise("a", Some("v1"), 1, None).await;
    let former = client.digest_of("a", "v1").await.unwrap();
    let moving = client.clone();
    let once = std::sync::Arc::new(tokio::sync::OnceCell::new());
    world.from.hook(move |asked| {
        let (client, once, blob) = (moving.clone(), std::sync::Arc::clone(&once), asked.kind() == "GET blob");
        Box::pin(async move {
            if blob {
                once.get_or_init(async || drop(client.push_noise("a", Some("v1"), 2, None).await)).await;
            }
        })
    });
    world.copy().await;
    assert_ne!(client.digest_of("a", "v1").await.unwrap(), former);
    assert_eq!(world.target.client().digest_of("a", "v1").await, Some(former), "what it was when it began");
    world.copy().await;
    world.is_equal(&["a"]).await;
}
