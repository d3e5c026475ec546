//! The layer's service: it makes a call of each request with an unsafe method, and passes the others through. The
//! call comes back here to send each attempt, and to describe the use of its key.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tower::Service;

use crate::attempts::{Attempts, Call, PROBE};
use crate::options::Options;
use crate::transport::Miss;
use crate::uses::{Use, Uses};
use crate::{BoxError, Error, InvalidKey, Key, Known, Reason, ResponseBody, RetryBody};

/// The service of [`KeyedRetryLayer`](crate::KeyedRetryLayer).
#[derive(Clone)]
pub struct KeyedRetry<S> {
    pub(crate) inner: S,
    pub(crate) options: Arc<Options>,
}

impl<S> KeyedRetry<S> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone> KeyedRetry<S> {
    /// Takes the service that is ready, and leaves a clone in its place.
    pub(crate) fn take_ready(&mut self) -> S {
        let clone = self.inner.clone();
        std::mem::replace(&mut self.inner, clone)
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for KeyedRetry<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeyedRetry").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pub(crate) fn invalid_key(error: InvalidKey) -> Error {
    Error::new(Known::NotSent, Reason::InvalidKey, Some(error.into()))
}

impl<S, B, A> Service<Request<B>> for KeyedRetry<S>
where
    S: Service<Request<B>, Response = Response<A>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    B: RetryBody + Send + 'static,
    A: Body<Error: Into<BoxError>> + Unpin + Send + 'static,
{
    type Response = Response<ResponseBody<A>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(not_ready)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.method().is_safe() {
            return ResponseFuture { kind: Kind::PassedThrough { future: self.inner.call(request) } };
        }
        let inner = self.take_ready();
        let options = self.options.clone();
        let (mut head, body) = request.into_parts();
        let chosen = options.key(&mut head.headers, &head.extensions);
        let requests = Requests { inner, is_ready: true, head, body: Some(body) };
        // The future has it once; a variable of its own would be there a second time.
        let mut call = chosen.map(|chosen| Call::new(options, chosen, requests));
        let future = Box::pin(async move { call.as_mut().map_err(|error| invalid_key(*error))?.make().await });
        ResponseFuture { kind: Kind::Keyed { future } }
    }
}

/// The attempts of a call over a service.
struct Requests<S, B> {
    inner: S,
    is_ready: bool,
    head: Parts,
    /// The body, until it is sent for the last time.
    body: Option<B>,
}

impl<S, B, A> Attempts for Requests<S, B>
where
    S: Service<Request<B>, Response = Response<A>, Error: Into<BoxError>, Future: Send> + Send,
    B: RetryBody + Send,
    A: Body<Error: Into<BoxError>> + Unpin + Send,
{
    type Body = A;

    async fn send(&mut self, is_probe: bool) -> Result<Response<A>, Box<Miss>> {
        if !std::mem::take(&mut self.is_ready) {
            let ready = std::future::poll_fn(|cx| self.inner.poll_ready(cx)).await;
            // Such a service is not to be asked again.
            ready.map_err(|error| Miss::unsendable(error.into()))?;
        }
        let copy = self.body.as_ref().and_then(RetryBody::try_clone);
        let Some(body) = copy.or_else(|| self.body.take()) else {
            return Err(Miss::unsendable("the body was sent already".into()));
        };
        let mut request = Request::from_parts(self.head.clone(), body);
        request.headers_mut().extend(is_probe.then_some(PROBE));
        self.inner.call(request).await.map_err(|error| Miss::of(error.into()))
    }

    fn describe(&self, uses: &Uses, key: &Key) -> Option<Use> {
        let Parts { method, uri, headers, .. } = &self.head;
        Some(uses.describe(key, (method, uri, headers), self.body.as_ref().and_then(RetryBody::compared)))
    }

    fn can_repeat(&self) -> bool {
        self.body.is_some()
    }
}

pin_project_lite::pin_project! {
    /// The future of [`KeyedRetry`].
    ///
    /// If it is dropped, so is the attempt that is under way, and the operation may have taken place. So give the call
    /// a key of your own if you may drop it, and ask again with that key.
    pub struct ResponseFuture<F, B> {
        #[pin]
        kind: Kind<F, B>,
    }
}

type Keyed<B> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody<B>>, Error>> + Send>>;

pin_project_lite::pin_project! {
    #[project = KindProjected]
    enum Kind<F, B> {
        PassedThrough { #[pin] future: F },
        Keyed { future: Keyed<B> },
    }
}

impl<F, E, B> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<B>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProjected::Keyed { future } => future.as_mut().poll(cx),
            KindProjected::PassedThrough { future } => {
                let result = ready!(future.poll(cx));
                Poll::Ready(result.map(|answer| answer.map(ResponseBody::untouched)).map_err(passed_through))
            }
        }
    }
}

impl<F, B> std::fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

pub(crate) fn not_ready(error: impl Into<BoxError>) -> Error {
    Error::new(Known::NotSent, Reason::Unsendable, Some(error.into()))
}

/// A request with a safe method has no effect that could be unknown, but it may have been sent.
pub(crate) fn passed_through(error: impl Into<BoxError>) -> Error {
    let Miss { source, known, .. } = *Miss::of(error.into());
    Error::new(known, Reason::PassedThrough, source)
}
