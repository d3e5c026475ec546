//! The service: passes a request on, rejects it, or begins an exchange.

use std::fmt;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response};
use tower_service::Service;

use super::bodies::body::{BodyMode, KeepBody, Passage, SendBody, Through};
use super::fingerprint::target::Target;
use super::future::ResponseFuture;
use super::header;
use super::layer_state::LayerState;
use super::options::Options;
use super::read_on::Connection;
use super::reject::reasons;
use super::reject::rejection::Rejection;
use super::request::Exchange;
use super::run_context::context::IdempotencyContext;
use crate::engine::{self, Facts};
use crate::key::Key;
use crate::store::Store;

/// Up to this number of header fields, it is cheaper to compare all names than to hash one that `http` doesn't know.
const FEW_HEADERS: usize = 8;

/// A service behind an [`IdempotencyLayer`](crate::IdempotencyLayer).
pub struct IdempotencyService<S, St, M = KeepBody> {
    inner: S,
    /// The engine and the options, which all services of the layer share.
    shared: Arc<LayerState<St>>,
    /// `fn() -> M` keeps the service `Send` and `Sync`, whatever `M` is.
    mode: PhantomData<fn() -> M>,
}

/// The next step for a request.
enum Way {
    /// The inner service gets it untouched: it is not covered, or it is within an exchange of its own operation.
    Pass,
    /// It has this key, and `request.rs` answers it.
    Exchange(Key),
    /// Its key is missing or malformed.
    Reject(Rejection),
}

impl<S, St, M> IdempotencyService<S, St, M> {
    /// Puts `inner` behind the layer with this state. `layer.rs` calls it.
    pub(super) fn behind(shared: Arc<LayerState<St>>, inner: S) -> Self {
        Self { inner, shared, mode: PhantomData }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<St: Store> LayerState<St> {
    /// Returns whether a request passes because its method is not covered, or because it has no key and needs none.
    /// Most requests do. The head alone says so, without an allocation.
    fn passes<B>(&self, request: &Request<B>) -> bool {
        let options = &self.options;
        let is_covered = options.methods.iter().any(|covered| covered == request.method());
        !is_covered || !(options.require_key || has(request.headers(), &options.header_name))
    }

    /// Returns the next step for a request that does not simply [pass](Self::passes). A request that is not covered
    /// loses a context that was copied into it.
    fn way(&self, parts: &mut Parts) -> Way {
        if self.options.covers.as_ref().is_some_and(|covers| !covers(parts)) {
            IdempotencyContext::remove_copy(&mut parts.extensions);
            return Way::Pass;
        }
        let name = &self.options.header_name;
        match header::read_key(&parts.headers, name, self.options.strict_keys) {
            Ok(Some(key)) if self.is_enclosed(parts, &key) => Way::Pass,
            Ok(Some(key)) => Way::Exchange(key),
            Ok(None) => Way::Reject(reasons::key_missing(name)),
            Err(error) => Way::Reject(reasons::key_malformed(&error)),
        }
    }

    /// Returns whether the request is within an exchange over this store for the same operation. It is when there is a
    /// layer on a nested router and another one on the outer router. When a handler sends a request that belongs to
    /// another operation, that request is an exchange of its own, even if its head is a copy of the handler's.
    fn is_enclosed(&self, parts: &Parts, key: &Key) -> bool {
        let Some(enclosing) = parts.extensions.get::<IdempotencyContext>() else { return false };
        let mut going_on = enclosing.goes_on_in(self.engine.store.slots()).peekable();
        if going_on.peek().is_none() {
            return false;
        }
        // The application's scope function is called only if such an exchange goes on. If it rejects the request, the
        // request becomes an exchange, which calls the function again and answers with its rejection.
        let Ok(scope) = self.options.scope_of(parts) else { return false };
        // A nested router shows the request of the exchange itself with another path.
        let path = match enclosing.is_of_sub_request(key) {
            true => self.options.path_of_id(parts),
            false => enclosing.path_of_id().map(Into::into),
        };
        Options::record_id(scope.as_ref(), key, path.as_deref())
            .is_ok_and(|id| going_on.any(|context| context.record_id() == id))
    }
}

impl<S, St, M, B, R> Service<Request<B>> for IdempotencyService<S, St, M>
where
    S: Service<Request<Through<M, B>>, Response = Response<R>, Future: Send, Error: Send> + Clone + Send + 'static,
    St: Store,
    M: BodyMode<B> + BodyMode<R>,
    B: SendBody,
    R: SendBody,
{
    type Response = Response<Through<M, R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, Through<M, R>, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.shared.passes(&request) {
            // A handler may have copied its context into this request, whose handler would take it for its own.
            IdempotencyContext::remove_copy(request.extensions_mut());
            if self.shared.options.may_describe(request.method(), request.headers()) {
                return self.describe(request);
            }
            return ResponseFuture::passing(self.inner.call(untouched::<M, B>(request)));
        }
        self.exchange(request)
    }
}

impl<S, St: Store, M> IdempotencyService<S, St, M> {
    /// Does what few requests need. `call`, which every request goes through, stays short that way.
    #[inline(never)]
    fn exchange<B, R>(&mut self, request: Request<B>) -> ResponseFuture<S::Future, Through<M, R>, S::Error>
    where
        S: Service<Request<Through<M, B>>, Response = Response<R>, Future: Send, Error: Send> + Clone + Send + 'static,
        M: BodyMode<B> + BodyMode<R>,
        B: SendBody,
        R: SendBody,
    {
        let (mut parts, body) = request.into_parts();
        let echo = self.shared.options.echo(&parts.headers);
        match self.shared.way(&mut parts) {
            Way::Pass => ResponseFuture::passing(self.inner.call(untouched::<M, B>(Request::from_parts(parts, body)))),
            Way::Reject(rejection) => {
                // Without a valid key there is no record id, so the log line has none.
                let connection = Connection::of(&parts);
                let rejection = self.shared.reject::<M, R>(connection, &engine::span(), Facts::default(), rejection);
                let answer = async move { Ok(connection.read_on(pin!(body), rejection).await) };
                ResponseFuture::exchange(Box::pin(answer), echo)
            }
            Way::Exchange(key) => {
                let service = self.take_ready();
                // The body is handed to `answer`, which reads it and then puts it here.
                let unread = Passage::Whole { data: Bytes::new(), trailers: None };
                let shared = Arc::clone(&self.shared);
                let exchange = Box::new(Exchange {
                    shared,
                    key,
                    service,
                    parts,
                    body: unread,
                    scope: None,
                    path: None,
                    share: None,
                });
                ResponseFuture::exchange(Box::pin(exchange.answer::<M, R, S::Error>(body)), echo)
            }
        }
    }

    /// Passes an `OPTIONS` request on, and answers it if the application does not.
    #[inline(never)]
    fn describe<B, R>(&mut self, request: Request<B>) -> ResponseFuture<S::Future, Through<M, R>, S::Error>
    where
        S: Service<Request<Through<M, B>>, Response = Response<R>, Future: Send, Error: Send> + Clone + Send + 'static,
        M: BodyMode<B> + BodyMode<R>,
        B: SendBody,
        R: SendBody,
    {
        let mut service = self.take_ready();
        let shared = Arc::clone(&self.shared);
        let answer = async move {
            let (parts, body) = request.into_parts();
            let path = Target::of(&parts).path().into_owned();
            let answer = service.call(untouched::<M, B>(Request::from_parts(parts, body))).await?;
            Ok(match shared.described(&path, &answer) {
                Some(described) => described.map(|data| Passage::<R>::Whole { data, trailers: None }.into()),
                None => answer.map(|body| Passage::Untouched(body).into()),
            })
        };
        ResponseFuture::exchange(Box::pin(answer), None)
    }

    /// Takes the service that was polled ready, and leaves a clone in its place.
    fn take_ready(&mut self) -> S
    where
        S: Clone,
    {
        let clone = self.inner.clone();
        std::mem::replace(&mut self.inner, clone)
    }
}

/// Returns whether there is a header field with this name.
#[inline]
fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    if headers.keys_len() <= FEW_HEADERS {
        headers.keys().any(|other| other == name)
    } else {
        headers.contains_key(name)
    }
}

/// Gives the body the type of the mode `M`, and does not read it.
fn untouched<M: BodyMode<B>, B: SendBody>(request: Request<B>) -> Request<Through<M, B>> {
    request.map(|body| Passage::Untouched(body).into())
}

impl<S: Clone, St, M> Clone for IdempotencyService<S, St, M> {
    fn clone(&self) -> Self {
        Self::behind(Arc::clone(&self.shared), self.inner.clone())
    }
}

impl<S: fmt::Debug, St, M> fmt::Debug for IdempotencyService<S, St, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService")
            .field("inner", &self.inner)
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "axum", feature = "sled"))]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Body;
    use http::{HeaderValue, Method};
    use tower::service_fn;

    use super::super::options::{Hook, Options};
    use super::*;
    use crate::{MemoryStore, SledStore};

    /// The longest block that glibc's allocator keeps for the thread that has freed it. Others cost several times as
    /// much, so one is enough to lose what all others gain.
    const MAX_BYTES: usize = 1_032;

    /// Returns the sizes of the futures of an exchange and of its run.
    async fn sizes(store: impl Store) -> [usize; 2] {
        let run = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&run);
        let wrap_run = Hook::<engine::WrapRun>(Arc::new(move |run| {
            seen.store(size_of_val(&*run), Ordering::Relaxed);
            run
        }));
        let options = Options { wrap_run: Some(wrap_run), ..Options::default() };
        let charge = service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let shared = Arc::new(LayerState::new(Arc::new(store), Arc::new(options)));
        let mut service = IdempotencyService::<_, _>::behind(shared, charge);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::POST;
        request.headers_mut().insert("idempotency-key", HeaderValue::from_static("k"));
        let answering = service.call(request);
        let exchange = answering.size();
        let Ok(_) = answering.await;
        [exchange, run.load(Ordering::Relaxed)]
    }

    #[tokio::test]
    async fn no_future_of_an_exchange_is_longer_than_what_a_thread_keeps() {
        let directory = tempfile::tempdir().expect("a directory");
        let sled = SledStore::open(directory.path()).expect("a store");
        for [exchange, run] in [sizes(MemoryStore::new()).await, sizes(sled).await] {
            assert!((1..=MAX_BYTES).contains(&exchange) && (1..=MAX_BYTES).contains(&run), "{exchange}, {run}");
        }
    }
}
