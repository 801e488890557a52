//! One operator acts at a time: leadership by a Lease (`coordination.k8s.io/v1`).
//!
//! Guarantees: who holds the Lease gives up [`RENEW_DEADLINE`] after its last successful renewal, before anybody else
//! may take over; so two act at once only where a process stands still (a suspended machine) while it leads. All
//! writes name the version that they replace, so of two that take over at once one loses.
//!
//! Assumptions: each process measures durations well; clocks need not agree, because nobody compares a time that
//! another wrote. A Lease counts as expired once it has not changed for its duration as seen from here. Identities are
//! unique; a process that finds its own in the Lease (a restarted container) goes on with it.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

/// Others wait so long for a holder that says nothing any more.
const DURATION: Duration = Duration::from_secs(15);
/// The holder renews so often, and others look so often.
const INTERVAL: Duration = Duration::from_secs(5);
/// The holder gives up so long after it began its last successful renewal.
const RENEW_DEADLINE: Duration = Duration::from_secs(12);
/// After a renewal that failed.
const RETRY: Duration = Duration::from_secs(1);
/// A call to the API server takes no longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// Why leadership can't even be waited for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to use the Lease {namespace}/{name}: {source}")]
    Refused { namespace: String, name: String, source: kube::Error },
}

/// Waits until this process leads. Fails only where waiting does not help, such as without the right to use Leases.
pub(crate) async fn acquire(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
) -> Result<Leadership, Error> {
    let election = Election {
        api: Api::namespaced(client, namespace),
        name: name.to_owned(),
        identity: identity.to_owned(),
    };
    let mut watched = Watched::default();
    loop {
        let began = Instant::now();
        match election.attempt(&mut watched).await {
            Ok(Attempt::Held(lease)) => {
                tracing::info!(identity, "leads");
                let mut renewal = JoinSet::new();
                renewal.spawn(election.clone().renew(*lease, began));
                return Ok(Leadership { election, renewal });
            }
            Ok(Attempt::Wait(time)) => tokio::time::sleep(time).await,
            Err(source) if is_final(&source) => {
                return Err(Error::Refused {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    source,
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to look at the Lease, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Held while this process may act. Dropping it stops renewing; others take over when the Lease expires.
#[derive(Debug)]
pub(crate) struct Leadership {
    election: Election,
    renewal: JoinSet<()>,
}

impl Leadership {
    /// Resolves when leadership is lost: stop acting at once, which a process does best by ending.
    pub(crate) async fn lost(&mut self) {
        self.renewal.join_next().await;
    }

    /// Lets the next take over at once. Call it when nothing acts any more.
    pub(crate) async fn release(mut self) {
        self.renewal.shutdown().await;
        match self.election.clear().await {
            Ok(()) => tracing::info!("leads no longer"),
            Err(error) => tracing::warn!(%error, "failed to release the Lease"),
        }
    }
}

/// What an attempt to lead came to.
enum Attempt {
    Held(Box<Lease>),
    Wait(Duration),
}

/// One process's view of one Lease.
#[derive(Clone, Debug)]
struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
}

impl Election {
    async fn attempt(&self, watched: &mut Watched) -> Result<Attempt, kube::Error> {
        let lease = self.look().await?;
        let quiet_for = watched.quiet_for(lease.as_ref());
        if let Verdict::Wait(time) =
            judge(lease.as_ref().and_then(|lease| lease.spec.as_ref()), &self.identity, quiet_for)
        {
            return Ok(Attempt::Wait(time));
        }
        let taken = match lease {
            None => call(self.api.create(&PostParams::default(), &self.first())).await,
            Some(lease) => self.replace(taken_over(lease, &self.identity)).await,
        };
        match taken {
            // Somebody was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Wait(RETRY)),
            taken => taken.map(|lease| Attempt::Held(Box::new(lease))),
        }
    }

    /// Renews until leadership is lost. `renewed`: when the last successful renewal began.
    async fn renew(self, mut lease: Lease, mut renewed: Instant) {
        let mut next = renewed + INTERVAL;
        loop {
            tokio::time::sleep_until(next).await;
            let began = Instant::now();
            match tokio::time::timeout_at(renewed + RENEW_DEADLINE, self.renew_once(&lease)).await {
                Ok(Ok(Some(current))) => {
                    (lease, renewed, next) = (current, began, began + INTERVAL);
                    continue;
                }
                Ok(Ok(None)) => return tracing::error!("somebody else has taken the Lease"),
                Ok(Err(error)) => tracing::warn!(%error, "failed to renew the Lease"),
                Err(_) => {}
            }
            next = Instant::now() + RETRY;
            if next >= renewed + RENEW_DEADLINE {
                return tracing::error!(
                    seconds = renewed.elapsed().as_secs(),
                    "gave up the Lease, which was not renewed for too long"
                );
            }
        }
    }

    /// None when somebody else holds the Lease now.
    async fn renew_once(&self, lease: &Lease) -> Result<Option<Lease>, kube::Error> {
        let conflict = match self.replace(taken_over(lease.clone(), &self.identity)).await {
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => status,
            renewed => return renewed.map(Some),
        };
        // Someone wrote to it, perhaps we ourselves by a call whose answer was lost.
        match self.look().await? {
            Some(current) if holder(current.spec.as_ref()) == Some(&self.identity) => {
                self.replace(taken_over(current, &self.identity)).await.map(Some)
            }
            Some(_) => Ok(None),
            None => {
                tracing::warn!(reason = %conflict, "the Lease was deleted");
                call(self.api.create(&PostParams::default(), &self.first())).await.map(Some)
            }
        }
    }

    /// Names nobody as holder, where that was us.
    async fn clear(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.look().await? else {
            return Ok(());
        };
        if holder(lease.spec.as_ref()) != Some(&self.identity) {
            return Ok(());
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.replace(lease).await.map(drop)
    }

    async fn look(&self) -> Result<Option<Lease>, kube::Error> {
        call(self.api.get_opt(&self.name)).await
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, kube::Error> {
        call(self.api.replace(&self.name, &PostParams::default(), &lease)).await
    }

    fn first(&self) -> Lease {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        taken_over(Lease { metadata, spec: None }, &self.identity)
    }
}

/// When a Lease was last seen to change, by the clock of this process.
#[derive(Debug, Default)]
struct Watched {
    version: Option<String>,
    since: Option<Instant>,
}

impl Watched {
    /// How long the Lease has been as it is.
    fn quiet_for(&mut self, lease: Option<&Lease>) -> Duration {
        let version = lease.and_then(|lease| lease.metadata.resource_version.clone());
        if version != self.version || self.since.is_none() {
            *self = Self { version, since: Some(Instant::now()) };
        }
        self.since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

/// Whether the Lease may be taken.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Take,
    /// Not before it was looked at again, after this time.
    Wait(Duration),
}

/// Decides by what the Lease says and how long it has said so.
fn judge(lease: Option<&LeaseSpec>, identity: &str, quiet_for: Duration) -> Verdict {
    match holder(lease) {
        None => Verdict::Take,
        Some(holder) if holder == identity => Verdict::Take,
        Some(_) => {
            let promised = lease.and_then(|spec| spec.lease_duration_seconds);
            let promised =
                promised.and_then(|seconds| seconds.try_into().ok()).map_or(DURATION, Duration::from_secs);
            match promised.checked_sub(quiet_for) {
                None | Some(Duration::ZERO) => Verdict::Take,
                Some(rest) => Verdict::Wait(rest.min(INTERVAL)),
            }
        }
    }
}

fn holder(spec: Option<&LeaseSpec>) -> Option<&str> {
    spec?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The Lease as it is once `identity` has taken or renewed it.
fn taken_over(mut lease: Lease, identity: &str) -> Lease {
    let now = MicroTime(Timestamp::now());
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(identity) {
        spec.holder_identity = Some(identity.to_owned());
        spec.acquire_time = Some(now.clone());
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
    }
    spec.lease_duration_seconds = Some(i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX));
    spec.renew_time = Some(now);
    lease
}

/// Bounds a call to the API server.
async fn call<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
}

/// Whether the API server will say the same next time.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400..=404 | 422))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http::{Method, Request, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[rstest]
    #[case::nobody_yet(None, 0, Verdict::Take)]
    #[case::released(Some((Some(""), None)), 0, Verdict::Take)]
    #[case::never_held(Some((None, None)), 0, Verdict::Take)]
    #[case::mine_before_a_restart(Some((Some("me"), Some(15))), 0, Verdict::Take)]
    #[case::held(Some((Some("other"), Some(15))), 0, Verdict::Wait(seconds(5)))]
    #[case::held_for_a_moment_more(Some((Some("other"), Some(15))), 13, Verdict::Wait(seconds(2)))]
    #[case::expired(Some((Some("other"), Some(15))), 15, Verdict::Take)]
    #[case::the_holder_promised_longer(Some((Some("other"), Some(60))), 15, Verdict::Wait(seconds(5)))]
    #[case::no_promise(Some((Some("other"), None)), 14, Verdict::Wait(seconds(1)))]
    #[case::an_odd_promise(Some((Some("other"), Some(-1))), 14, Verdict::Wait(seconds(1)))]
    fn who_may_take_it(
        #[case] lease: Option<(Option<&str>, Option<i32>)>,
        #[case] quiet_for: u64,
        #[case] verdict: Verdict,
    ) {
        let spec = lease.map(|(holder, duration)| LeaseSpec {
            holder_identity: holder.map(Into::into),
            lease_duration_seconds: duration,
            // A clock that is far off changes nothing.
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        });
        assert_eq!(judge(spec.as_ref(), "me", seconds(quiet_for)), verdict);
    }

    /// An API server that keeps one Lease, and can be made to answer with an error.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Stored>>);

    #[derive(Default)]
    struct Stored {
        lease: Option<Lease>,
        version: u64,
        failing: Option<u16>,
    }

    impl Server {
        fn client(&self) -> Client {
            let server = self.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    let method = request.method().clone();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let (code, body) = server.answer(&method, serde_json::from_slice(&body).ok());
                    Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(body)).unwrap())
                }
            });
            Client::new(service, "default")
        }

        fn answer(&self, method: &Method, lease: Option<Lease>) -> (u16, Vec<u8>) {
            let mut stored = self.0.lock().unwrap();
            let current = stored.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
            let code = match (stored.failing, method, &lease) {
                (Some(code), ..) => code,
                (_, &Method::GET, _) if current.is_some() => 200,
                (_, &Method::POST, _) if current.is_none() => 201,
                (_, &Method::PUT, Some(lease))
                    if current.is_some() && lease.metadata.resource_version == current =>
                {
                    200
                }
                _ if current.is_none() => 404,
                _ => 409,
            };
            if code >= 300 {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "reason": if code == 404 { "NotFound" } else { "Other" }, "message": "no"});
                return (code, status.to_string().into());
            }
            if let Some(mut lease) = lease {
                stored.version += 1;
                lease.metadata.resource_version = Some(stored.version.to_string());
                stored.lease = Some(lease);
            }
            (code, serde_json::to_vec(&stored.lease).unwrap())
        }

        fn fail(&self, code: Option<u16>) {
            self.0.lock().unwrap().failing = code;
        }

        fn spec(&self) -> LeaseSpec {
            self.0.lock().unwrap().lease.clone().unwrap().spec.unwrap()
        }

        fn holder(&self) -> Option<String> {
            self.spec().holder_identity
        }

        async fn acquire(&self, identity: &str) -> Leadership {
            acquire(self.client(), "berth-system", "berth-operator", identity).await.unwrap()
        }

        async fn stays_with(&self, leadership: &mut Leadership, time: Duration) -> bool {
            timeout(time, leadership.lost()).await.is_err()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_leads_and_goes_on() {
        let server = Server::default();
        let mut first = server.acquire("first").await;
        let began = server.spec();
        assert!(server.stays_with(&mut first, seconds(120)).await);
        let now = server.spec();
        assert_eq!(now.holder_identity.as_deref(), Some("first"));
        assert_eq!((now.acquire_time, now.lease_transitions), (began.acquire_time, Some(0)));
        assert!(server.0.lock().unwrap().version > 20);
        assert!(timeout(seconds(120), server.acquire("second")).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_takes_over_once_the_lease_has_expired() {
        let server = Server::default();
        drop(server.acquire("first").await);
        let began = Instant::now();
        let _second = server.acquire("second").await;
        assert!(
            began.elapsed() >= DURATION && began.elapsed() < DURATION + seconds(1),
            "{:?}",
            began.elapsed()
        );
        assert_eq!((server.holder().as_deref(), server.spec().lease_transitions), (Some("second"), Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_takes_over_at_once_after_a_release() {
        let server = Server::default();
        server.acquire("first").await.release().await;
        assert_eq!(server.holder(), None);
        let began = Instant::now();
        let _second = server.acquire("second").await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_of_somebody_else_is_not_released() {
        let server = Server::default();
        let first = server.acquire("first").await;
        server.0.lock().unwrap().lease.as_mut().unwrap().spec.as_mut().unwrap().holder_identity =
            Some("x".into());
        first.release().await;
        assert_eq!(server.holder().as_deref(), Some("x"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_cannot_renew_gives_up_before_others_take_over() {
        let server = Server::default();
        let mut first = server.acquire("first").await;
        let began = Instant::now();
        server.fail(Some(503));
        first.lost().await;
        assert!(began.elapsed() > seconds(9) && began.elapsed() <= RENEW_DEADLINE, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_outage_costs_nothing() {
        let server = Server::default();
        let mut first = server.acquire("first").await;
        server.fail(Some(503));
        assert!(server.stays_with(&mut first, seconds(8)).await);
        server.fail(None);
        assert!(server.stays_with(&mut first, seconds(60)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_notices_that_it_was_replaced() {
        let server = Server::default();
        let mut first = server.acquire("first").await;
        {
            let mut stored = server.0.lock().unwrap();
            let lease = stored.lease.as_mut().unwrap();
            lease.metadata.resource_version = Some("other".into());
            lease.spec.as_mut().unwrap().holder_identity = Some("second".into());
        }
        let began = Instant::now();
        first.lost().await;
        assert!(began.elapsed() <= INTERVAL);
        assert_eq!(server.holder().as_deref(), Some("second"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_edited_or_deleted_lease_is_taken_up_again() {
        let server = Server::default();
        let mut first = server.acquire("first").await;
        server.0.lock().unwrap().lease.as_mut().unwrap().metadata.resource_version = Some("edited".into());
        assert!(server.stays_with(&mut first, seconds(30)).await);
        server.0.lock().unwrap().lease = None;
        assert!(server.stays_with(&mut first, seconds(30)).await);
        assert_eq!(server.holder().as_deref(), Some("first"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_right_to_lead_nobody_waits() {
        let server = Server::default();
        server.fail(Some(403));
        let refused = acquire(server.client(), "berth-system", "berth-operator", "me").await;
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .starts_with("failed to use the Lease berth-system/berth-operator")
        );
    }
}
