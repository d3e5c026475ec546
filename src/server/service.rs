//! The service: passes a request on, rejects it, or begins an exchange. It asks `gate/way.rs` twice: a first look at
//! the head, which most requests pass, and then for the way of the others.

use std::fmt;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::sync::oneshot;
use tower_layer::Layer;
use tower_service::Service;

use super::bodies::body::{BodyMode, KeepBody, Passage, SendBody, Through, in_mode};
use super::bodies::read_on::Connection;
use super::context::IdempotencyContext;
use super::fingerprint::target::Target;
use super::future::ResponseFuture;
use super::gate::probe;
use super::gate::way::Way;
use super::layer::layer::IdempotencyLayer;
use super::layer_state::LayerState;
use super::request::Incoming;
use super::rpc::live;
use crate::engine::{self, Facts};
use crate::store::Store;

/// A service behind an [`IdempotencyLayer`](crate::IdempotencyLayer).
pub struct IdempotencyService<S, St, M = KeepBody> {
    inner: S,
    /// The engine and the options, which all services of the layer share.
    layer: Arc<LayerState<St>>,
    /// `fn() -> M` keeps the service `Send` and `Sync`, whatever `M` is.
    mode: PhantomData<fn() -> M>,
}

impl<S, St, M> IdempotencyService<S, St, M> {
    /// Puts `inner` behind the layer with this state.
    fn behind(layer: Arc<LayerState<St>>, inner: S) -> Self {
        Self { inner, layer, mode: PhantomData }
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
        if self.layer.passes(&request) {
            // A handler may have copied its context into this request, whose handler would take it for its own.
            IdempotencyContext::remove_copy(request.extensions_mut());
            if !self.layer.options.may_describe(request.method(), request.headers()) {
                return ResponseFuture::passing(self.inner.call(untouched::<M, B>(request)));
            }
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
        let echo = self.layer.options.echo(&parts.headers);
        let is_probe = probe::is_probe(&parts.headers);
        match self.layer.way(&mut parts, is_probe) {
            Way::Pass => ResponseFuture::passing(self.inner.call(untouched::<M, B>(Request::from_parts(parts, body)))),
            Way::Reject(rejection) => {
                // Without a valid key there is no record id, so the log line has none.
                let connection = Connection::of(&parts, is_probe);
                let rejection = self.layer.reject(connection, &engine::span(), Facts::default(), rejection);
                let rejection = in_mode::<M, R>(rejection);
                let answer = async move { Ok(connection.read_on(pin!(body), rejection).await) };
                ResponseFuture::boxed(Box::pin(answer), echo)
            }
            Way::Exchange(key) => {
                let (layer, service) = (Arc::clone(&self.layer), take_ready(&mut self.inner));
                let has_streams = !layer.options.max_stream.is_zero();
                let (early, begun) = has_streams.then(oneshot::channel).unzip();
                let incoming =
                    Incoming { layer, key, service, parts, reply: None, early, mode: PhantomData::<fn(B) -> M> };
                let answer = Box::pin(Box::new(incoming).answer(body, is_probe));
                match begun {
                    None => ResponseFuture::boxed(answer, echo),
                    Some(begun) => ResponseFuture::boxed(Box::pin(live::answer::<M, R, _>(begun, answer)), echo),
                }
            }
            // The request is passed on, and answered if the application does not.
            Way::Describe => {
                let (layer, mut service) = (Arc::clone(&self.layer), take_ready(&mut self.inner));
                let answer = async move {
                    let path = Target::of(&parts).path().into_owned();
                    let answer = service.call(untouched::<M, B>(Request::from_parts(parts, body))).await?;
                    Ok(match layer.described(&path, &answer) {
                        Some(described) => in_mode::<M, R>((described, None)),
                        None => answer.map(|body| Passage::Untouched(body).into()),
                    })
                };
                ResponseFuture::boxed(Box::pin(answer), None)
            }
        }
    }
}

impl<S, St: Store, M> Layer<S> for IdempotencyLayer<St, M> {
    type Service = IdempotencyService<S, St, M>;

    /// # Panics
    /// If an option has a name that can't be meant: see [`check`](IdempotencyLayer::check).
    fn layer(&self, inner: S) -> Self::Service {
        if let Err(wrong) = self.check() {
            panic!("{wrong}");
        }
        self.state().warn();
        IdempotencyService::behind(Arc::clone(self.state()), inner)
    }
}

/// Constructors, as in tower-http.
impl<S, St: Store> IdempotencyService<S, St> {
    /// Puts `inner` behind a layer over `store` with the default options.
    #[must_use]
    pub fn new(inner: S, store: St) -> Self {
        Self::layer(store).layer(inner)
    }

    /// Creates a layer over `store` with the default options: see [`IdempotencyLayer::new`].
    pub fn layer(store: St) -> IdempotencyLayer<St> {
        IdempotencyLayer::new(store)
    }
}

/// Takes the service that was polled ready, and leaves a clone in its place.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    std::mem::replace(service, clone)
}

/// Gives the body the type of the mode `M`, and does not read it.
fn untouched<M: BodyMode<B>, B: SendBody>(request: Request<B>) -> Request<Through<M, B>> {
    request.map(|body| Passage::Untouched(body).into())
}

impl<S: Clone, St, M> Clone for IdempotencyService<S, St, M> {
    fn clone(&self) -> Self {
        Self::behind(Arc::clone(&self.layer), self.inner.clone())
    }
}

impl<S: fmt::Debug, St, M> fmt::Debug for IdempotencyService<S, St, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService")
            .field("inner", &self.inner)
            .field("options", &self.layer.options)
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

    /// The most bytes of a future. Section 12 of `docs/design.md` says why.
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
        let layer = Arc::new(LayerState::new(Arc::new(store), Arc::new(options)));
        let mut service = IdempotencyService::<_, _>::behind(layer, charge);
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
