//! Promise 8: a request without a key pays almost nothing. A request that has no key, or whose method is not covered,
//! costs no allocation, its body is not touched, and no type changes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use allocation_counter::{AllocationInfo, measure};
use axum::Router;
use axum::body::Body;
use axum::routing::{Route, any};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Request, Response};
use http_body::{Frame, SizeHint};
use tower::layer::util::Identity;
use tower::{Layer, Service, ServiceExt as _, service_fn};
use tower_idempotency::server::ReplayBody;
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted};

fn layer() -> IdempotencyLayer<MemoryStore> {
    IdempotencyLayer::new(MemoryStore::new())
}

fn request(method: Method, key: Option<&'static str>) -> Request<Body> {
    let mut request = Request::new(Body::from("a"));
    *request.method_mut() = method;
    *request.uri_mut() = "/charges".parse().unwrap();
    if let Some(key) = key {
        request.headers_mut().insert("idempotency-key", HeaderValue::from_static(key));
    }
    request
}

/// What one exchange through axum allocates, the layer being warm.
fn cost<L>(layer: L, request: impl Fn() -> Request<Body>) -> AllocationInfo
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request<Body>>>::Future: Send + 'static,
{
    // Given its state, as `axum::serve` does for each connection: before that, axum applies layers at each request.
    let app: Router = Router::new().route("/charges", any(async || "charged")).layer(layer).with_state(());
    let exchange = |request: Request<Body>| {
        let response = app.clone().oneshot(request).now_or_never().expect("it waits for nothing").unwrap();
        assert_eq!(response.status(), 200);
    };
    exchange(request());
    let request = request();
    measure(|| exchange(request))
}

fn counted(cost: &AllocationInfo) -> (u64, u64, u64) {
    (cost.count_total, cost.count_max, cost.bytes_total)
}

#[test]
fn what_passes_allocates_what_it_does_without_the_layer() {
    let silent: [(Method, Option<&str>); 6] = [
        (Method::POST, None),
        (Method::PATCH, None),
        (Method::GET, Some("k")),
        (Method::DELETE, Some("k")),
        (Method::PUT, Some("k")),
        (Method::GET, None),
    ];
    for (method, key) in silent {
        let with = cost(layer(), || request(method.clone(), key));
        let without = cost(Identity::new(), || request(method.clone(), key));
        assert_eq!(counted(&with).0, counted(&without).0, "{method} {key:?}: {with:?}, {without:?}");
        assert!(without.count_total > 0, "allocations are counted: {without:?}");
    }
}

#[tokio::test]
async fn a_key_does_allocate_so_that_the_count_can_differ() {
    let app: Router = Router::new().route("/charges", any(async || "charged")).layer(layer()).with_state(());
    app.clone().oneshot(request(Method::POST, Some("k"))).await.unwrap();
    let request = request(Method::POST, Some("k"));
    let replay = measure(|| {
        let response = app.oneshot(request).now_or_never().expect("a replay waits for nothing").unwrap();
        assert_eq!(response.headers()["idempotent-replayed"], "true");
    });
    let without = cost(Identity::new(), || self::request(Method::POST, None));
    assert!(counted(&replay) > counted(&without), "{replay:?}, {without:?}");
}

// What a request with a key allocates beyond a bare handler. A block more costs some hundred instructions.
#[test]
fn a_request_with_a_key_allocates_few_blocks() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bare: Router = Router::new().route("/charges", any(async || "charged"));
    let layered = bare.clone().layer(layer().on_interrupted(OnInterrupted::Rerun));
    let [bare, layered] = [bare, layered].map(|app| app.with_state(()));
    let blocks = |app: &Router, key, is_replay| {
        let request = request(Method::POST, Some(key));
        let cost = measure(|| {
            let response = runtime.block_on(app.clone().oneshot(request)).unwrap();
            assert_eq!(response.headers().contains_key("idempotent-replayed"), is_replay);
        });
        cost.count_total
    };
    // The maps of the store and of the slots grow now and then, and each part of them at first. So the least counts.
    let least = |is_replay| {
        let more = |number| {
            let key = format!("key-{number}").leak();
            blocks(&layered, key, is_replay) - blocks(&bare, key, false)
        };
        (0..200).map(more).min().unwrap()
    };
    let (first, replay) = (least(false), least(true));
    // A request and what is known of it once its body was read are a block each.
    assert!(first <= 20 && replay <= 4, "{first} and {replay} blocks more");
}

/// Fails the test when it is read; says how long it would be.
struct Untouchable(u64);

impl http_body::Body for Untouchable {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body was read");
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

/// Longer than any limit.
const LONG: Untouchable = Untouchable(1 << 40);

fn hint(body: &impl http_body::Body) -> (u64, Option<u64>, bool) {
    (body.size_hint().lower(), body.size_hint().upper(), body.is_end_stream())
}

#[tokio::test]
async fn what_passes_keeps_its_body_unread_in_both_directions() {
    let expected = hint(&LONG);
    // The inner service takes and gives axum's own body: the type does not change.
    let handler = service_fn(move |request: Request<Body>| async move {
        assert_eq!(hint(request.body()), expected);
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let service = layer().layer(handler);
    let bodies = [(Method::POST, None), (Method::GET, Some("k")), (Method::PUT, Some("k"))];
    for (method, key) in bodies {
        let request = request(method, key).map(|_| Body::new(LONG));
        let response: Response<Body> = service.clone().oneshot(request).await.unwrap();
        assert_eq!(hint(response.body()), expected);
    }
}

#[tokio::test]
async fn in_another_stack_too_the_body_is_only_wrapped() {
    type Unread = http_body_util::combinators::BoxBody<Bytes, Infallible>;
    let expected = hint(&LONG);
    let handler = service_fn(move |request: Request<ReplayBody<Unread>>| async move {
        assert_eq!(hint(request.body()), expected);
        Ok::<_, Infallible>(Response::new(Unread::new(LONG)))
    });
    let request = request(Method::POST, None).map(|_| Unread::new(LONG));
    let response: Response<ReplayBody<Unread>> = layer().any_body().layer(handler).oneshot(request).await.unwrap();
    assert_eq!(hint(response.body()), expected);
}

#[tokio::test]
#[should_panic(expected = "the body was read")]
async fn with_a_key_the_body_is_read_so_that_the_test_can_fail() {
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let request = request(Method::POST, Some("k")).map(|_| Body::new(Untouchable(1)));
    let _ = layer().layer(handler).oneshot(request).await;
}
