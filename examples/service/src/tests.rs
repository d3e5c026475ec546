//! What its clients and its operators get.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::body::{Body, to_bytes};
use axum::http::Request;
use tower::ServiceExt as _;

use super::{Router, Settings, SledStore, app};

const ALICE: &str = "Bearer alice";
const ANN: &str = "Basic YW5uOnNlY3JldA==";

/// Returns the status, whether it is a replay, and the body.
async fn send(app: &Router, request: Request<Body>) -> (u16, bool, String) {
    let response = app.clone().oneshot(request).await.unwrap();
    let (status, replay) = (response.status().as_u16(), response.headers().contains_key("idempotent-replayed"));
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, replay, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(app: &Router, path: &str, credentials: &str) -> (u16, bool, String) {
    send(app, Request::get(path).header("authorization", credentials).body(Body::empty()).unwrap()).await
}

/// Sends a charge twice, and returns both statuses and whether the second answer is a replay.
async fn twice(app: &Router, credentials: &str, key: &str, cents: &str) -> (u16, u16, bool) {
    let charge = || {
        let request = Request::post("/charges").header("authorization", credentials).header("idempotency-key", key);
        request.header("content-type", "application/json").body(Body::from(cents.to_owned())).unwrap()
    };
    let (first, second) = (send(app, charge()).await, send(app, charge()).await);
    (first.0, second.0, second.1)
}

#[tokio::test]
async fn clients_are_charged_once_and_operators_see_what_is_unknown() {
    let Settings { layer, sled, .. } = toml::from_str(include_str!("../service.toml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = sled.apply(SledStore::builder()).open(directory.path().join("s")).unwrap();
    let app = app(store, layer).unwrap();

    assert_eq!(twice(&app, "Bearer mallory", "k", "500").await, (401, 401, false));
    assert_eq!(twice(&app, ALICE, "k", "500").await, (200, 200, true));
    // Another account has keys of its own.
    assert_eq!(twice(&app, "Bearer bob", "k", "700").await, (200, 200, true));
    assert_eq!(twice(&app, ALICE, "declined", "402").await, (402, 402, true));
    assert_eq!(twice(&app, ALICE, "busy", "503").await, (503, 503, false));
    assert_eq!(twice(&app, ALICE, "timed-out", "504").await, (502, 409, false));
    assert_eq!(twice(&app, ALICE, "no-number", "x").await, (400, 400, true));

    assert_eq!(get(&app, "/admin", ALICE).await.0, 401);
    let (status, _, page) = get(&app, "/admin", ANN).await;
    assert!(status == 200 && page.contains("/charges for account-1"), "{status}: {page}");
    let (status, _, scraped) = get(&app, "/metrics", "").await;
    assert!(status == 200 && scraped.contains("idempotency_interrupted_operations 1"), "{status}: {scraped}");
    assert_eq!(get(&app, "/readyz", "").await.0, 200);
}
