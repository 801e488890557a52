//! What goes on in one connection: whether a request is under way, and whether the client takes its answers.
//!
//! Over HTTP/1.1 the socket itself tells of a client that takes nothing. Over HTTP/2 a client can leave the window of
//! a stream shut while everything else goes on, and the answer, with its open file, waits. That is seen here: an
//! answer is asked for its next piece only once the former one is on its way.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::waiting::Waiting;

/// An answer that waits while the client takes others is given up after so many times as long.
const BESIDE_OTHERS: u32 = 5;
/// A piece of an answer over HTTP/2: a usual frame. Whoever takes one in time is not stuck.
const PIECE: usize = 16 << 10;

/// What goes on in one connection.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    /// Of all connections.
    waiting: Arc<Waiting>,
}

#[derive(Debug)]
struct State {
    /// Requests under way.
    open: usize,
    /// What the last one came over.
    protocol: Option<Protocol>,
    /// When the last one ended, or the connection began.
    since: Instant,
    /// When the client last took a piece of an answer.
    taken: Instant,
    /// Since when answers wait for the client to take a piece, by number.
    waiting: HashMap<u64, Instant>,
    next: u64,
}

/// What a request comes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Or older.
    Http1,
    Http2,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Alive,
    /// No request is under way, for too long.
    Idle,
    /// The client takes nothing of an answer, for too long.
    Stalled,
}

impl Activity {
    pub(super) fn new(all: Arc<Waiting>) -> Arc<Self> {
        let now = Instant::now();
        let (open, protocol, waiting, next) = (0, None, HashMap::new(), 0);
        let state = Mutex::new(State { open, protocol, since: now, taken: now, waiting, next });
        Arc::new(Self { state, waiting: all })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>, protocol: Protocol) -> Exchange {
        let mut state = self.state();
        state.open += 1;
        state.protocol = Some(protocol);
        state.next += 1;
        Exchange { activity: Arc::clone(self), protocol, number: state.next }
    }

    /// Since when nothing has been under way but answers that the client does not take; none where something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        match state.open {
            0 => Some(state.since),
            open if open == state.waiting.len() => state.waiting.values().min().copied(),
            _ => None,
        }
    }

    /// Since when the client has left an answer waiting, and how many; none where it has taken all.
    pub(super) fn waiting(&self) -> Option<(Instant, usize)> {
        let state = self.state();
        Some((state.waiting.values().min().copied()?, state.waiting.len()))
    }

    /// `first` is for the first request, `patience` for all else.
    pub(super) fn verdict(&self, first: Duration, patience: Duration) -> Verdict {
        let (state, now) = (self.state(), Instant::now());
        if state.open == 0 {
            let allowed = match state.protocol {
                None => first,
                Some(Protocol::Http2) => patience,
                // hyper waits for the next request by itself, once the last answer is out.
                Some(Protocol::Http1) => return Verdict::Alive,
            };
            return if now >= state.since + allowed { Verdict::Idle } else { Verdict::Alive };
        }
        let stalled = state.waiting.values().min().is_some_and(|oldest| {
            let nothing_moves = now >= state.taken + patience;
            now >= *oldest + patience && (nothing_moves || now >= *oldest + patience * BESIDE_OTHERS)
        });
        if stalled { Verdict::Stalled } else { Verdict::Alive }
    }
}

/// A request and its answer. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    protocol: Protocol,
    number: u64,
}

impl Exchange {
    /// The client has got a piece to take.
    fn offer(&self) {
        if self.activity.state().waiting.insert(self.number, Instant::now()).is_none() {
            self.activity.waiting.add();
        }
    }

    /// The client has taken what there was.
    fn taken(&self) {
        let mut state = self.activity.state();
        if state.waiting.remove(&self.number).is_some() {
            state.taken = Instant::now();
            self.activity.waiting.remove();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        if state.waiting.remove(&self.number).is_some() {
            self.activity.waiting.remove();
        }
        state.open -= 1;
        state.since = Instant::now();
    }
}

/// The body of an answer; the exchange ends with it.
pub(super) struct Answer {
    body: Body,
    exchange: Exchange,
    /// Over HTTP/2 it is handed out in small pieces, each of which the client has to take.
    rest: Bytes,
}

impl Answer {
    pub(super) fn new(body: Body, exchange: Exchange) -> Self {
        Self { body, exchange, rest: Bytes::new() }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        self.exchange.offer();
        let length = self.rest.len().min(PIECE);
        Frame::data(self.rest.split_to(length))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.exchange.protocol == Protocol::Http1 {
            return Pin::new(&mut self.body).poll_frame(context);
        }
        self.exchange.taken();
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if !data.is_empty() => {
                    self.rest = data;
                    Poll::Ready(Some(Ok(self.piece())))
                }
                Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const FIRST: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_secs(60);

    fn verdict(activity: &Activity) -> Verdict {
        activity.verdict(FIRST, PATIENCE)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_becomes_idle() {
        let activity = Activity::new(Arc::default());
        tokio::time::sleep(FIRST).await;
        assert_eq!(verdict(&activity), Verdict::Idle, "a first request was due");
        let exchange = activity.begin(Protocol::Http2);
        tokio::time::sleep(PATIENCE * 100).await;
        assert_eq!((verdict(&activity), activity.idle_since()), (Verdict::Alive, None));
        drop(exchange);
        assert_eq!(verdict(&activity), Verdict::Alive);
        tokio::time::sleep(PATIENCE).await;
        assert_eq!(verdict(&activity), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_stalls() {
        let activity = Activity::new(Arc::default());
        let answer = |size| Answer::new(Body::from(vec![0; size]), activity.begin(Protocol::Http2));
        let (mut slow, mut stuck) = (answer(100 * PIECE), answer(100 * PIECE));
        stuck.frame().await.unwrap().unwrap();
        assert_eq!(activity.idle_since(), None, "the other one has not been asked for anything");
        for _ in 0..2 * BESIDE_OTHERS {
            let frame = slow.frame().await.unwrap().unwrap();
            assert_eq!(frame.data_ref().unwrap().len(), PIECE);
            assert_eq!(verdict(&activity), Verdict::Alive);
            tokio::time::sleep(PATIENCE / 2).await;
        }
        assert_eq!(verdict(&activity), Verdict::Stalled, "others went on, but it was too long");
        drop(stuck);
        slow.frame().await.unwrap().unwrap();
        assert_eq!(verdict(&activity), Verdict::Alive);
        tokio::time::sleep(PATIENCE).await;
        assert_eq!(verdict(&activity), Verdict::Stalled, "nothing moves");
        assert_eq!(activity.idle_since(), Some(Instant::now() - PATIENCE), "and may make place");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_is_slow_is_not_the_clients_fault() {
        let activity = Activity::new(Arc::default());
        let never = futures::stream::pending::<Result<Bytes, axum::Error>>();
        let mut answer = Answer::new(Body::from_stream(never), activity.begin(Protocol::Http2));
        assert!(tokio::time::timeout(PATIENCE * 100, answer.frame()).await.is_err());
        assert_eq!(verdict(&activity), Verdict::Alive);
    }

    #[tokio::test]
    async fn pieces_are_the_whole() {
        let content: Vec<u8> = (0..3 * PIECE + 5).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let answer =
            Answer::new(Body::from(content.clone()), Activity::new(Arc::default()).begin(Protocol::Http2));
        assert_eq!(answer.size_hint().exact(), Some(content.len() as u64));
        assert_eq!(answer.collect().await.unwrap().to_bytes(), content);
    }
}
