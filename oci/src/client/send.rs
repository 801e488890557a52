//! Sending requests: with what proves who calls, again where that may help, after redirects, and never for longer than
//! something comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    Client, Scope,
    answer::Answer,
    challenge,
    endpoint::Origin,
    error::{self, Error},
    retry::{self, Gate, backoff},
};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// A token with all that goes with it.
const MAX_TOKEN: usize = 1 << 20;

/// What is sent.
pub(super) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A request that can be sent again.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) scope: &'a Scope,
}

/// How one attempt ended that another one may follow.
enum Attempt {
    Answered(Answer),
    Failed(Error),
    TooEarly(Answer),
}

pub(super) fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

impl Client {
    /// Sends until there is an answer that more tries would not change, or enough is enough.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Answer, Error> {
        let (mut failures, mut early) = (0, 0);
        loop {
            let error = match self.attempt(&call).await {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Failed(error) if !error.is_temporary() => return Err(error),
                Attempt::Failed(error) => {
                    failures += 1;
                    if failures >= retry::ATTEMPTS {
                        return Err(error);
                    }
                    error
                }
                Attempt::TooEarly(answer) => {
                    early += 1;
                    self.come_later(self.gate(), answer, early).await?;
                    continue;
                }
            };
            tracing::debug!(%error, "trying again");
            tokio::time::sleep(backoff(failures - 1)).await;
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Attempt {
        let answer = match self.follow(call).await {
            Ok(answer) => answer,
            Err(error) => return Attempt::Failed(error),
        };
        match answer.status {
            _ if comes_too_early(&answer) => Attempt::TooEarly(answer),
            status if error::is_temporary(status) => Attempt::Failed(self.refusal(answer).await),
            _ => Attempt::Answered(answer),
        }
    }

    /// Closes a gate for as long as the `n`th answer of its kind says; fails where that is too long or was too often.
    async fn come_later(&self, gate: &Gate, answer: Answer, n: u32) -> Result<(), Error> {
        let wait = too_early(&answer.headers, n);
        let error = self.refusal(answer).await;
        if n >= retry::PATIENT_ATTEMPTS || wait > retry::LONGEST {
            return Err(error);
        }
        tracing::debug!(%error, wait_milliseconds = wait.as_millis(), "too early");
        gate.close(wait);
        Ok(())
    }

    /// Goes where the registry says that something is: object storage, for blobs. Never from TLS to none.
    pub(super) async fn follow(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let mut call = call.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.authorized(&call).await?;
            let reads = matches!(call.method, Method::GET | Method::HEAD);
            if !reads || !answer.status.is_redirection() || answer.status == StatusCode::NOT_MODIFIED {
                return Ok(answer);
            }
            call.uri = self.location(&answer, &call.uri)?;
        }
        Err(self.unusable(&call.method, call.uri.path(), "it redirects in circles"))
    }

    /// The header `Location`, made absolute.
    pub(super) fn location(&self, answer: &Answer, base: &Uri) -> Result<Uri, Error> {
        let text = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let unusable = |reason: &str| Error::Answer {
            host: self.host(),
            what: answer.what.clone(),
            reason: reason.to_owned(),
        };
        let uri = text.and_then(|text| resolve(base, text)).ok_or_else(|| unusable("it has no Location"))?;
        let https = |uri: &Uri| Origin::of(uri).map(|origin| origin.https);
        if https(base) == Some(true) && https(&uri) != Some(true) {
            return Err(unusable(
                "it leads from https to http; a proxy in front of it should send X-Forwarded-Proto",
            ));
        }
        Ok(uri)
    }

    /// Once, and once more with a new token where the first one does not do.
    async fn authorized(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let mut again = true;
        loop {
            let (answer, used) = self.once(call, full(call.body.clone()), None).await?;
            if answer.status != StatusCode::UNAUTHORIZED || !self.is_own(&call.uri) {
                return Ok(answer);
            }
            let known = self.challenged(call.scope, &answer.headers, used.as_ref()).await;
            if !known || !std::mem::take(&mut again) {
                return Err(self.refusal(answer).await);
            }
        }
    }

    /// Takes in the challenge of a 401; false where another try makes no sense.
    pub(super) async fn challenged(
        &self,
        scope: &Scope,
        headers: &HeaderMap,
        used: Option<&HeaderValue>,
    ) -> bool {
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<_> = values.flat_map(challenge::parse).collect();
        self.refused(scope, used, &challenges).await
    }

    /// Sends one request, with a body of which `progress` counts the bytes that went; says with what proof.
    pub(super) async fn once(
        &self,
        call: &Call<'_>,
        body: Body,
        progress: Option<Arc<AtomicU64>>,
    ) -> Result<(Answer, Option<HeaderValue>), Error> {
        self.gate().pass().await;
        let proof = if self.is_own(&call.uri) { self.authorization(call.scope).await? } else { None };
        let mut headers = call.headers.clone();
        headers.extend(proof.clone().map(|proof| (header::AUTHORIZATION, proof)));
        let answer = self.exchange(call.method.clone(), call.uri.clone(), headers, body, progress).await?;
        Ok((answer, proof))
    }

    async fn exchange(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Body,
        progress: Option<Arc<AtomicU64>>,
    ) -> Result<Answer, Error> {
        let host = Origin::of(&uri).map(|origin| origin.authority()).unwrap_or_default();
        let what = format!("{method} {}", uri.path());
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        let answered = self.http().request(request);
        let answered = self.while_it_moves(answered, progress).await;
        let answer: Response<Incoming> = match answered {
            Some(answered) => answered.map_err(|error| error::unreachable(host, &error))?,
            None => return Err(Error::Silent { host, seconds: self.patience().as_secs() }),
        };
        let (parts, body) = answer.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body, what })
    }

    /// None where nothing happened for too long.
    async fn while_it_moves<T>(
        &self,
        work: impl Future<Output = T>,
        progress: Option<Arc<AtomicU64>>,
    ) -> Option<T> {
        tokio::pin!(work);
        let moved = || progress.as_ref().map(|progress| progress.load(Ordering::Relaxed));
        let mut before = moved();
        loop {
            if let Ok(done) = timeout(self.patience(), &mut work).await {
                return Some(done);
            }
            let now = moved();
            if now == before {
                return None;
            }
            before = now;
        }
    }

    /// Asks a realm for a token.
    pub(super) async fn fetch_token<T: DeserializeOwned>(
        &self,
        uri: Uri,
        login: Option<HeaderValue>,
    ) -> Result<T, Error> {
        let (mut failures, mut early) = (0, 0);
        let answer = loop {
            self.auth().gate().pass().await;
            let headers = login.iter().map(|login| (header::AUTHORIZATION, login.clone())).collect();
            let answer = self.exchange(Method::GET, uri.clone(), headers, full(Bytes::new()), None).await;
            let error = match answer {
                Ok(answer) if answer.status.is_success() => break answer,
                Ok(answer) if comes_too_early(&answer) => {
                    early += 1;
                    // Whoever needs the token would ask again at once.
                    let give_up = |error: Error| Error::Answer {
                        host: self.host(),
                        what: format!("GET {}", uri.path()),
                        reason: format!("it is busy for too long: {error}"),
                    };
                    self.come_later(self.auth().gate(), answer, early).await.map_err(give_up)?;
                    continue;
                }
                Ok(answer) => self.refusal(answer).await,
                Err(error) => error,
            };
            failures += 1;
            if !error.is_temporary() || failures >= retry::ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(backoff(failures)).await;
        };
        let what = answer.what.clone();
        let bytes = self.read(answer, MAX_TOKEN).await?;
        let host = self.host();
        serde_json::from_slice(&bytes).map_err(|error| Error::Answer {
            host,
            what,
            reason: error.to_string(),
        })
    }

    /// An answer that is a success but not the one that there should be.
    pub(super) fn unusable(&self, method: &Method, path: &str, reason: &str) -> Error {
        Error::Answer { host: self.host(), what: format!("{method} {path}"), reason: reason.to_owned() }
    }

    fn is_own(&self, uri: &Uri) -> bool {
        Origin::of(uri).as_ref() == Some(self.endpoint().origin())
    }
}

/// Whether an answer says to come later.
fn comes_too_early(answer: &Answer) -> bool {
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::SERVICE_UNAVAILABLE => answer.headers.contains_key(header::RETRY_AFTER),
        _ => false,
    }
}

/// How long to wait after the `n`th answer that says to come later.
pub(super) fn too_early(headers: &HeaderMap, n: u32) -> std::time::Duration {
    retry::retry_after(headers, SystemTime::now()).unwrap_or_else(|| backoff(n + 2))
}

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("berth/", env!("CARGO_PKG_VERSION")));

/// An absolute URL, or a path on the same host.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = base.clone().into_parts();
        parts.path_and_query = Some(location.parse().ok()?);
        return Uri::from_parts(parts).ok();
    }
    location.parse().ok().filter(|uri| Origin::of(uri).is_some())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/x?y=z", Some("https://a:5000/x?y=z"))]
    #[case("https://b/x", Some("https://b/x"))]
    #[case("//b/x", None)]
    #[case("x", None)]
    #[case("", None)]
    #[case("ftp://b/x", None)]
    fn locations(#[case] location: &str, #[case] expected: Option<&str>) {
        let resolved = resolve(&"https://a:5000/v2/?q".parse().unwrap(), location);
        assert_eq!(resolved.map(|uri| uri.to_string()).as_deref(), expected);
    }
}
