//! What an operator that does not lead answers about new pods.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::{
    admission,
    controller::{Readiness, watches},
    metrics::Metrics,
    testing::world,
};

/// The Service's.
const SERVER: &str = "berth-operator.berth-system.svc";

/// What a pod of `red` gets whose container has this image, while something else happens. Nobody else listens on this
/// loopback address.
async fn patch(
    cluster: &Cluster,
    last: u8,
    image: &str,
    meanwhile: impl Future<Output = ()>,
) -> Option<String> {
    let address = SocketAddr::from(([127, 82, 70, last], 8443));
    let config = crate::config::Run { admission_listen: address, ..world::config() };
    let begun = watches::begin(cluster.api.client(), config, Metrics::default()).await;
    let (context, mut watches) = begun.unwrap();
    cluster.api.take_writes();
    let readiness = Readiness::default();
    let pod = json!({"spec": {"serviceAccountName": "web", "containers": [{"image": image}]}});
    let review = json!({"request": {"uid": "1", "namespace": "red", "object": pod}});
    let asks = async {
        while !readiness.is_set() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let request =
            http::Request::post(admission::path(&context)).header("content-type", "application/json");
        let request = request.body(http_body_util::Full::new(review.to_string().into())).unwrap();
        let trust = channel::client::anonymous(context.secrets.serving.cert()).unwrap();
        let asked = channel::client::exchange(trust, address, SERVER, request);
        tokio::join!(asked, meanwhile).0.unwrap()
    };
    let (status, body) = tokio::select! {
        answer = asks => answer,
        () = watches.keep_up() => panic!("the watches ended"),
        () = admission::run(context.clone(), readiness.clone()) => panic!("admission ended"),
    };
    assert_eq!((status.as_u16(), cluster.api.take_writes()), (200, Vec::new()));
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let patch = BASE64_STANDARD.decode(answer["response"]["patch"].as_str()?).unwrap();
    Some(String::from_utf8(patch).unwrap())
}

/// With a Repository whose pull Secret is for accounts that have a label.
fn cluster() -> Cluster {
    let cluster = Cluster::new();
    let accounts = json!({"selector": {"matchLabels": {"pulls": "yes"}}});
    let spec = json!({"pullSecrets": [{"name": "pull", "serviceAccounts": accounts}]});
    cluster.declare("red", "app", &spec);
    cluster
}

fn account(cluster: &Cluster) {
    let metadata = json!({"name": "web", "namespace": "red", "labels": {"pulls": "yes"}});
    cluster.api.put("/api/v1/namespaces/red/serviceaccounts/web", json!({"metadata": metadata}));
}

#[tokio::test]
async fn an_operator_that_waits_for_its_turn_answers_and_writes_nothing() {
    let cluster = cluster();
    account(&cluster);
    let patched = patch(&cluster, 1, "demo.apps.svc:5000/red/app:1", async {}).await;
    assert!(patched.unwrap().contains(r#"{"name":"pull"}"#));
}

#[tokio::test]
async fn an_account_of_the_same_second_is_waited_for() {
    let cluster = cluster();
    let later = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        account(&cluster);
    };
    let patched = patch(&cluster, 2, "demo.apps.svc:5000/red/app:1", later).await;
    assert!(patched.unwrap().contains(r#"{"name":"pull"}"#));
}

#[tokio::test]
async fn who_needs_nothing_of_ours_waits_for_nothing() {
    let cluster = cluster();
    let asked = std::time::Instant::now();
    for (last, image) in [(3, "other.apps.svc:5000/red/app:1"), (4, "nginx")] {
        assert_eq!(patch(&cluster, last, image, async {}).await, None);
    }
    assert!(asked.elapsed() < Duration::from_millis(900));
}
