//! Bodies on their way through the proxy.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::places::Place;

/// A body whose end may be one only if it says so: hyper takes a stream of HTTP/2 that was reset without an error for
/// one that has ended. A body of HTTP/1.1 that breaks off is an error of hyper's already. So requests
/// (`connections.rs`) and answers (`answer.rs`) must say their end if they came over HTTP/2.
pub(crate) struct Whole<B> {
    inner: B,
    must_say_its_end: bool,
}

impl<B> Whole<B> {
    pub(crate) fn new(inner: B, must_say_its_end: bool) -> Self {
        Self { inner, must_say_its_end }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Whole<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(match frame {
            Some(frame) => Some(frame.map_err(Into::into)),
            None if self.must_say_its_end && !self.inner.is_end_stream() => Some(Err("the stream was reset".into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The bytes of an answer that hyper gets at a time.
const PORTION: usize = 16 * 1024;
/// What is passed on at once, also if it is not sent yet.
const SMALL: usize = 256;

/// A body that fails only after hyper had a turn to send what came before. A connection of HTTP/1.1 ends without what
/// was not sent yet, and without a byte of an answer, some clients send the request again by themselves.
///
/// It keeps what its answer has taken until hyper has all of it, in portions: hyper would take a whole answer at once,
/// and keep it as long as the client does not read.
pub(crate) struct Flushed<B: Body> {
    inner: B,
    error: Option<B::Error>,
    /// What of a frame is left.
    rest: Bytes,
    _taken: [Option<Place>; 2],
}

impl<B: Body> Flushed<B> {
    pub(crate) fn new(inner: B, taken: [Option<Place>; 2]) -> Self {
        Self { inner, error: None, rest: Bytes::new(), _taken: taken }
    }
}

impl<B: Body<Data = Bytes, Error: Unpin> + Unpin> Body for Flushed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose() {
                Err(error) => {
                    self.error = Some(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(None) => return Poll::Ready(None),
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(data) if data.len() > SMALL => self.rest = data,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
        // A copy, which does not keep the whole. The last byte waits until hyper has sent what is before it.
        let length = PORTION.min(self.rest.len() - 1).max(1);
        let portion = Bytes::copy_from_slice(&self.rest[..length]);
        self.rest.advance(portion.len());
        Poll::Ready(Some(Ok(Frame::data(portion))))
    }

    fn is_end_stream(&self) -> bool {
        self.error.is_none() && self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Within a frame it says nothing.
        if self.rest.is_empty() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

/// A body that keeps what its request has taken until it is dropped, and fails if nothing comes for so long while it is
/// waited for.
pub(crate) struct Held<B> {
    inner: Whole<B>,
    /// Whether trailers are passed on.
    has_trailers: bool,
    within: Duration,
    /// It is set anew where a wait begins.
    silence: Pin<Box<Sleep>>,
    is_waited_for: bool,
    /// Set when the first frame is asked for.
    is_begun: Arc<AtomicBool>,
    _taken: Arc<dyn Any + Send + Sync>,
}

impl<B> Held<B> {
    pub(crate) fn new(inner: B, must_say_its_end: bool, within: Duration, taken: Arc<dyn Any + Send + Sync>) -> Self {
        let (inner, silence) = (Whole::new(inner, must_say_its_end), Box::pin(sleep(within)));
        Self {
            inner,
            has_trailers: true,
            within,
            silence,
            is_waited_for: false,
            is_begun: Arc::default(),
            _taken: taken,
        }
    }

    /// Leaves out its trailers.
    pub(crate) fn without_trailers(self) -> Self {
        Self { has_trailers: false, ..self }
    }

    /// Returns whether a frame of it was asked for, also after it is gone.
    pub(crate) fn is_begun(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_begun)
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Held<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        this.is_begun.store(true, Ordering::Relaxed);
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            if !std::mem::replace(&mut this.is_waited_for, true) {
                let until = Instant::now() + this.within;
                this.silence.as_mut().reset(until);
            }
            return this.silence.as_mut().poll(cx).map(|()| Some(Err("nothing has come for too long".into())));
        };
        this.is_waited_for = false;
        // They are a body's last frame.
        Poll::Ready(frame.filter(|frame| this.has_trailers || !frame.as_ref().is_ok_and(Frame::is_trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
