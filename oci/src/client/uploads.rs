//! Pushing blobs: a session, into which one request streams all there is, or what is left after a cut.

use std::sync::{Arc, atomic::AtomicU64};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use super::{
    Client, Error, Scope,
    answer::Answer,
    retry::{ATTEMPTS, LONGEST, backoff},
    send::{Call, too_early},
};
use crate::{Digest, RepoName};

/// The bytes of a blob on their way.
pub type Stream =
    futures::stream::BoxStream<'static, Result<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

/// An upload under way.
#[derive(Clone, Debug)]
pub struct Session {
    location: Uri,
    scope: Scope,
}

/// How an upload began.
#[derive(Debug)]
pub enum Started {
    /// It is over: the blob was mounted.
    Mounted,
    /// It takes bytes.
    Session(Session),
}

impl Client {
    /// Begins an upload, or mounts the blob from another repository where the registry does that: one that is named,
    /// or one that it finds by itself.
    pub async fn start_upload(
        &self,
        repository: &RepoName,
        mount: Option<(&Digest, Option<&RepoName>)>,
    ) -> Result<Started, Error> {
        let (scope, query) = match mount {
            Some((digest, Some(from))) => {
                (Scope::mount(repository, from), format!("?mount={digest}&from={from}"))
            }
            Some((digest, None)) => (Scope::push(repository), format!("?mount={digest}")),
            None => (Scope::push(repository), String::new()),
        };
        let mut call =
            self.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/{query}"), &scope)?;
        call.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        let base = call.uri.clone();
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::CREATED => Ok(Started::Mounted),
            StatusCode::ACCEPTED => {
                let location = self.location(&answer, &base)?;
                Ok(Started::Session(Session { location, scope: Scope::push(repository) }))
            }
            _ => Err(self.refusal(answer).await),
        }
    }

    /// Sends the bytes from `offset` to the end of the blob's `size` and names it. One try: what was sent is gone.
    /// `progress` counts what the connection took.
    pub async fn finish_upload(
        &self,
        session: &Session,
        digest: &Digest,
        (offset, size): (u64, u64),
        bytes: Stream,
        progress: Arc<AtomicU64>,
    ) -> Result<(), Error> {
        let uri = with_digest(&session.location, digest);
        let uri =
            uri.ok_or_else(|| self.unusable(&Method::POST, session.location.path(), "its Location is odd"))?;
        let mut headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (header::CONTENT_LENGTH, HeaderValue::from(size - offset)),
        ]);
        if offset > 0 && offset < size {
            let range = HeaderValue::try_from(format!("{offset}-{}", size - 1));
            headers.extend(range.ok().map(|range| (header::CONTENT_RANGE, range)));
        }
        let call = Call { method: Method::PUT, uri, headers, body: Bytes::new(), scope: &session.scope };
        let body = StreamBody::new(bytes.map(|piece| piece.map(Frame::data))).boxed_unsync();
        let (answer, used) = self.once(&call, body, Some(progress)).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => {
                self.drain(answer).await;
                Ok(())
            }
            StatusCode::UNAUTHORIZED => Err(self.expired(&session.scope, answer, used.as_ref()).await),
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = too_early(&answer.headers, 1).min(LONGEST);
                self.gate().close(wait);
                Err(self.refusal(answer).await)
            }
            _ => Err(self.refusal(answer).await),
        }
    }

    /// A token that ended on the way is like a connection that broke: the next try has another one.
    async fn expired(&self, scope: &Scope, answer: Answer, used: Option<&HeaderValue>) -> Error {
        if self.challenged(scope, &answer.headers, used).await && used.is_some() {
            let reason = "the token ended on the way".to_owned();
            return Error::Unreachable { host: self.host(), kind: super::Trouble::Connection, reason };
        }
        self.refusal(answer).await
    }

    /// How much of it the registry has; none where it knows nothing of the session.
    pub async fn upload_offset(&self, session: &mut Session) -> Result<Option<u64>, Error> {
        let answer = self.call(session.call(Method::GET)).await?;
        if !answer.status.is_success() {
            return match self.refusal(answer).await {
                error if error.is_temporary() => Err(error),
                _ => Ok(None),
            };
        }
        if answer.headers.contains_key(header::LOCATION) {
            session.location = self.location(&answer, &session.location)?;
        }
        Ok(answer.headers.get(header::RANGE).and_then(|range| range.to_str().ok()).and_then(received))
    }

    /// Gives an upload up. Where that fails the registry forgets it by and by.
    pub async fn cancel_upload(&self, session: &Session) -> Result<(), Error> {
        let mut failures = 0;
        loop {
            let answer = self.call(session.call(Method::DELETE)).await?;
            let busy = answer.status == StatusCode::CONFLICT;
            if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
                return Ok(());
            }
            let error = self.refusal(answer).await;
            failures += 1;
            // It may not have noticed yet that the former request is over.
            if !busy || failures >= ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(backoff(failures - 1)).await;
        }
    }
}

impl Session {
    /// A request without a body about it.
    fn call(&self, method: Method) -> Call<'_> {
        let (uri, scope) = (self.location.clone(), &self.scope);
        Call { method, uri, headers: HeaderMap::new(), body: Bytes::new(), scope }
    }
}

/// How many bytes `0-9` stands for. That of an empty session is `0-0`, and so is that of one with one byte.
fn received(range: &str) -> Option<u64> {
    let range: crate::ContentRange = range.parse().ok()?;
    match (range.first(), range.length()) {
        (0, 1) => Some(0),
        (0, length) => Some(length),
        _ => None,
    }
}

fn with_digest(location: &Uri, digest: &Digest) -> Option<Uri> {
    let separator = if location.query().is_some() { '&' } else { '?' };
    format!("{location}{separator}digest={digest}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    #[test]
    fn what_a_session_has() {
        assert_eq!(received("0-0"), Some(0));
        assert_eq!(received("0-9"), Some(10));
        assert_eq!(received("bytes=0-9"), Some(10));
        assert_eq!(received("5-9"), None);
        assert_eq!(received(""), None);
    }

    #[test]
    fn the_digest_joins_what_the_location_has() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let with = |location: &str| with_digest(&location.parse().unwrap(), &digest).unwrap().to_string();
        assert_eq!(with("https://a/u/1"), format!("https://a/u/1?digest={digest}"));
        assert_eq!(with("https://a/u/1?_state=x"), format!("https://a/u/1?_state=x&digest={digest}"));
    }
}
