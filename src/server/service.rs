//! The service: passes a request through, refuses it, or begins an exchange.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response, StatusCode};
use tower_service::Service;

use super::body::{LayerBody, Passage};
use super::context::IdempotencyContext;
use super::exchange::Exchange;
use super::future::ResponseFuture;
use super::rejection::{Rejection, RejectionKind};
use super::shared::Shared;
use crate::engine;
use crate::header;
use crate::key::Key;
use crate::store::Store;

/// A service behind an [`IdempotencyLayer`](super::IdempotencyLayer).
pub struct IdempotencyService<S, St> {
    inner: S,
    shared: Arc<Shared<St>>,
}

/// What is to be done with a request.
enum Way {
    Pass,
    Exchange(Key),
    Refuse(Rejection),
}

impl<S, St: Store> IdempotencyService<S, St> {
    pub(super) fn new(inner: S, shared: Arc<Shared<St>>) -> Self {
        Self { inner, shared }
    }
}

impl<St: Store> Shared<St> {
    /// Decides from the head alone, and allocates nothing for what passes.
    fn way<B>(&self, request: Request<B>) -> (Way, Request<B>) {
        let options = &self.options;
        if !options.methods.contains(request.method()) {
            return (Way::Pass, request);
        }
        if !request.headers().contains_key(&options.header_name) && !options.require_key {
            return (Way::Pass, request);
        }
        let (parts, body) = request.into_parts();
        let covered = options.covers.as_ref().is_none_or(|covers| covers(&parts));
        let nested = |context: &IdempotencyContext| context.is_of(self.engine.store.slots());
        let way =
            if !covered || parts.extensions.get().is_some_and(nested) { Way::Pass } else { self.keyed(&parts.headers) };
        (way, Request::from_parts(parts, body))
    }

    fn keyed(&self, headers: &HeaderMap) -> Way {
        let name = &self.options.header_name;
        match header::read_key(headers, name, self.options.strict_keys) {
            Ok(Some(key)) => Way::Exchange(key),
            Ok(None) => {
                let detail = format!("Send an {name} header with a value unique to this operation, such as a UUID.");
                let title = "The idempotency key is missing";
                Way::Refuse(Rejection::new(RejectionKind::KeyMissing, StatusCode::BAD_REQUEST, title, detail))
            }
            Err(error) => {
                let title = "The idempotency key is malformed";
                let detail = error.to_string();
                Way::Refuse(Rejection::new(RejectionKind::KeyMalformed, StatusCode::BAD_REQUEST, title, detail))
            }
        }
    }
}

impl<S, St, B, R> Service<Request<B>> for IdempotencyService<S, St>
where
    S: Service<Request<B::Through>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Future<Output = Result<Response<R>, S::Error>> + Send + 'static,
    S::Error: Send + 'static,
    St: Store,
    B: LayerBody,
    R: LayerBody,
{
    type Response = Response<R::Through>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (way, request) = self.shared.way(request);
        match way {
            Way::Pass => {
                let request = request.map(|body| Passage::Untouched(body).into());
                ResponseFuture::passing(self.inner.call(request))
            }
            Way::Refuse(rejection) => {
                engine::span().record("outcome", rejection.kind.slug());
                ResponseFuture::refused(self.shared.refuse::<R>(rejection))
            }
            Way::Exchange(key) => {
                // The service that was polled ready goes along; the clone takes its place.
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                let exchange = Exchange { shared: Arc::clone(&self.shared), key, service: ready };
                ResponseFuture::exchange(Box::pin(exchange.answer(request)))
            }
        }
    }
}

impl<S: Clone, St> Clone for IdempotencyService<S, St> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, St> fmt::Debug for IdempotencyService<S, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService")
            .field("inner", &self.inner)
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}
