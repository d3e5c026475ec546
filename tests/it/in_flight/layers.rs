//! A layer within another over the same store passes requests through: one exchange, one record, and no request waits
//! for itself (promise 1).

use axum::body::Body;
use axum::extract::{OriginalUri, Request};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post as route;
use axum::{Router, middleware};
use http::StatusCode;
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, keyed, layer};
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInFlight, Release};

// docs/design.md, section 3, rule 3: a second layer inside an exchange of the same store passes through (trap 76).

#[tokio::test]
async fn a_layer_inside_another_over_the_same_store_passes_through() {
    let layer = IdempotencyLayer::new(MemoryStore::new());
    let mut lab = Lab::counting(layer.clone().methods([http::Method::POST]));
    lab.app = Router::new().fallback_service(lab.app).layer(layer.clone());
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!((lab.effects(), layer.stats().runs), (1, 1));
}

#[tokio::test]
async fn trap_76_a_layer_around_another_store_s_layer_around_itself_does_not_wait_for_itself() {
    let (one, other) = (layer(), layer());
    let app = Router::new().route("/charges", route(async || "done"));
    let lab = Lab::of(app.layer(one.clone()).layer(other.clone()).layer(one.clone()));
    assert_eq!(lab.post("k", "a").await.text(), "done");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!((one.store().len(), other.store().len()), (1, 1));
}

#[tokio::test]
async fn trap_76_a_layer_on_a_nested_router_and_on_the_outer_one_passes_whatever_stands_between() {
    let layer = layer();
    let nested = Router::new().route("/charges", route(async |OriginalUri(uri): OriginalUri| uri.to_string()));
    let between = async |request: Request, next: middleware::Next| -> Response {
        let response = next.run(request).await;
        if response.status() == StatusCode::OK { response } else { Release.into_response() }
    };
    let nested = nested.layer(layer.clone()).layer(middleware::from_fn(between));
    let lab = Lab::of(Router::new().nest("/v1", nested).layer(layer.clone()));
    let charge = || lab.send(keyed("POST", "/v1/charges", "k").body(Body::from("a")).unwrap());
    assert_eq!(charge().await.text(), "/v1/charges");
    assert!(charge().await.is_replay());
    assert_eq!((layer.stats().runs, layer.store().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn trap_76_a_layer_within_an_exchange_of_the_same_store_passes() {
    let store = MemoryStore::new();
    let inner = IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(HOUR)).retention(HOUR);
    let mut lab = Lab::counting(inner);
    lab.app = axum::Router::new().nest("/v1", lab.app).layer(IdempotencyLayer::new(store.clone()));
    let request = || Request::post("/v1/charges").header("idempotency-key", "k").body(Body::empty()).unwrap();
    let first = lab.send(request()).await;
    let retry = lab.send(request()).await;
    assert_eq!((first.text(), first.is_replay()), ("effect 1", false));
    assert_eq!((retry.text(), retry.is_replay()), ("effect 1", true));
    assert_eq!((lab.effects(), store.len()), (1, 1));
}
