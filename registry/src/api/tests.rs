//! Changes that wait for their turn, and what a client sees of a disk that fails at any step of a push: a sentence and
//! 5xx for that alone, nothing torn, and all that was acknowledged stays.

use http::Request;
use oci::{Algorithm, Digest, ErrorList, manifest};
use rstest::rstest;
use rustix::io::Errno;

use super::*;
use crate::access::Rules;

mod anything;

struct Registry {
    root: tempfile::TempDir,
    api: Arc<Api>,
}

impl Registry {
    fn new() -> Self {
        Self::with(Changes::default())
    }

    fn under(policy: &channel::policy::Policy) -> Self {
        let access = Access::without_policy(b"key").unwrap();
        access.install(Rules::new(policy).unwrap());
        Self::made(access, Changes::default())
    }

    fn with(changes: Changes) -> Self {
        Self::made(Access::Open, changes)
    }

    fn made(access: Access, changes: Changes) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let storage = Storage::open(root.path(), crate::storage::Limits::default()).unwrap();
        let metrics = Arc::new(Metrics::new());
        Self {
            root,
            api: Arc::new(Api {
                access,
                storage,
                metrics,
                changes,
                followers: Followers::at_most(1, tokio_util::sync::CancellationToken::new()),
                forms: Forms::default(),
                tls: false,
            }),
        }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::CONTENT_TYPE, manifest::IMAGE).body(body.into()).unwrap();
        let (parts, body) = self.answer(request).await.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        (parts.status, body.to_vec())
    }

    async fn answer(&self, request: Request<Body>) -> Response {
        let peer = Extension(SocketAddr::from(([127, 0, 0, 1], 1)));
        handle(State(Arc::clone(&self.api)), peer, request).await
    }

    async fn is_there(&self, path: &str) -> bool {
        self.send(Method::GET, path, "").await.0 == StatusCode::OK
    }
}

#[tokio::test]
async fn p37_changes_wait_for_each_other_and_reading_does_not() {
    use futures::FutureExt as _;
    let registry = Registry::with(Changes::at_once(1, 0));
    let (sender, chunks) = futures::channel::mpsc::unbounded::<Result<&'static str, &'static str>>();
    let upload = |content| format!("/v2/a/blobs/uploads/?digest={}", sha256(content));
    let (slow, waiting) = (upload("slow"), upload("waiting"));
    let mut slow = Box::pin(registry.send(Method::POST, &slow, Body::from_stream(chunks)));
    assert!((&mut slow).now_or_never().is_none(), "it has begun");
    for content in ["abandoned", "too"] {
        let path = upload(content);
        let gone = registry.send(Method::POST, &path, content).now_or_never();
        assert!(gone.is_none(), "its client has gone");
    }
    let mut waiting = Box::pin(registry.send(Method::POST, &waiting, "waiting"));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(registry.send(Method::GET, "/v2/", "").await.0, StatusCode::OK);
    sender.unbounded_send(Ok("slow")).unwrap();
    drop(sender);
    assert_eq!(slow.await.0, StatusCode::CREATED);
    assert_eq!(waiting.await.0, StatusCode::CREATED);
    for content in ["abandoned", "too"] {
        assert!(!registry.is_there(&format!("/v2/a/blobs/{}", sha256(content))).await);
    }
}

#[tokio::test]
async fn only_so_many_wait_for_the_feed_and_who_does_not_wait_is_answered() {
    use futures::FutureExt as _;
    let registry = Registry::new();
    let (_, body) = registry.send(Method::GET, "/v2/_berth/replication/feed", "").await;
    let page: channel::feed::FeedPage = serde_json::from_slice(&body).unwrap();
    let feed = format!("/v2/_berth/replication/feed?after={}", page.cursor);
    let wait = format!("{feed}&wait=60");
    let mut waiting = Box::pin(registry.send(Method::GET, &wait, ""));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(registry.send(Method::GET, &wait, "").await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(registry.send(Method::GET, &feed, "").await.0, StatusCode::OK);
    drop(waiting);
    assert!(registry.send(Method::GET, &wait, "").now_or_never().is_none(), "its place is free again");
}

#[tokio::test(start_paused = true)]
async fn p37_a_change_that_has_waited_long_should_come_back_later() {
    let registry = Registry::with(Changes::at_once(0, 0));
    let (status, body) = registry.send(Method::POST, "/v2/a/blobs/uploads/", "").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(String::from_utf8_lossy(&body).contains("try again"));
}

#[tokio::test]
async fn p37_manifests_wait_for_memory_and_who_sends_nothing_has_none() {
    use futures::FutureExt as _;
    // As much as one may have is enough for one manifest.
    let registry = Registry::with(Changes::at_once(10, 128));
    let (sender, chunks) = futures::channel::mpsc::unbounded::<Result<&'static str, &'static str>>();
    // How long it is, is not said.
    let body = Body::from_stream(chunks);
    let mut slow = Box::pin(registry.send(Method::PUT, "/v2/a/manifests/v1", body));
    assert!((&mut slow).now_or_never().is_none());
    assert_eq!(registry.send(Method::PUT, "/v2/a/manifests/v2", "{}").await.0, StatusCode::BAD_REQUEST);
    sender.unbounded_send(Ok("{")).unwrap();
    while registry.api.changes.memory_left() == 128 {
        assert!((&mut slow).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let mut waiting = Box::pin(registry.send(Method::PUT, "/v2/a/manifests/v2", "{}"));
    for _ in 0..100 {
        assert!((&mut waiting).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(sender);
    assert_eq!(slow.await.0, StatusCode::BAD_REQUEST);
    assert_eq!(waiting.await.0, StatusCode::BAD_REQUEST, "it was read");
}

#[tokio::test(start_paused = true)]
async fn p37_forms_wait_for_memory_before_anybody_has_logged_in() {
    let registry = Registry::new();
    let _all = registry.api.forms.take_all().await;
    let (status, _) = registry.send(Method::POST, "/token", "scope=").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn p37_who_hardly_sends_anything_is_given_up_and_what_came_stays() {
    let registry = Registry::new();
    let location = start(&registry).await;
    // A byte now and then, for ever.
    let trickle = futures::stream::unfold((), |()| async {
        tokio::time::sleep(std::time::Duration::from_secs(11)).await;
        Some((Ok::<_, &'static str>("x"), ()))
    });
    let (status, _) = registry.send(Method::PATCH, &location, Body::from_stream(trickle)).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    let done = format!("{location}?digest={}", sha256("xxxxx"));
    assert_eq!(registry.send(Method::PUT, &done, "").await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn p10_a_session_that_is_cancelled_while_it_receives_is_unknown() {
    use futures::FutureExt as _;
    let registry = Registry::new();
    let location = start(&registry).await;
    let (sender, chunks) = futures::channel::mpsc::unbounded::<Result<&'static str, &'static str>>();
    let mut receiving = Box::pin(registry.send(Method::PATCH, &location, Body::from_stream(chunks)));
    sender.unbounded_send(Ok("content")).unwrap();
    for _ in 0..100 {
        assert!((&mut receiving).now_or_never().is_none());
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(registry.send(Method::DELETE, &location, "").await.0, StatusCode::NO_CONTENT);
    drop(sender);
    let (status, body) = receiving.await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let errors: ErrorList = serde_json::from_slice(&body).unwrap();
    assert_eq!(errors.errors[0].code, oci::ErrorCode::BlobUploadUnknown);
}

#[tokio::test]
async fn p34_what_no_disk_could_hold_is_the_clients_mistake() {
    let registry = Registry::new();
    for length in [u64::MAX, 1 << 60] {
        let location = start(&registry).await;
        let request = Request::patch(&location).header(header::CONTENT_LENGTH, length);
        let response = registry.answer(request.body(Body::from("x")).unwrap()).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}

/// Where a new session is.
async fn start(registry: &Registry) -> String {
    let request = Request::post("/v2/a/blobs/uploads/").body(Body::empty()).unwrap();
    let response = registry.answer(request).await;
    response.headers()[header::LOCATION].to_str().unwrap().to_owned()
}

fn sha256(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

/// The requests of a push with the path under which each one's content is afterwards.
fn push() -> Vec<(Method, String, String, String)> {
    let (config, layer) = ("{}".to_owned(), "layer".to_owned());
    let image = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"a/b","digest":"{}","size":2}},
            "layers":[{{"mediaType":"a/b","digest":"{}","size":5}}]}}"#,
        sha256(&config),
        sha256(&layer)
    );
    let blob = |content: String| {
        let digest = sha256(&content);
        let upload = format!("/v2/a/blobs/uploads/?digest={digest}");
        (Method::POST, upload, content, format!("/v2/a/blobs/{digest}"))
    };
    let tagged = "/v2/a/manifests/v1".to_owned();
    vec![blob(config), blob(layer), (Method::PUT, tagged.clone(), image, tagged)]
}

#[rstest]
#[case::full(Errno::NOSPC, StatusCode::INSUFFICIENT_STORAGE, "storage is full")]
#[case::broken(Errno::IO, StatusCode::INTERNAL_SERVER_ERROR, "the registry failed; its log says why")]
#[case::read_only(Errno::ROFS, StatusCode::INTERNAL_SERVER_ERROR, "the registry failed; its log says why")]
#[tokio::test]
async fn p34_a_client_of_a_failing_disk_gets_a_sentence_and_can_try_again(
    #[case] errno: Errno,
    #[case] status: StatusCode,
    #[case] sentence: &str,
    #[values(1, usize::MAX)] count: usize,
) {
    let mut failed = 0;
    for step in 1.. {
        let registry = Registry::new();
        let faults = registry.api.storage.faults();
        faults.plan(step, count, errno);
        let mut acknowledged = Vec::new();
        for (method, path, content, place) in push() {
            let (answered, body) = registry.send(method, &path, content).await;
            if answered == StatusCode::CREATED {
                acknowledged.push(place);
                continue;
            }
            failed += 1;
            assert_eq!(answered, status, "step {step}: {}", String::from_utf8_lossy(&body));
            let errors: ErrorList = serde_json::from_slice(&body).unwrap();
            assert!(errors.errors[0].message.contains(sentence), "{errors:?}");
            break;
        }
        for place in &acknowledged {
            assert!(registry.is_there(place).await, "{place} was acknowledged, step {step}");
        }
        let steps = faults.heal();
        for (method, path, content, place) in push() {
            assert_eq!(registry.send(method, &path, content).await.0, StatusCode::CREATED);
            assert!(registry.is_there(&place).await);
        }
        if steps < step {
            break;
        }
    }
    assert!(failed > 20, "a push has more steps than the {failed} that failed it");
}
