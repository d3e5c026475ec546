//! The future that the service returns.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Response;

use super::body::{LayerBody, Passage};

pin_project_lite::pin_project! {
    /// The future of an answer. It is the inner service's own if the request is passed on.
    pub struct ResponseFuture<F, B: LayerBody, E> {
        #[pin]
        kind: Kind<F, B, E>,
    }
}

pin_project_lite::pin_project! {
    #[project = KindProjected]
    enum Kind<F, B: LayerBody, E> {
        Passing { #[pin] inner: F },
        Exchange { inner: BoxFuture<'static, Result<Response<B::Through>, E>> },
    }
}

impl<F, B: LayerBody, E> ResponseFuture<F, B, E> {
    pub(super) fn passing(inner: F) -> Self {
        Self { kind: Kind::Passing { inner } }
    }

    pub(super) fn exchange(inner: BoxFuture<'static, Result<Response<B::Through>, E>>) -> Self {
        Self { kind: Kind::Exchange { inner } }
    }
}

impl<F, B: LayerBody, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Passing { .. } => "ResponseFuture::Passing",
            Kind::Exchange { .. } => "ResponseFuture::Exchange",
        })
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: LayerBody,
{
    type Output = Result<Response<B::Through>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProjected::Passing { inner } => {
                inner.poll(cx).map_ok(|response| response.map(|body| Passage::Untouched(body).into()))
            }
            KindProjected::Exchange { inner } => inner.as_mut().poll(cx),
        }
    }
}
