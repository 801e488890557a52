//! Reading answers: whole where they are small, piece by piece where not, and what they say where they are no success.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Client,
    error::{self, Error},
};
use crate::{Denial, ErrorList};

/// Bytes of an answer that is no success that are read.
const MAX_REFUSAL: usize = 16 << 10;
/// Characters of it that are shown.
const MAX_MESSAGE: usize = 300;
/// What came back, its body yet to be read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    /// `HEAD /v2/…`, for messages.
    pub(super) what: String,
}

impl Client {
    /// All of an answer's body, up to so many bytes.
    pub(super) async fn read(&self, mut answer: Answer, most: usize) -> Result<Bytes, Error> {
        // What grows needs more than it holds.
        let mut whole = BytesMut::with_capacity(size(&answer, 0).min(most));
        while let Some(piece) = self.piece(&mut answer.body).await? {
            if whole.len() + piece.len() > most {
                let (host, what) = (self.host(), answer.what);
                return Err(Error::Answer { host, what, reason: format!("it is longer than {most} bytes") });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// The next bytes of a body, however few; none at its end.
    pub(super) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, Error> {
        let deadline = Instant::now() + self.patience();
        loop {
            let frame = tokio::time::timeout_at(deadline, body.frame()).await;
            let silent = |_| Error::Silent { host: self.host(), seconds: self.patience().as_secs() };
            match frame.map_err(silent)? {
                None => return Ok(None),
                Some(Err(error)) => return Err(error::unreachable(self.host(), &error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
    }

    /// What an answer that is no success says.
    pub(super) async fn refusal(&self, answer: Answer) -> Error {
        let (status, what, host) = (answer.status, answer.what.clone(), self.host());
        // What can't be read says nothing.
        let body = self.read(answer, MAX_REFUSAL).await.unwrap_or_default();
        let message = message(&body);
        match (status, denial(&body)) {
            (StatusCode::FORBIDDEN, Some(why)) => Error::Denied { host, what, why, message },
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                let message = if message.is_empty() { status.to_string() } else { message };
                Error::Unauthorized { host, what, message }
            }
            _ => Error::Status { host, what, status, message },
        }
    }
}

/// How many bytes the body has; `unknown` where the answer does not say it.
pub(super) fn size(answer: &Answer, unknown: usize) -> usize {
    let said = answer.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    said.and_then(|text| text.parse().ok()).unwrap_or(unknown)
}

/// The sentences of an OCI error, or the text itself where it is short; in one line.
fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(json) => match serde_json::from_value::<ErrorList>(json.clone()) {
            Ok(list) => list.errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; "),
            // Codes that nobody has registered.
            Err(_) => json["errors"][0]["message"].as_str().unwrap_or_default().to_owned(),
        },
        Err(_) if body.starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect()
}

/// What a Berth registry says beside the message.
fn denial(body: &[u8]) -> Option<Denial> {
    let list: ErrorList = serde_json::from_slice(body).ok()?;
    list.errors.iter().find_map(|error| Denial::of(error.detail.as_ref()?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        r#"{"errors":[{"code":"DENIED","message":"no"},{"code":"UNKNOWN","message":"really"}]}"#,
        "no; really"
    )]
    #[case(r#"{"errors":[{"code":"NEWFANGLED","message":"no"}]}"#, "no")]
    #[case("404 page not\nfound\n", "404 page not found")]
    #[case("<html>", "")]
    #[case("{}", "")]
    fn what_registries_say(#[case] body: &str, #[case] expected: &str) {
        assert_eq!(message(body.as_bytes()), expected);
    }
}
