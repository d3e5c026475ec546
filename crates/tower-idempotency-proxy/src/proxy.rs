//! The proxy: a layer around a service that is elsewhere.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::{Layer as _, Service};
use tower_idempotency::server::IdempotencyService;
use tower_idempotency::shutdown::Stopped;
use tower_idempotency::{AnyStore, IdempotencyLayer, Shutdown};

use crate::upstream::Upstream;
use crate::{connections, monitor};

const WELL_KNOWN: &str = "/.well-known/idempotency";

/// A service behind an [`IdempotencyLayer`], on the other side of a connection.
#[derive(Debug, Clone)]
pub struct Proxy {
    layer: IdempotencyLayer<AnyStore>,
    upstream: Upstream,
}

impl Proxy {
    /// Puts a service behind a layer.
    #[must_use]
    pub fn new(layer: IdempotencyLayer<AnyStore>, upstream: Upstream) -> Self {
        Self { layer, upstream }
    }

    /// Returns the proxy as a service of axum's bodies, for a server of your own. Where the layer is
    /// [`discoverable`](IdempotencyLayer::discoverable), it answers `/.well-known/idempotency` itself. The address of a
    /// client is taken from the extension [`ConnectInfo`](axum::extract::ConnectInfo).
    #[must_use]
    pub fn service(&self) -> ProxyService {
        let discovery = self.layer.discovery();
        let is_discoverable = discovery["routes"].as_array().is_some_and(|routes| !routes.is_empty());
        let well_known = is_discoverable.then(|| discovery.to_string().into());
        ProxyService { well_known, layered: self.layer.layer(self.upstream.clone()) }
    }

    /// Serves the proxy at `listen`, over HTTP/1.1 and HTTP/2, and at `monitor` `/metrics`, `/readyz`, `/livez`, and
    /// the operators' page under `/admin`, which is open to this machine alone. `recorder` is what
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
        let routes = monitor::routes(&self.layer, recorder.clone());
        // It ends when this is dropped.
        let mut second = JoinSet::new();
        second.spawn(connections::serve(monitor, routes, std::future::pending()));
        second.spawn(monitor::upkeep(recorder));
        let server = connections::serve(listen, self.service(), shutdown.stop_accepting());
        // Nothing here keeps the store.
        drop(self);
        shutdown.serve(server, signal).await
    }
}

/// A [`Proxy`] as a service.
#[derive(Debug, Clone)]
pub struct ProxyService {
    layered: IdempotencyService<Upstream, AnyStore>,
    /// The answer to `/.well-known/idempotency`.
    well_known: Option<Bytes>,
}

impl Service<Request<Body>> for ProxyService {
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
            _ => Box::pin(self.layered.call(request)),
        }
    }
}
