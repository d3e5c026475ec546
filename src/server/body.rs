//! The body types that go through the layer.
//!
//! Under axum the types stay what they are: `axum::body::Body` in and out. In another stack a body of type `B` leaves
//! the layer as [`ReplayBody<B>`], which is `B` itself where nothing was done to it.

use std::fmt;
use std::ops::DerefMut;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{Either, Empty, Full, Limited, StreamBody};

/// A body that can go through the layer.
///
/// It names the type it leaves as. That is the same type where one can be made of bytes, as axum's can, and
/// [`ReplayBody`] otherwise. For a body type of your own:
/// ```
/// # use bytes::Bytes;
/// # use std::{pin::Pin, task::{Context, Poll}};
/// use tower_idempotency::server::{LayerBody, ReplayBody};
/// # struct MyBody;
/// # impl http_body::Body for MyBody {
/// #     type Data = Bytes; type Error = std::io::Error;
/// #     fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>)
/// #         -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> { Poll::Ready(None) }
/// # }
/// impl LayerBody for MyBody {
///     type Through = ReplayBody<Self>;
/// }
/// ```
/// A body type of another crate can be mapped to one of these outside the layer, with tower-http's
/// `MapRequestBodyLayer` and `MapResponseBodyLayer`.
pub trait LayerBody: Body<Data: Send, Error: Send + 'static> + Send + Sized + 'static {
    /// The type that leaves the layer.
    type Through: Body + From<Passage<Self>> + Send + 'static;
}

/// What the layer did with a body.
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
        /// What was read.
        head: Bytes,
        /// What is left of the body, or how it failed.
        rest: Result<Pin<Box<B>>, B::Error>,
    },
}

impl<B: Body> fmt::Debug for Passage<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched(_) => "Passage::Untouched",
            Self::Whole { .. } => "Passage::Whole",
            Self::Resumed { .. } => "Passage::Resumed",
        })
    }
}

pin_project_lite::pin_project! {
    /// A body that has gone through the layer: the one it was, or recorded bytes, or both one after the other.
    pub struct ReplayBody<B: Body> {
        head: Bytes,
        #[pin]
        rest: Rest<B>,
        error: Option<B::Error>,
        trailers: Option<HeaderMap>,
    }
}

pin_project_lite::pin_project! {
    /// What is read after the recorded bytes.
    #[project = RestProjected]
    enum Rest<B> {
        Nothing,
        Untouched { #[pin] body: B },
        Resumed { body: Pin<Box<B>> },
    }
}

type Polled<D, E> = Poll<Option<Result<Frame<D>, E>>>;

impl<B: Body> Rest<B> {
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Data, B::Error> {
        match self.project() {
            RestProjected::Nothing => Poll::Ready(None),
            RestProjected::Untouched { body } => body.poll_frame(cx),
            RestProjected::Resumed { body } => body.as_mut().poll_frame(cx),
        }
    }

    fn body(&self) -> Option<&B> {
        match self {
            Self::Nothing => None,
            Self::Untouched { body } => Some(body),
            Self::Resumed { body } => Some(body),
        }
    }
}

impl<B: Body> From<Passage<B>> for ReplayBody<B> {
    fn from(passage: Passage<B>) -> Self {
        let nothing = Self::default();
        match passage {
            Passage::Untouched(body) => Self { rest: Rest::Untouched { body }, ..nothing },
            Passage::Whole { data, trailers } => Self { head: data, trailers, ..nothing },
            Passage::Resumed { head, rest: Ok(body) } => Self { head, rest: Rest::Resumed { body }, ..nothing },
            Passage::Resumed { head, rest: Err(error) } => Self { head, error: Some(error), ..nothing },
        }
    }
}

impl<B: Body> Default for ReplayBody<B> {
    fn default() -> Self {
        Self { head: Bytes::new(), rest: Rest::Nothing, error: None, trailers: None }
    }
}

impl<B: Body> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("recorded", &self.head.len())
            .field("streams", &self.rest.body().is_some())
            .finish()
    }
}

impl<B: Body> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Bytes, B::Error> {
        let mut this = self.project();
        if !this.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.head)))));
        }
        if let Some(frame) = ready!(this.rest.as_mut().poll_frame(cx)) {
            return Poll::Ready(Some(frame.map(into_bytes)));
        }
        this.rest.set(Rest::Nothing);
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        let rest_ended = self.rest.body().is_none_or(Body::is_end_stream);
        self.head.is_empty() && rest_ended && self.error.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let head = self.head.len() as u64;
        let rest = self.rest.body().map_or(SizeHint::with_exact(0), Body::size_hint);
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

fn into_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}

#[cfg(feature = "axum")]
impl LayerBody for axum::body::Body {
    type Through = Self;
}

#[cfg(feature = "axum")]
impl From<Passage<Self>> for axum::body::Body {
    // This is called twice for every request that passes.
    #[inline]
    fn from(passage: Passage<Self>) -> Self {
        match passage {
            Passage::Untouched(body) => body,
            Passage::Whole { data, trailers: None } => data.into(),
            passage => Self::new(ReplayBody::from(passage)),
        }
    }
}

/// Implements [`LayerBody`] for types that leave the layer as [`ReplayBody`]. Each line has a type's parameters and the
/// type.
macro_rules! replayed {
    ($([$($parameters:tt)*] $body:ty;)*) => {$(
        impl<$($parameters)*> LayerBody for $body {
            type Through = ReplayBody<Self>;
        }
    )*};
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

replayed! {
    [] String;
    [] hyper::body::Incoming;
    [D: Buf + Send + 'static] Full<D>;
    [D: Buf + Send + 'static] Empty<D>;
    [D: Buf + Send + 'static, E: Send + 'static] BoxBody<D, E>;
    [D: Buf + Send + 'static, E: Send + 'static] UnsyncBoxBody<D, E>;
    [S: Stream<Item = Result<Frame<D>, E>> + Send + 'static, D: Buf + Send, E: Send + 'static] StreamBody<S>;
    [B: LayerBody<Error: Into<BoxError>>] Limited<B>;
    [L: LayerBody<Error: Into<BoxError>>, R: LayerBody<Error: Into<BoxError>> + Body<Data = L::Data>] Either<L, R>;
    [B: LayerBody] ReplayBody<B>;
    [B: LayerBody + Unpin] Box<B>;
    [P: DerefMut<Target: Body<Data: Send, Error: Send + 'static>> + Unpin + Send + 'static] Pin<P>;
}
