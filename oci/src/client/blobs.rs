//! Reading blobs, and mounting them.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;

use super::{Client, Error, Scope, backoff, retry};
use crate::{Digest, RepoName};

/// A blob on its way from a registry: a cut is mended by going on from where it was. What comes is not verified here.
#[derive(Debug)]
pub struct Download {
    client: Client,
    repository: RepoName,
    digest: Digest,
    size: u64,
    /// The next byte that the caller gets.
    offset: u64,
    body: Option<Incoming>,
    /// The end of a piece of which the beginning was not wanted.
    rest: Option<Bytes>,
    /// Since anything came.
    failures: u32,
}

impl Client {
    /// Whether a repository has the blob.
    pub async fn has_blob(&self, repository: &RepoName, digest: &Digest) -> Result<bool, Error> {
        let scope = Scope::pull(repository);
        let answer = self
            .call(self.request(Method::HEAD, &format!("/v2/{repository}/blobs/{digest}"), &scope)?)
            .await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.refusal(answer).await),
        }
    }

    /// A blob of this size, from this byte on. Nothing is asked before the first piece is.
    #[must_use]
    pub fn download(&self, repository: &RepoName, digest: &Digest, size: u64, offset: u64) -> Download {
        let (client, repository, digest) = (self.clone(), repository.clone(), digest.clone());
        Download { client, repository, digest, size, offset, body: None, rest: None, failures: 0 }
    }
}

impl Download {
    /// The next bytes, never more than the blob has; none after the last one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.offset < self.size {
            let error = match self.piece().await {
                Ok(Some(piece)) => {
                    self.failures = 0;
                    return Ok(Some(piece));
                }
                Ok(None) => self.cut(),
                Err(error) => error,
            };
            (self.body, self.rest) = (None, None);
            self.failures += 1;
            if !error.is_temporary() || self.failures >= retry::ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(%error, digest = %self.digest, offset = self.offset, "a download was cut");
            tokio::time::sleep(backoff(self.failures - 1)).await;
        }
        Ok(None)
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let piece = match self.rest.take() {
            Some(rest) => rest,
            None => match self.client.piece(&mut body).await? {
                Some(piece) => piece,
                None => return Ok(None),
            },
        };
        self.body = Some(body);
        let left = self.size - self.offset;
        if piece.len() as u64 > left {
            return Err(self.wrong(&format!("it is longer than the {} bytes that it should have", self.size)));
        }
        self.offset += piece.len() as u64;
        Ok(Some(piece))
    }

    /// Asks for what is left.
    async fn open(&mut self) -> Result<Incoming, Error> {
        let scope = Scope::pull(&self.repository);
        let mut call = self.client.request(Method::GET, &self.path(), &scope)?;
        if self.offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.offset));
            call.headers.extend(range.ok().map(|range| (header::RANGE, range)));
        }
        let answer = self.client.call(call).await?;
        match answer.status {
            StatusCode::PARTIAL_CONTENT
                if starts_at(answer.headers.get(header::CONTENT_RANGE), self.offset) =>
            {
                Ok(answer.body)
            }
            StatusCode::OK => self.skip(answer.body).await,
            status if status.is_success() => Err(self.wrong("it is another part than was asked for")),
            _ => Err(self.client.refusal(answer).await),
        }
    }

    /// Some registries always begin at the beginning.
    async fn skip(&mut self, mut body: Incoming) -> Result<Incoming, Error> {
        let mut left = self.offset;
        while left > 0 {
            let mut piece = self.client.piece(&mut body).await?.ok_or_else(|| self.cut())?;
            let unwanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= unwanted as u64;
            self.rest = Some(piece.split_off(unwanted)).filter(|rest| !rest.is_empty());
        }
        Ok(body)
    }

    fn path(&self) -> String {
        format!("/v2/{}/blobs/{}", self.repository, self.digest)
    }

    fn wrong(&self, reason: &str) -> Error {
        self.client.unusable(&Method::GET, &self.path(), reason)
    }

    fn cut(&self) -> Error {
        let reason = format!("{} ended after {} of {} bytes", self.digest, self.offset, self.size);
        Error::Unreachable { host: self.client.host(), kind: super::Trouble::Connection, reason }
    }
}

/// `bytes 5-9/10`
fn starts_at(range: Option<&HeaderValue>, offset: u64) -> bool {
    let range = range.and_then(|range| range.to_str().ok()).and_then(|range| range.parse().ok());
    range.is_some_and(|range: crate::ContentRange| range.first() == offset)
}
