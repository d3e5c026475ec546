//! The compile matrix, running: every place where people put a layer, over a socket, with HTTP/1.1 and HTTP/2. tonic is
//! in `examples/grpc`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::response::Response as AxumResponse;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use testkit::lab::layer;
use testkit::{Answer, Call, Connection};
use tokio::net::TcpListener;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_http::validate_request::ValidateRequestHeaderLayer;
use tower_idempotency::server::{AnyBody, BodyMode, IdempotencyService, KeepBody, ReplayBody};
use tower_idempotency::store::Store;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

#[derive(Clone, Default)]
struct Effects(Arc<AtomicUsize>);

impl Effects {
    /// Counts one more effect, and returns a text that is long enough to be compressed.
    fn one(&self) -> String {
        format!("effect {} {}", self.0.fetch_add(1, Ordering::SeqCst) + 1, "-".repeat(100))
    }

    fn handler(&self) -> MethodRouter {
        let effects = self.clone();
        post(async move || effects.one())
    }
}

/// Serves each connection with `service`, at the address that it returns.
async fn serve<S, B>(service: S) -> std::net::SocketAddr
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let connection = auto::Builder::new(TokioExecutor::new());
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// Sends one request on a connection of its own.
async fn send(address: std::net::SocketAddr, h2: bool, key: Option<&str>) -> Answer {
    let call = Call::post("/charges", "amount=1").header("authorization", "Bearer token");
    let call = call.header("accept-encoding", "gzip");
    let call = key.into_iter().fold(call, |call, key| call.header("idempotency-key", key));
    let connection = if h2 { Connection::http2(address).await } else { Connection::http1(address).await };
    connection.unwrap().send(&call).await.unwrap()
}

/// Checks with both versions of HTTP that a retry is replayed, and that a request without a key passes.
async fn check_hyper<S, B>(service: S, effects: &Effects) -> Vec<Answer>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let address = serve(service).await;
    let mut answers = Vec::new();
    for (round, h2) in [(0, false), (1, true)] {
        let key = format!("k{round}");
        let first = send(address, h2, Some(&key)).await;
        let retry = send(address, h2, Some(&key)).await;
        assert_eq!(effects.0.load(Ordering::SeqCst), 2 * round + 1, "one effect, HTTP/2: {h2}");
        // The other version of HTTP sends the same request, as far as the layer is concerned.
        let other = send(address, !h2, Some(&key)).await;
        for retry in [&retry, &other] {
            assert_eq!((first.status, &first.body), (retry.status, &retry.body), "HTTP/2: {h2}");
            assert_eq!(retry.headers["idempotent-replayed"], "true");
        }
        let bare = send(address, h2, None).await;
        for answer in [&first, &bare] {
            assert_eq!((answer.status, answer.body.is_empty()), (StatusCode::OK, false), "HTTP/2: {h2}");
            assert!(!answer.headers.contains_key("idempotent-replayed"));
        }
        assert_ne!(first.body, bare.body);
        assert_eq!(effects.0.load(Ordering::SeqCst), 2 * round + 2);
        answers.extend([first, retry, bare]);
    }
    answers
}

async fn check<S, B>(service: S, effects: &Effects) -> Vec<Answer>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    check_hyper(TowerToHyperService::new(service), effects).await
}

#[tokio::test]
async fn router_layer() {
    let effects = Effects::default();
    check(Router::new().route("/charges", effects.handler()).layer(layer()), &effects).await;
}

#[tokio::test]
async fn router_route_layer() {
    let effects = Effects::default();
    check(Router::new().route("/charges", effects.handler()).route_layer(layer()), &effects).await;
}

#[tokio::test]
async fn method_router_layer() {
    let effects = Effects::default();
    check(Router::new().route("/charges", effects.handler().layer(layer())), &effects).await;
}

#[tokio::test]
async fn a_handler_with_a_layer() {
    let effects = Effects::default();
    let counted = effects.clone();
    let handler = axum::handler::Handler::layer(async move || counted.one(), layer());
    check(Router::new().route("/charges", post(handler)), &effects).await;
}

#[tokio::test]
async fn within_nested_routers_and_routes_of_services() {
    let effects = Effects::default();
    let nested = Router::new().route("/", effects.handler()).layer(layer());
    check(Router::new().nest("/charges", nested), &effects).await;
    let effects = Effects::default();
    let service = BoxCloneSyncService::new(layer().layer(Router::new().fallback(effects.handler())));
    check(Router::new().route_service("/charges", service), &effects).await;
}

async fn pass(request: axum::extract::Request, next: Next) -> AxumResponse {
    next.run(request).await
}

#[tokio::test]
async fn service_builder_with_from_fn_on_either_side() {
    let effects = Effects::default();
    let stack = ServiceBuilder::new().layer(from_fn(pass)).layer(layer()).layer(from_fn(pass));
    check(Router::new().route("/charges", effects.handler()).layer(stack), &effects).await;
}

#[tokio::test]
async fn from_fn_outside_and_inside_by_router_layers() {
    let effects = Effects::default();
    let app = Router::new().route("/charges", effects.handler());
    check(app.layer(from_fn(pass)).layer(layer()).layer(from_fn(pass)), &effects).await;
}

/// Compression is between them and the layer, so that the others are given another body than axum's.
#[tokio::test]
async fn tower_http_layers_outside() {
    let effects = Effects::default();
    let stack = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(CorsLayer::permissive())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(60)))
        .layer(ValidateRequestHeaderLayer::bearer("token"))
        .layer(CompressionLayer::new())
        .layer(layer());
    let answers = check(Router::new().route("/charges", effects.handler()).layer(stack), &effects).await;
    for answer in answers {
        assert_eq!(answer.headers[CONTENT_ENCODING], "gzip");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
    }
}

#[tokio::test]
async fn tower_http_layers_outside_one_by_one() {
    let minute = Duration::from_secs(60);
    let effects = || Effects::default();
    let app = |effects: &Effects| Router::new().route("/charges", effects.handler()).layer(layer());
    let one = effects();
    check(app(&one).layer(TraceLayer::new_for_http()), &one).await;
    let one = effects();
    check(app(&one).layer(CorsLayer::permissive()), &one).await;
    let one = effects();
    check(app(&one).layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, minute)), &one).await;
    let one = effects();
    check(app(&one).layer(CompressionLayer::new()), &one).await;
    let one = effects();
    check(app(&one).layer(ValidateRequestHeaderLayer::bearer("token")), &one).await;
    let one = effects();
    check(app(&one).layer(ValidateRequestHeaderLayer::accept("*/*")), &one).await;
}

/// A handler of a stack without axum: its request and its answer have the stack's own bodies, wrapped.
fn bare(
    effects: &Effects,
) -> impl Service<
    Request<ReplayBody<Incoming>>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static {
    let effects = effects.clone();
    service_fn(move |request: Request<ReplayBody<Incoming>>| {
        let effects = effects.clone();
        async move {
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "amount=1");
            Ok(Response::new(Full::from(effects.one())))
        }
    })
}

#[tokio::test]
async fn hyper_without_axum() {
    let effects = Effects::default();
    check(layer().any_body().layer(bare(&effects)), &effects).await;
}

#[tokio::test]
async fn hypers_service_fn() {
    let effects = Effects::default();
    let service = layer().any_body().layer(bare(&effects));
    let hyper = hyper::service::service_fn(move |request| service.clone().oneshot(request));
    check_hyper(hyper, &effects).await;
}

#[tokio::test]
async fn hyper_with_layers_that_make_a_body_by_default() {
    let effects = Effects::default();
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(CorsLayer::permissive())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(60)))
        .layer(ValidateRequestHeaderLayer::bearer("token"))
        .layer(layer().any_body())
        .service(bare(&effects));
    check(service, &effects).await;
}

#[tokio::test]
async fn boxed_services_and_boxed_bodies() {
    type Boxed = BoxBody<Bytes, Infallible>;
    let effects = Effects::default();
    let inner = bare(&effects).map_response(|response: Response<Full<Bytes>>| response.map(Boxed::new));
    let service: BoxCloneSyncService<Request<Incoming>, Response<ReplayBody<Boxed>>, Infallible> =
        BoxCloneSyncService::new(layer().any_body().layer(inner));
    check(service, &effects).await;
}

fn is_shared<T: Clone + Send + Sync + 'static>() {}

fn has_default<T: Default>() {}

/// Compiles for every store, though a store need not be `Clone`.
fn a_layer_is_shared_whatever_its_store<St: Store>() {
    is_shared::<IdempotencyLayer<St>>();
    is_shared::<IdempotencyService<Router, St>>();
}

#[test]
fn a_layer_can_be_cloned_and_sent_and_its_bodies_have_a_default() {
    a_layer_is_shared_whatever_its_store::<MemoryStore>();
    has_default::<<AnyBody as BodyMode<Full<Bytes>>>::Through>();
    has_default::<<AnyBody as BodyMode<Incoming>>::Through>();
    has_default::<<AnyBody as BodyMode<BoxBody<Bytes, Infallible>>>::Through>();
    has_default::<<KeepBody as BodyMode<Body>>::Through>();
}
