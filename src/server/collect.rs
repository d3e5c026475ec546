//! Reading bodies, within bounds.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use tokio::time::{Instant, timeout_at};

/// What reading came to.
pub(super) enum Collected<B: Body> {
    /// The whole body.
    Whole { data: Bytes, trailers: Option<HeaderMap> },
    /// It has more bytes than the limit, or was not complete in time.
    Over { head: VecDeque<Bytes>, rest: Pin<Box<B>> },
    /// It failed.
    Failed { head: VecDeque<Bytes>, error: B::Error },
}

/// Reads `body` up to `limit` bytes, for at most `time`.
pub(super) async fn collect<B: Body>(body: B, limit: usize, time: Option<Duration>) -> Collected<B> {
    let mut body = Box::pin(body);
    let mut head = VecDeque::new();
    // A body that says at once that it is too long is not read at all.
    if body.size_hint().lower() > limit as u64 {
        return Collected::Over { head, rest: body };
    }
    let deadline = time.map(|time| Instant::now() + time);
    let mut length = 0;
    let mut trailers = None;
    loop {
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx));
        let frame = match deadline {
            None => frame.await,
            Some(deadline) => match timeout_at(deadline, frame).await {
                Ok(frame) => frame,
                Err(_) => return Collected::Over { head, rest: body },
            },
        };
        match frame {
            None => return Collected::Whole { data: join(head, length), trailers },
            Some(Err(error)) => return Collected::Failed { head, error },
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    length += data.remaining();
                    head.push_back(data.copy_to_bytes(data.remaining()));
                    if length > limit {
                        return Collected::Over { head, rest: body };
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
            },
        }
    }
}

/// The frames as one; a single one is not copied.
fn join(mut frames: VecDeque<Bytes>, length: usize) -> Bytes {
    if frames.len() <= 1 {
        return frames.pop_front().unwrap_or_default();
    }
    let mut bytes = BytesMut::with_capacity(length);
    frames.iter().for_each(|frame| bytes.extend_from_slice(frame));
    bytes.freeze()
}
