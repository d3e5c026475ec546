//! Reading bodies, within bounds.

use std::any::Any;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::LengthLimitError;
use tokio::time::Instant;

use crate::within::within;

/// What reading came to.
pub(super) enum Collected<B: Body> {
    /// The whole body.
    Whole { data: Bytes, trailers: Option<HeaderMap> },
    /// It has more bytes than the limit, or was not complete in time.
    Over { head: Bytes, rest: Pin<Box<B>> },
    /// It failed.
    Failed { head: Bytes, error: B::Error },
}

/// What was read so far: one frame as it came, several joined, so that many small ones don't cost more than their bytes.
#[derive(Default)]
struct Head {
    one: Bytes,
    joined: BytesMut,
}

/// Reads `body` up to `limit` bytes, for at most `time`.
pub(super) async fn collect<B: Body>(body: B, limit: usize, time: Option<Duration>) -> Collected<B> {
    let mut body = Box::pin(body);
    let mut head = Head::default();
    // A body that says at once that it is too long is not read at all.
    if body.size_hint().lower() > limit as u64 {
        return Collected::Over { head: head.finish(), rest: body };
    }
    let deadline = time.and_then(|time| Instant::now().checked_add(time));
    let mut trailers = None;
    loop {
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx));
        let Some(frame) = within(deadline, frame).await else {
            return Collected::Over { head: head.finish(), rest: body };
        };
        match frame {
            None => return Collected::Whole { data: head.finish(), trailers },
            Some(Err(error)) => return Collected::Failed { head: head.finish(), error },
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    head.push(data);
                    if head.len() > limit {
                        return Collected::Over { head: head.finish(), rest: body };
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
            },
        }
    }
}

impl Head {
    fn len(&self) -> usize {
        self.one.len() + self.joined.len()
    }

    fn push(&mut self, mut data: impl Buf) {
        if self.len() == 0 {
            self.one = data.copy_to_bytes(data.remaining());
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&std::mem::take(&mut self.one));
        }
        self.joined.put(data);
    }

    fn finish(self) -> Bytes {
        if self.joined.is_empty() { self.one } else { self.joined.freeze() }
    }
}

/// Whether a layer outside found the body too long.
pub(super) fn exceeds_limit(error: &dyn Any) -> bool {
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

#[cfg(feature = "axum")]
fn of_axum(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    Some(error.downcast_ref::<axum::Error>()?)
}

#[cfg(not(feature = "axum"))]
fn of_axum(_: &dyn Any) -> Option<&(dyn Error + 'static)> {
    None
}
