//! A stream that is an answer. What comes before its result is passed on as it comes: progress, logs, and requests of
//! the server's. The result is held back until it is durable, and it alone is recorded.
//!
//! The result of a call of JSON-RPC is its response; that of any other stream is its last event. A stream that does not
//! end within the limits is passed on to its end, and its operation is consumed. One that breaks off, or ends without a
//! response, leaves its operation unknown; a call of JSON-RPC gets an error that says so.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::response::Parts;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::calls::Message;
use super::events::{self, Events};
use crate::engine::{Cause, End};
use crate::server::answer::meaning::{Judge, Judged};
use crate::server::bodies::body::{Passage, SendBody};
use crate::server::bodies::collect::Collected;
use crate::server::effect::Effect;
use crate::timeouts::within;

/// How long the head of a stream waits for the first event. A quick answer is so a plain one, with whatever its head
/// has to say of its operation.
const HEAD_AFTER: Duration = Duration::from_millis(500);

/// An answer whose run goes on: its head, and the events before its result.
pub(crate) struct Begun {
    pub(super) parts: Parts,
    pub(super) events: mpsc::UnboundedReceiver<Bytes>,
}

/// By which the requester gets it.
pub(crate) type Early = oneshot::Sender<Begun>;

/// Passes events on to the requester, who may be gone.
struct Passed {
    head: Option<(Early, Parts)>,
    /// It need not be bounded: the bytes of a stream are.
    events: Option<mpsc::UnboundedSender<Bytes>>,
}

impl Passed {
    fn begin(&mut self) {
        if let Some((early, parts)) = self.head.take() {
            let (sender, events) = mpsc::unbounded_channel();
            self.events = Some(sender);
            let _is_gone = early.send(Begun { parts, events });
        }
    }

    fn pass(&mut self, event: Bytes) {
        self.begin();
        if let Some(events) = &self.events {
            let _is_gone = events.send(event);
        }
    }
}

pub(crate) type BrokenEvent<'a> = Box<dyn Fn() -> Bytes + Send + Sync + 'a>;

/// A stream that answers a covered request, and how it is read.
pub(crate) struct Stream<'a, R> {
    /// The head of the answer. The one that the requester gets may say in addition that the request has run.
    pub(crate) parts: &'a Parts,
    pub(crate) shown: Parts,
    pub(crate) judge: Judge<'a>,
    /// Makes the error with which the stream ends if it breaks off, for a call of JSON-RPC. Clients wait on after an
    /// end without a response.
    pub(crate) broken: Option<BrokenEvent<'a>>,
    pub(crate) max_time: Duration,
    pub(crate) max_bytes: usize,
    pub(crate) read: Read<R>,
}

impl<R: SendBody> Stream<'_, R> {
    /// Reads the stream up to its result. Returns what is left of it for the requester, and how the run ends.
    pub(crate) async fn take(self, early: Early) -> (Passage<R>, Judged) {
        let Self { parts, shown, judge, broken, max_time, max_bytes, mut read } = self;
        let is_rpc = broken.is_some();
        let mut passed = Passed { head: Some((early, shown)), events: None };
        match read.up_to_result(&mut passed, is_rpc, (max_time, max_bytes)).await {
            Ended::Result(event, data) if data.len() > judge.recorder.max_response_body => {
                let end = End::Consumed { status: parts.status.as_u16() };
                (Passage::Whole { data: event, trailers: None }, Judged { end, effect: None, retry: None })
            }
            Ended::Result(event, data) => {
                let mut of_result = parts.clone();
                if is_rpc {
                    of_result.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                }
                let whole = Collected::<R>::Whole { data: data.into(), trailers: None };
                let mut judged = judge.of_answer(&of_result, Some(&whole));
                if let End::Outcome(outcome) = &mut judged.end {
                    *outcome = judge.recorder.encode(parts.status, &parts.headers, &event, None);
                }
                (Passage::Whole { data: event, trailers: None }, judged)
            }
            Ended::Beyond => {
                let end = End::Consumed { status: parts.status.as_u16() };
                (Passage::Resumed { head: read.left(), rest: Ok(read.body) }, Judged { end, effect: None, retry: None })
            }
            Ended::Broken(error) => {
                let end = End::Interrupted { cause: Cause::Broken };
                let judged = Judged { end, effect: Some(Effect::Unknown), retry: None };
                if let Some(broken) = broken {
                    return (Passage::Whole { data: broken(), trailers: None }, judged);
                }
                let head = read.left();
                match error {
                    Some(error) => (Passage::Resumed { head, rest: Err(error) }, judged),
                    None => (Passage::Whole { data: head, trailers: None }, judged),
                }
            }
        }
    }
}

/// The body of a stream that is being read.
pub(crate) struct Read<R> {
    events: Events,
    /// The last event of a stream that is no JSON-RPC: it may be the result.
    held: Bytes,
    body: Pin<Box<R>>,
}

impl<R> Read<R> {
    pub(crate) fn new(body: R) -> Self {
        Self { events: Events::default(), held: Bytes::new(), body: Box::pin(body) }
    }
}

/// How a stream has ended.
enum Ended<E> {
    /// With this event, and its data.
    Result(Bytes, Vec<u8>),
    /// It has not, within the limits.
    Beyond,
    /// It broke off, or has no result.
    Broken(Option<E>),
}

impl<R: Body> Read<R> {
    async fn up_to_result(&mut self, passed: &mut Passed, is_rpc: bool, bounds: (Duration, usize)) -> Ended<R::Error> {
        let (time, mut bytes_left) = bounds;
        let (end, mut head_at) = (Instant::now().checked_add(time), Some(Instant::now() + HEAD_AFTER));
        loop {
            let frame = match within(end.into_iter().chain(head_at).min(), self.body.frame()).await {
                Some(frame) => frame,
                None if end.is_none_or(|end| Instant::now() < end) => {
                    head_at = None;
                    passed.begin();
                    continue;
                }
                None => return Ended::Beyond,
            };
            let mut data = match frame {
                Some(Ok(frame)) => frame.into_data(),
                Some(Err(error)) => return Ended::Broken(Some(error)),
                None => {
                    // What has no blank line after it is no event to a client.
                    let [held, rest] = [std::mem::take(&mut self.held), std::mem::take(&mut self.events).rest()];
                    let data = events::data(if held.is_empty() { &rest } else { &held });
                    return match data.filter(|data| !is_rpc || is_response(data)) {
                        Some(data) if is_rpc => Ended::Result(events::event(&data), data),
                        None if is_rpc => Ended::Broken(None),
                        data => Ended::Result([held, rest].concat().into(), data.unwrap_or_default()),
                    };
                }
            };
            let Ok(data) = &mut data else { continue };
            let length = data.remaining();
            self.events.push(&data.copy_to_bytes(length));
            while let Some(event) = self.events.next() {
                match events::data(&event) {
                    Some(data) if is_rpc => match serde_json::from_slice(&data) {
                        Ok(message) if Message::is_response(&message) => {
                            return Ended::Result(events::event(&data), data);
                        }
                        // A client may find its result in it, such as in a batch.
                        Err(_) if !data.is_empty() => return Ended::Broken(None),
                        _ => passed.pass(event),
                    },
                    Some(_) if !is_rpc => {
                        let before = std::mem::replace(&mut self.held, event);
                        if !before.is_empty() {
                            passed.pass(before);
                        }
                    }
                    // Also a comment, which keeps the connection.
                    _ => passed.pass(event),
                }
            }
            match bytes_left.checked_sub(length) {
                Some(left) => bytes_left = left,
                None => return Ended::Beyond,
            }
        }
    }

    /// Takes what was read and not passed on.
    fn left(&mut self) -> Bytes {
        [&self.held[..], &std::mem::take(&mut self.events).rest()].concat().into()
    }
}

fn is_response(data: &[u8]) -> bool {
    serde_json::from_slice(data).is_ok_and(|message: Message<'_>| message.is_response())
}
