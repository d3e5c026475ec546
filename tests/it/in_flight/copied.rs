//! A handler that copies its own head, key included, into a request of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::routing::post as route;
use axum::{Router, middleware};
use http::HeaderValue;
use testkit::lab::{Lab, layer, post};
use tower::ServiceExt as _;
use tower_idempotency::{IdempotencyContext, Release};

/// The same head, sent elsewhere.
fn copy(request: Request, target: &'static str) -> Request {
    let (parts, _) = request.into_parts();
    let mut copy = parts.clone();
    copy.uri = target.parse().unwrap();
    Request::from_parts(copy, Body::from("a"))
}

// A seeded fault: a request counts as the exchange's own if it has the exchange's key.
#[tokio::test]
async fn a_mark_of_an_answer_from_a_layer_over_another_store_says_nothing_of_the_handler_that_passes_it_on() {
    let effects = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&effects);
    let below = Router::new().route("/below", route(async || (Release, "busy"))).layer(layer());
    let handler = move |request: Request| {
        let (below, number) = (below.clone(), counted.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            let mut answer = below.oneshot(copy(request, "/below")).await.unwrap();
            *answer.status_mut() = axum::http::StatusCode::OK;
            *answer.body_mut() = Body::from(format!("effect {number}"));
            answer
        }
    };
    let lab = Lab::of(Router::new().route("/charges", route(handler)).layer(layer()));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    let retry = lab.send(post("k", "a")).await;
    assert_eq!((retry.text(), retry.is_replay(), effects.load(Ordering::SeqCst)), ("effect 1", true, 1));
}

// A seeded fault: a request counts as the exchange's own if its head is no copy, whatever its key is.
#[tokio::test]
async fn a_mark_of_an_answer_to_another_key_says_nothing_of_the_exchange_that_passes_it_on() {
    let effects = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&effects);
    let handler = move || async move {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        (Release, format!("effect {number}"))
    };
    let with_another_key = |mut request: Request| {
        request.headers_mut().insert("idempotency-key", HeaderValue::from_static("another"));
        std::future::ready(request)
    };
    let below = Router::new().route("/charges", route(handler)).layer(layer());
    let lab = Lab::of(below.layer(middleware::map_request(with_another_key)).layer(layer()));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), effects.load(Ordering::SeqCst)), ("effect 1", true, 1));
}

// A seeded fault: a request that `covers` leaves out keeps the context that was copied into it.
#[tokio::test]
async fn a_request_that_is_not_covered_has_no_context_of_another_run() {
    let below = async |context: Option<IdempotencyContext>| format!("has a context: {}", context.is_some());
    let inner = layer().covers(|parts| parts.uri.path() != "/below");
    let below = Router::new().route("/below", route(below)).layer(inner);
    let handler = move |request: Request| {
        let below = below.clone();
        async move { below.oneshot(copy(request, "/below")).await.unwrap() }
    };
    let lab = Lab::of(Router::new().route("/charges", route(handler)).layer(layer()));
    assert_eq!(lab.post("k", "a").await.text(), "has a context: false");
}
