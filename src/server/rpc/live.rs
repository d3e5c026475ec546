//! An answer whose run goes on: its head, and its body, to which each exchange comes that a stream may answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture, Either, select};
use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::{mpsc, oneshot};

use super::reply;
use super::stream::Begun;
use crate::server::bodies::body::{BodyMode, Passage, SendBody, Through};

type Answer<M, R, E> = Result<Response<Through<M, R>>, E>;

/// Answers a request whose run may answer with a stream: with the stream's head once it has begun, or else with the
/// answer. `answer` is dropped with the body. That cancels nothing, because the run has a task of its own.
pub(crate) async fn answer<M, R, E>(
    begun: oneshot::Receiver<Begun>,
    answer: BoxFuture<'static, Answer<M, R, E>>,
) -> Answer<M, R, E>
where
    M: BodyMode<R>,
    R: SendBody,
    E: Send + 'static,
{
    let (begun, answer) = match select(begun, answer).await {
        Either::Left((begun, answer)) => (begun.ok(), answer),
        // A stream may have begun, and ended, since it was looked at.
        Either::Right((answer, mut begun)) => (begun.try_recv().ok(), future::ready(answer).boxed()),
    };
    // The run has answered otherwise, or there is none.
    let Some(Begun { parts, events }) = begun else { return answer.await };
    let rest = async move {
        let (parts, body) = answer.await.ok()?.into_parts();
        if reply::has_type(&parts.headers, "text/event-stream") {
            return Some(body);
        }
        // The layer has refused, or has recorded another answer.
        let data = body.collect().await.ok()?.to_bytes();
        Some(Passage::Whole { data: reply::as_event(&parts.headers, &data), trailers: None }.into())
    };
    let body = Live { events, rest: Rest::Waits(Box::pin(rest)) };
    Ok(Response::from_parts(parts, Passage::Live(Box::pin(body)).into()))
}

/// The events before the result, and then the result.
struct Live<T> {
    events: mpsc::UnboundedReceiver<Bytes>,
    rest: Rest<T>,
}

enum Rest<T> {
    Waits(BoxFuture<'static, Option<T>>),
    Body(Pin<Box<T>>),
    Ended,
}

impl<T: Body<Data = Bytes>> Body for Live<T> {
    type Data = Bytes;
    type Error = T::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, T::Error>>> {
        let this = self.get_mut();
        if let Some(event) = ready!(this.events.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(event))));
        }
        loop {
            match &mut this.rest {
                Rest::Waits(rest) => {
                    let body = ready!(rest.as_mut().poll(cx));
                    this.rest = body.map_or(Rest::Ended, |body| Rest::Body(Box::pin(body)));
                }
                Rest::Body(body) => {
                    let frame = ready!(body.as_mut().poll_frame(cx));
                    if frame.is_none() {
                        this.rest = Rest::Ended;
                    }
                    return Poll::Ready(frame);
                }
                Rest::Ended => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;

    use super::*;
    use crate::server::bodies::body::AnyBody;

    /// The body of an answer whose run is done when it is asked for.
    async fn body(begins: impl FnOnce(oneshot::Sender<Begun>) + Send + 'static, kind: &'static str) -> Bytes {
        let (early, begun) = oneshot::channel();
        let done: BoxFuture<'static, Answer<AnyBody, Full<Bytes>, Infallible>> = Box::pin(async move {
            begins(early);
            let answer = Response::builder().header("content-type", kind);
            Ok(answer.body(Passage::Whole { data: Bytes::from_static(b"c"), trailers: None }.into()).unwrap())
        });
        let Ok(answer) = super::answer::<AnyBody, Full<Bytes>, Infallible>(begun, done).await;
        let Ok(body) = answer.into_body().collect().await;
        body.to_bytes()
    }

    // A run on another thread may begin a stream and end it between two looks.
    #[tokio::test]
    async fn what_a_stream_has_begun_with_is_not_lost_if_its_run_is_done() {
        let begins = |early: oneshot::Sender<Begun>| {
            let (sender, events) = mpsc::unbounded_channel();
            for event in ["a", "b"] {
                sender.send(Bytes::from_static(event.as_bytes())).unwrap();
            }
            let (parts, ()) = Response::new(()).into_parts();
            assert!(early.send(Begun { parts, events }).is_ok());
        };
        assert_eq!(body(begins, "text/event-stream").await, "abc");
        assert_eq!(body(begins, "application/json").await, "abevent: message\ndata: c\n\n");
        assert_eq!(body(drop, "application/json").await, "c");
    }
}
