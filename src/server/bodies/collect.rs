//! Reads bodies, within bounds: a request's before it is claimed, and a handler's answer after its run.

use std::any::Any;
use std::error::Error;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::LengthLimitError;
use tokio::time::Instant;
use tower_idempotency_meaning::{grpc_status, is_of_grpc};

use super::body::Passage;
use super::budget::Share;
use crate::server::header::lines;
use crate::timeouts::{put_off, within};

/// The result of reading a body.
pub(crate) enum Collected<B: Body> {
    /// The whole body.
    Whole { data: Bytes, trailers: Option<HeaderMap> },
    /// The body was not read to its end: `head` was read, and `rest` has what follows.
    Over { why: Why, head: Bytes, rest: B },
    /// The body failed after `head`.
    Failed { head: Bytes, error: B::Error },
}

impl<B: Body> From<Collected<Pin<Box<B>>>> for Passage<B> {
    fn from(collected: Collected<Pin<Box<B>>>) -> Self {
        match collected {
            Collected::Whole { data, trailers } => Self::Whole { data, trailers },
            Collected::Over { head, rest, .. } => Self::Resumed { head, rest: Ok(rest) },
            Collected::Failed { head, error } => Self::Resumed { head, rest: Err(error) },
        }
    }
}

/// The reason why a body is not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It has more bytes than the limit.
    TooLong,
    /// It was not complete in time.
    TooSlow,
    /// It goes beyond the budget.
    OverBudget,
}

/// The longest time between two bytes of a body that takes a part of the budget. A slower body would hold its part for
/// as long as it likes.
const BODY_PAUSE: Duration = Duration::from_secs(30);
/// The time that each byte of such a body is worth: 512 of them a second. What is not used up adds up to [`BODY_PAUSE`]
/// and not further, so that a burst does not let a body drip for long.
const NANOS_PER_BYTE: u64 = 1_000_000_000 / 512;

/// The bounds within which a body is read.
#[derive(Default)]
pub(crate) struct Bounds {
    /// The most bytes of the body.
    pub(crate) bytes: usize,
    /// The longest time that the whole body may take, from when it is first waited for.
    pub(crate) time: Option<Duration>,
    /// The body's share of the budget for bodies, if it takes any. It grows with each frame.
    pub(crate) share: Option<Share>,
}

/// The bytes read so far. A single frame is kept as it came. Several frames are joined, so that many small frames do
/// not take more memory than their bytes.
#[derive(Default)]
struct BodyHead {
    // The first frame, until a second one comes.
    one: Bytes,
    // All blocks but the last are full, and none is copied when more data comes. A new block is as long as all data so
    // far, the frame that is being added included, but at least 1 KiB and at most 64 KiB.
    blocks: Vec<BytesMut>,
    // The bytes of all frames so far.
    length: usize,
}

/// Reads `body` within `bounds`.
pub(crate) async fn collect<B: Body + Unpin>(mut body: B, bounds: &mut Bounds) -> Collected<B> {
    let mut head = BodyHead::default();
    let Bounds { bytes: limit, time, share } = bounds;
    // A body that declares at once that it is too long is not read at all.
    if body.size_hint().lower() > *limit as u64 {
        return Collected::Over { why: Why::TooLong, head: head.finish(), rest: body };
    }
    // The time at which the body has taken too long; the time at which it is too slow, and the bytes that have put this
    // off. They are set when the layer has to wait: most bodies are there already.
    let (mut end, mut too_slow, mut counted) = (None, None, 0);
    let mut trailers = None;
    loop {
        // This polls once and does not wait.
        let ready = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx)));
        let frame = match ready.await {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let now = Instant::now();
                // A time beyond what the clock can represent is no limit.
                end = end.or_else(|| now.checked_add(time.take()?));
                let slowest = share.as_ref().map(|_| {
                    // The bytes since the last wait put the limit off by what they are worth, and at most to
                    // `BODY_PAUSE` from now.
                    let latest = now + BODY_PAUSE;
                    let bytes = head.length - std::mem::replace(&mut counted, head.length);
                    let worth = Duration::from_nanos((bytes as u64).saturating_mul(NANOS_PER_BYTE));
                    let put_off = too_slow.and_then(|at: Instant| at.checked_add(worth));
                    *too_slow.insert(put_off.map_or(latest, |at| at.min(latest)))
                });
                let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
                match within(end.into_iter().chain(slowest).min(), frame).await {
                    Some(frame) => {
                        // If the process was stopped, what has come meanwhile is read.
                        end = end.map(|end| put_off(end).unwrap_or(end));
                        frame
                    }
                    None => return Collected::Over { why: Why::TooSlow, head: head.finish(), rest: body },
                }
            }
        };
        match frame {
            None => return Collected::Whole { data: head.finish(), trailers },
            Some(Err(error)) => return Collected::Failed { head: head.finish(), error },
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let bytes = data.remaining();
                    if share.as_mut().is_some_and(|share| !share.grow(bytes)) {
                        return Collected::Over { why: Why::OverBudget, head: head.finish(), rest: body };
                    }
                    head.push(data);
                    if head.length > *limit {
                        return Collected::Over { why: Why::TooLong, head: head.finish(), rest: body };
                    }
                }
                // These are trailers. A frame of another kind, which `http_body` does not have yet, is left out.
                Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
            },
        }
    }
}

/// The shortest and the longest block, in bytes.
const BLOCK: RangeInclusive<usize> = 1_024..=64 * 1_024;

impl BodyHead {
    /// Adds a frame. The first one that has data is kept as it is; with the second one, both move into blocks.
    fn push(&mut self, mut data: impl Buf) {
        if self.length == 0 {
            self.length = data.remaining();
            self.one = data.copy_to_bytes(self.length);
            return;
        }
        if self.blocks.is_empty() {
            let one = std::mem::take(&mut self.one);
            self.append(one);
        }
        self.length += data.remaining();
        self.append(data);
    }

    /// Copies data into the last block, and into new ones.
    fn append(&mut self, mut data: impl Buf) {
        while data.has_remaining() {
            match self.blocks.last_mut().filter(|block| block.len() < block.capacity()) {
                Some(block) => {
                    let bytes = data.remaining().min(block.capacity() - block.len());
                    block.put((&mut data).take(bytes));
                }
                None => {
                    let block = self.length.clamp(*BLOCK.start(), *BLOCK.end());
                    self.blocks.push(BytesMut::with_capacity(block));
                }
            }
        }
    }

    /// Returns all bytes in one buffer.
    fn finish(self) -> Bytes {
        if self.blocks.is_empty() {
            return self.one;
        }
        let mut whole = BytesMut::with_capacity(self.length);
        // Each block is freed before the next one is copied.
        self.blocks.into_iter().for_each(|block| whole.put(block));
        whole.freeze()
    }
}

/// Returns whether an answer that seems to be complete was cut: it is shorter than it declares, or it is gRPC's and has
/// no status.
pub(crate) fn is_cut(parts: &Parts, length: usize, trailers: Option<&HeaderMap>) -> bool {
    // These two have no body, whatever they declare (RFC 9110, section 8.6).
    let has_body = !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // Without a status, gRPC's client takes the answer for `UNKNOWN`.
    let is_open = is_of_grpc(&parts.headers) && grpc_status(&parts.headers, trailers).is_none();
    has_body && is_shorter(&parts.headers, length) || is_open
}

/// Returns whether a body of `length` bytes is shorter than its headers declare.
fn is_shorter(headers: &HeaderMap, length: usize) -> bool {
    declared_length(headers).is_some_and(|declared| (length as u64) < declared)
}

/// Returns the length that `Content-Length` declares, if there is one.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    lines(headers, CONTENT_LENGTH).next().and_then(|value| value.to_str().ok()?.parse().ok())
}

/// Returns whether a body failed because a layer outside found it too long.
pub(crate) fn exceeds_limit(error: &dyn Any) -> bool {
    // The outermost error is of one of three types; only then can its causes be looked at.
    let boxed = || Some(&**error.downcast_ref::<Box<dyn Error + Send + Sync>>()? as &(dyn Error + 'static));
    let limit = || Some(error.downcast_ref::<LengthLimitError>()? as &(dyn Error + 'static));
    let mut cause = limit().or_else(boxed).or_else(|| of_axum(error));
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Returns the error of axum's body, if it is one.
#[cfg(feature = "axum")]
fn of_axum(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    Some(error.downcast_ref::<axum::Error>()?)
}

#[cfg(not(feature = "axum"))]
fn of_axum(_: &dyn Any) -> Option<&(dyn Error + 'static)> {
    None
}
