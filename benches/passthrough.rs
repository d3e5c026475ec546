//! Counts the price of the layer for a request that it does not cover.
//!
//! `cargo bench --bench passthrough`. It counts, and does not time: instructions with callgrind (Debian's `valgrind`),
//! allocations with the allocator. There is no subscriber of tracing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::convert::Infallible;
use std::future::ready;
use std::hint::black_box;

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response};
use testkit::bench::callgrind::{NO_VALGRIND, counted, instructions, skip};
use testkit::bench::estimate::Estimate;
use testkit::bench::exchange::KEY;
use testkit::bench::report::Report;
use tower::layer::util::Identity;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_idempotency::{IdempotencyLayer, MemoryStore};

const MOST_INSTRUCTIONS: f64 = 300.0;
/// The stacks without and with the layer. `Router::layer` has a cost of its own for any layer: two boxes.
const STACKS: [(&str, &str); 2] = [("service", "layer"), ("router-and-identity", "router-and-layer")];
/// The headers that an SDK sends with every request.
const USUAL: [(HeaderName, &str); 7] = [
    (HOST, "pay.example"),
    (USER_AGENT, "pay-sdk/1.0"),
    (ACCEPT, "*/*"),
    (AUTHORIZATION, "Bearer sk_test_a"),
    (CONTENT_TYPE, "application/x-www-form-urlencoded"),
    (CONTENT_LENGTH, "39"),
    (HeaderName::from_static("x-request-id"), "1f3c"),
];
const REQUESTS: [&str; 3] = ["without-key", "without-key-20-headers", "get"];
/// The number of headers that a browser and a proxy add.
const MORE: u8 = 13;

fn main() {
    if let Some((what, times)) = counted() {
        let (stack, request) = what.split_once('/').unwrap();
        let mut exchange = exchange(stack, request);
        return (0..times).for_each(|_| exchange());
    }
    let question = "What does a request that the layer does not cover pay for it?";
    let mut report = Report::new("passthrough", "cargo bench --bench passthrough", question);
    for request in REQUESTS {
        for (bare, protected) in STACKS {
            let names = [bare, protected].map(|stack| format!("{stack}/{request}"));
            let [without, with] = [&names[0], &names[1]].map(|what| allocations(what));
            report.row(request, bare, "allocations", Estimate::exact(without));
            report.row(request, protected, "allocations", Estimate::exact(with));
            report.at_most(&format!("{request}/{protected}/allocations"), Estimate::exact(with - without), 0.0);
            let [Ok(without), Ok(with)] = [&names[0], &names[1]].map(|what| instructions(what)) else {
                skip(NO_VALGRIND);
                continue;
            };
            report.row(request, bare, "instructions", Estimate::exact(without));
            report.row(request, protected, "instructions", Estimate::exact(with));
            let more = Estimate::exact(with - without);
            report.at_most(&format!("{request}/{protected}/instructions"), more, MOST_INSTRUCTIONS);
        }
    }
    report.finish();
}

/// Returns one exchange of this kind, with the stack set up before.
fn exchange(stack: &str, request: &str) -> Box<dyn FnMut()> {
    let bare = || service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    let router = || Router::new().route("/charges", any(async || ()));
    let layer = || IdempotencyLayer::new(MemoryStore::new());
    let request = match request {
        "get" => || with_key(Method::GET),
        "without-key-20-headers" => many_headers,
        _ => || without_key(Method::POST),
    };
    match stack {
        "service" => through(bare(), request),
        "layer" => through(layer().layer(bare()), request),
        // The router has its state already, as `axum::serve` gives it for each connection. Without it, axum applies
        // layers at each request.
        "router-and-identity" => through(router().layer(Identity::new()).with_state(()), request),
        _ => through(router().layer(layer()).with_state(()), request),
    }
}

fn through<S>(mut service: S, request: fn() -> Request<Body>) -> Box<dyn FnMut()>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + 'static,
{
    Box::new(move || {
        let Ok(ready) = service.ready().now_or_never().unwrap();
        let Ok(response) = ready.call(request()).now_or_never().unwrap();
        assert_eq!(black_box(response).status(), 200);
    })
}

fn without_key(method: Method) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = "/charges".parse().unwrap();
    for (name, value) in USUAL {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

fn many_headers() -> Request<Body> {
    let mut request = without_key(Method::POST);
    for letter in (b'a'..).take(MORE.into()) {
        let name = HeaderName::from_bytes(&[b'x', b'-', letter]).unwrap();
        request.headers_mut().insert(name, HeaderValue::from_static("1"));
    }
    request
}

fn with_key(method: Method) -> Request<Body> {
    let mut request = without_key(method);
    request.headers_mut().insert(KEY, HeaderValue::from_static("8e03978e-40d5-43dd-bc93-6894a57f9324"));
    request
}

fn allocations(what: &str) -> f64 {
    let (stack, request) = what.split_once('/').unwrap();
    let mut exchange = exchange(stack, request);
    exchange();
    allocation_counter::measure(exchange).count_total as f64
}
