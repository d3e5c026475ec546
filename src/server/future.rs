//! The future that the service returns. Where the profile repeats keys, it has the key from the request's head, and
//! puts it into the answer's at the end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Response};
use http_body::Body;

use super::bodies::body::Passage;

pin_project_lite::pin_project! {
    /// The future of an answer with a body `T`. If the request is passed on, it is the inner service's own future `F`.
    pub struct ResponseFuture<F, T, E> {
        #[pin]
        kind: FutureKind<F, T, E>,
    }
}

pin_project_lite::pin_project! {
    #[project = KindProjected]
    enum FutureKind<F, T, E> {
        // The inner service's future, without an allocation. Only the type of its answer's body changes.
        Passing { #[pin] inner: F },
        // An exchange, a rejection that reads on the request's body, or a description for `OPTIONS`. Few requests need
        // it, so it is boxed.
        Exchange { inner: BoxFuture<'static, Result<Response<T>, E>>, echo: Option<Box<(HeaderName, HeaderValue)>> },
    }
}

impl<F, T, E> ResponseFuture<F, T, E> {
    pub(super) fn passing(inner: F) -> Self {
        Self { kind: FutureKind::Passing { inner } }
    }

    /// A future of another kind, whose answer gets this header, if there is one.
    pub(super) fn boxed(
        inner: BoxFuture<'static, Result<Response<T>, E>>,
        echo: Option<Box<(HeaderName, HeaderValue)>>,
    ) -> Self {
        Self { kind: FutureKind::Exchange { inner, echo } }
    }

    /// Returns the size of the future of an exchange, in bytes.
    pub(crate) fn size(&self) -> usize {
        match &self.kind {
            FutureKind::Passing { .. } => 0,
            FutureKind::Exchange { inner, .. } => size_of_val(&**inner),
        }
    }
}

impl<F, T, E> fmt::Debug for ResponseFuture<F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            FutureKind::Passing { .. } => "ResponseFuture::Passing",
            FutureKind::Exchange { .. } => "ResponseFuture::Exchange",
        })
    }
}

impl<F, B, T, E> Future for ResponseFuture<F, T, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    T: From<Passage<B>>,
{
    type Output = Result<Response<T>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProjected::Passing { inner } => {
                inner.poll(cx).map_ok(|response| response.map(|body| Passage::Untouched(body).into()))
            }
            KindProjected::Exchange { inner, echo } => {
                let mut answer = ready!(inner.as_mut().poll(cx));
                if let (Ok(answer), Some(echo)) = (&mut answer, echo.take()) {
                    let (name, key) = *echo;
                    answer.headers_mut().insert(name, key);
                }
                Poll::Ready(answer)
            }
        }
    }
}
