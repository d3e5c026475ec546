//! The body types that go through the layer.
//!
//! A layer is in one of two modes. As it is made, axum's body goes in and comes out, and no type changes
//! ([`KeepBody`]). In the other, a body of any type `B` comes out as [`ReplayBody<B>`], which is `B` itself if the
//! layer left it alone ([`AnyBody`]).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};

/// A body that can go through a layer: every [`Body`] whose data and errors can be sent to another thread.
#[diagnostic::on_unimplemented(
    message = "an idempotency layer can't carry the body `{Self}`",
    note = "the body has to be `Send + 'static`, its data `Send`, and its errors `Send + 'static`"
)]
pub trait SendBody: Body<Data: Send, Error: Send + 'static> + Send + 'static {}

impl<B: Body<Data: Send, Error: Send + 'static> + Send + 'static> SendBody for B {}

/// The body types that go through a layer, and the types as which they come out: [`KeepBody`] or [`AnyBody`].
#[diagnostic::on_unimplemented(
    message = "an idempotency layer in the mode `{Self}` does not carry the body `{B}`",
    note = "call `.any_body()` on the layer: it then carries every body whose data and errors are `Send`",
    note = "without `.any_body()`, both bodies are `axum::body::Body`, and the feature `axum` is on"
)]
pub trait BodyMode<B: Body>: Sealed + Send + Sync + 'static {
    /// The type as which a body `B` comes out.
    type Through: Body<Data = Bytes, Error = B::Error> + From<Passage<B>> + Send + 'static;
}

/// The mode of a layer as it is made: axum's body stays axum's body.
#[derive(Debug, Clone, Copy)]
pub struct KeepBody(());

/// The mode of a layer after [`any_body`](crate::IdempotencyLayer::any_body): a body of any type `B` comes out as
/// [`ReplayBody<B>`].
#[derive(Debug, Clone, Copy)]
pub struct AnyBody(());

#[cfg(feature = "axum")]
impl BodyMode<axum::body::Body> for KeepBody {
    type Through = axum::body::Body;
}

impl<B: SendBody> BodyMode<B> for AnyBody {
    type Through = ReplayBody<B>;
}

/// There are these two modes.
pub trait Sealed {}

impl Sealed for KeepBody {}

impl Sealed for AnyBody {}

/// As which type a body `B` comes out of a layer in the mode `M`.
pub(crate) type Through<M, B> = <M as BodyMode<B>>::Through;

/// An answer that the layer gives by itself, and its trailers.
pub(crate) type WholeAnswer = (Response<Bytes>, Option<HeaderMap>);

/// Gives an answer of the layer's own the body type of the mode `M`.
pub(crate) fn in_mode<M: BodyMode<B>, B: Body>((answer, trailers): WholeAnswer) -> Response<Through<M, B>> {
    answer.map(|data| Passage::Whole { data, trailers }.into())
}

/// Describes what the layer did with a body.
#[non_exhaustive]
pub enum Passage<B: Body> {
    /// It was not touched.
    Untouched(B),
    /// It was read to its end, or comes from a record.
    Whole {
        /// Its bytes.
        data: Bytes,
        /// Its trailers, if it had any.
        trailers: Option<HeaderMap>,
    },
    /// It was read in part.
    Resumed {
        /// The bytes that were read.
        head: Bytes,
        /// The rest of the body, or the error with which it failed.
        rest: Result<Pin<Box<B>>, B::Error>,
    },
    /// It is a stream, of which the layer passes on what comes before its result.
    Live(Live<B::Error>),
}

/// The body of an answer whose run goes on.
type Live<E> = Pin<Box<dyn Body<Data = Bytes, Error = E> + Send>>;

impl<B: Body> fmt::Debug for Passage<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched(_) => "Passage::Untouched",
            Self::Whole { .. } => "Passage::Whole",
            Self::Resumed { .. } => "Passage::Resumed",
            Self::Live(_) => "Passage::Live",
        })
    }
}

pin_project_lite::pin_project! {
    /// A body that has gone through the layer: the one it was, or recorded bytes, or both one after the other.
    pub struct ReplayBody<B: Body> {
        // This comes first, as one frame: recorded bytes, or those that the layer has read.
        head: Bytes,
        // This comes after `head`.
        #[pin]
        rest: Remaining<B>,
        // This comes last: the error with which the body failed while the layer read it.
        error: Option<B::Error>,
        // These come last. A body does not have both an error and trailers here.
        trailers: Option<HeaderMap>,
    }
}

pin_project_lite::pin_project! {
    /// The part that is read after the recorded bytes.
    #[project = RestProjected]
    enum Remaining<B: Body> {
        // There is no rest, or it has ended.
        Nothing,
        Untouched { #[pin] body: B },
        // The layer has read the beginning, which is in `head`, and boxed the body for that.
        Resumed { body: Pin<Box<B>> },
        Live { body: Live<B::Error> },
    }
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

impl<B: Body> Remaining<B> {
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Error> {
        match self.project() {
            RestProjected::Nothing => Poll::Ready(None),
            RestProjected::Untouched { body } => body.poll_frame(cx).map_ok(into_bytes),
            RestProjected::Resumed { body } => body.as_mut().poll_frame(cx).map_ok(into_bytes),
            RestProjected::Live { body } => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Untouched { body } => body.is_end_stream(),
            Self::Resumed { body } => body.is_end_stream(),
            Self::Live { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Untouched { body } => body.size_hint(),
            Self::Resumed { body } => body.size_hint(),
            Self::Live { body } => body.size_hint(),
        }
    }
}

impl<B: Body> From<Passage<B>> for ReplayBody<B> {
    fn from(passage: Passage<B>) -> Self {
        let nothing = Self::default();
        match passage {
            Passage::Untouched(body) => Self { rest: Remaining::Untouched { body }, ..nothing },
            Passage::Whole { data, trailers } => Self { head: data, trailers, ..nothing },
            Passage::Resumed { head, rest: Ok(body) } => Self { head, rest: Remaining::Resumed { body }, ..nothing },
            Passage::Resumed { head, rest: Err(error) } => Self { head, error: Some(error), ..nothing },
            Passage::Live(body) => Self { rest: Remaining::Live { body }, ..nothing },
        }
    }
}

impl<B: Body> Default for ReplayBody<B> {
    fn default() -> Self {
        Self { head: Bytes::new(), rest: Remaining::Nothing, error: None, trailers: None }
    }
}

impl<B: Body> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("recorded", &self.head.len())
            .field("streams", &!matches!(self.rest, Remaining::Nothing))
            .finish()
    }
}

impl<B: Body> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Error> {
        let mut this = self.project();
        if !this.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.head)))));
        }
        if let Some(frame) = ready!(this.rest.as_mut().poll_frame(cx)) {
            return Poll::Ready(Some(frame));
        }
        // A body that has ended must not be polled again.
        this.rest.set(Remaining::Nothing);
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.rest.is_end_stream() && self.error.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let head = self.head.len() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(head));
        // A body that fails has no length. One with trailers must not say its exact length either: HTTP/1.1 would be
        // written without the chunked coding, and so without trailers.
        let may_have_upper = self.error.is_none() && self.trailers.is_none();
        if may_have_upper && let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(head)) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// Turns a frame's data into `Bytes`, without a copy if it is `Bytes` already.
fn into_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}

#[cfg(feature = "axum")]
impl From<Passage<Self>> for axum::body::Body {
    // This is called twice for every request that passes.
    #[inline]
    fn from(passage: Passage<Self>) -> Self {
        match passage {
            Passage::Untouched(body) => body,
            passage => of_read(passage),
        }
    }
}

#[cfg(feature = "axum")]
#[inline(never)]
fn of_read(passage: Passage<axum::body::Body>) -> axum::body::Body {
    match passage {
        Passage::Whole { data, trailers: None } => data.into(),
        // It was read in part, or it has trailers.
        passage => axum::body::Body::new(ReplayBody::from(passage)),
    }
}
