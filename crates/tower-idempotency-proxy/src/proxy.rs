//! The proxy: a layer around a service that is elsewhere.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service};
use tower_http::cors::CorsLayer;
use tower_idempotency::server::IdempotencyService;
use tower_idempotency::shutdown::Stopped;
use tower_idempotency::{AnyStore, IdempotencyLayer, Shutdown};

use crate::body::Flushed;
use crate::connections::Room;
use crate::monitor::Monitor;
use crate::places::Places;
use crate::upstream::{Passed, Upstream};
use crate::{connections, monitor};

/// The connections of the second port. They are within the reserve of files.
const OF_MONITOR: usize = 48;
/// The room for the heads of requests and for answers, in parts: a request takes one, and a longer answer more.
const ROOM: usize = 8_192;
const PART: u64 = 64 * 1024;
/// The most parts of an answer. What is longer is not recorded, by default, and passed on as it comes.
const PARTS: u64 = 16;
const WELL_KNOWN: &str = "/.well-known/idempotency";

/// A service behind an [`IdempotencyLayer`], on the other side of a connection.
#[derive(Debug, Clone)]
pub struct Proxy {
    layer: IdempotencyLayer<AnyStore>,
    upstream: Upstream,
    cors: Option<CorsLayer>,
    monitor: Monitor,
}

impl Proxy {
    /// Puts a service behind a layer.
    #[must_use]
    pub fn new(layer: IdempotencyLayer<AnyStore>, upstream: Upstream) -> Self {
        Self { layer, upstream, cors: None, monitor: Monitor::default() }
    }

    /// Lets the proxy answer CORS, for scripts of other origins: preflights, the service's answers, replays, and the
    /// proxy's own answers. What the service says of it is left out. Without this, the service's own answers have what
    /// it says, and replays and refusals have nothing, so that scripts can't read them. `cors` has to allow the header
    /// of the key and to expose those of
    /// [`cors_headers`](tower_idempotency::IdempotencyLayer::cors_headers).
    #[must_use]
    pub fn cors(self, cors: CorsLayer) -> Self {
        Self { cors: Some(cors), upstream: self.upstream.without_cors(), ..self }
    }

    /// Sets the token for the operators' page, which is on the second port under `/admin`: the password that a browser
    /// asks for, or a bearer token. Without it, or with an empty one, there is no page. With it, operations can be
    /// settled and forgotten.
    #[must_use]
    pub fn admin_token(mut self, token: impl Into<String>) -> Self {
        self.monitor.token = Some(token.into());
        self
    }

    /// Adds a name of a host that the second port answers to, besides `localhost` and addresses. A request that names
    /// another host is answered with 421: a page of that host could lead a browser here.
    #[must_use]
    pub fn monitor_host(mut self, name: impl Into<String>) -> Self {
        self.monitor.hosts.push(name.into());
        self
    }

    /// Returns the proxy as a service of axum's bodies, for a server of your own. Where the layer is
    /// [`discoverable`](IdempotencyLayer::discoverable), it answers `/.well-known/idempotency` itself. The address of a
    /// client is taken from the extension [`ConnectInfo`](axum::extract::ConnectInfo).
    ///
    /// hyper ends a request's body if its stream of HTTP/2 is reset without an error. [`serve`](Self::serve) makes that
    /// an error, and a server of your own has to: an upload without a key could otherwise be passed on as a whole one.
    #[must_use]
    pub fn service(&self) -> ProxyService {
        let discovery = self.layer.discovery();
        let is_discoverable = discovery["routes"].as_array().is_some_and(|routes| !routes.is_empty());
        let well_known = is_discoverable.then(|| discovery.to_string().into());
        let (layered, upstream) = (self.layer.layer(self.upstream.clone()), self.upstream.clone());
        let covered = Covered { well_known, layered, upstream, room: Places::with(ROOM) };
        ProxyService(match &self.cors {
            Some(cors) => BoxCloneSyncService::new(cors.layer(covered)),
            None => BoxCloneSyncService::new(covered),
        })
    }

    /// Serves the proxy at `listen`, over HTTP/1.1 and HTTP/2, and at `monitor` `/metrics`, `/readyz`, `/livez`, and
    /// the operators' page under `/admin`, which is for callers on this machine that have the
    /// [token](Self::admin_token). `recorder` is what
    /// [`recorder`](crate::recorder) has returned.
    ///
    /// After `signal` it takes no new key, waits for the runs that are under way, accepts no connection, waits for
    /// those that are open, and closes the store: within the default times of [`Shutdown`]. Call it within a tokio
    /// runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped, the connections of both ports are cut; runs that are under way go on, and are
    /// recorded.
    pub async fn serve(
        self,
        listen: TcpListener,
        monitor: TcpListener,
        recorder: PrometheusHandle,
        signal: impl Future<Output = ()>,
    ) -> Stopped<()> {
        let shutdown = Shutdown::of([self.layer.store().clone()]);
        let routes = monitor::routes(&self.layer, recorder.clone(), self.monitor.clone());
        // It ends when this is dropped.
        let mut second = JoinSet::new();
        second.spawn(connections::serve(monitor, routes, Room::Latest(OF_MONITOR), std::future::pending()));
        second.spawn(monitor::upkeep(recorder));
        let places = Places::of_process();
        places.warn_if_few();
        let server = connections::serve(listen, self.service(), Room::Shares(places), shutdown.stop_accepting());
        // Nothing here keeps the store.
        drop(self);
        shutdown.serve(server, signal).await
    }
}

/// A [`Proxy`] as a service.
#[derive(Debug, Clone)]
pub struct ProxyService(BoxCloneSyncService<Request<Body>, Response, Infallible>);

impl Service<Request<Body>> for ProxyService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

/// The service behind its layer.
#[derive(Clone)]
struct Covered {
    layered: IdempotencyService<Upstream, AnyStore>,
    upstream: Upstream,
    room: Places,
    /// The answer to `/.well-known/idempotency`.
    well_known: Option<Bytes>,
}

impl Service<Request<Body>> for Covered {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.layered.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match &self.well_known {
            Some(known) if request.method() == Method::GET && request.uri().path() == WELL_KNOWN => {
                let answer = ([(CONTENT_TYPE, "application/json")], known.clone()).into_response();
                Box::pin(std::future::ready(Ok(answer)))
            }
            _ => {
                let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
                let Some(part) = self.room.take(client) else {
                    return Box::pin(std::future::ready(Ok(self.upstream.overloaded(false))));
                };
                let (answering, room, upstream) =
                    (self.layered.call(request), self.room.clone(), self.upstream.clone());
                Box::pin(async move {
                    let mut answer = answering.await?;
                    let is_passed = answer.extensions_mut().remove::<Passed>().is_some();
                    let length = if is_passed { 0 } else { answer.body().size_hint().lower() };
                    let more = length.div_ceil(PART).clamp(1, PARTS) as usize - 1;
                    Ok(match room.take_many(client, more) {
                        Some(more) => answer.map(|body| Body::new(Flushed::new(body, [Some(part), Some(more)]))),
                        None => upstream.overloaded(true),
                    })
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
