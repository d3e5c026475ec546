//! Clients can find out before their first request which routes are covered and what a retry can expect.

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::{Method, Request};
use serde_json::json;
use testkit::Answer;
use testkit::lab::time::{DAY, HOUR};
use testkit::lab::{Lab, layer};
use tower_http::cors::CorsLayer;
use tower_idempotency::server::Profile;
use tower_idempotency::{IdempotencyLayer, Meaning, MemoryStore, OnInFlight, OnInterrupted};

async fn charge() -> &'static str {
    "charged"
}

fn app(layer: &IdempotencyLayer<MemoryStore>) -> Router {
    Router::new()
        .route("/charges", post(charge).get(charge))
        .route("/reports", get(charge))
        .route("/own", post(charge).options(|| async { "own" }))
        .route("/charges/{id}/refunds", post(charge))
        .route("/webhooks", post(charge))
        .layer(layer.clone())
        .merge(layer.well_known())
}

fn discoverable() -> IdempotencyLayer<MemoryStore> {
    layer().discoverable(["/charges", "/charges/{id}/refunds", "/own"])
}

async fn ask(app: &Router, method: Method, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    Lab::of(app.clone()).send(request).await
}

#[tokio::test]
async fn the_well_known_route_says_what_a_retry_can_expect() {
    let answer = ask(&app(&discoverable()), Method::GET, "/.well-known/idempotency").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let expected = json!({
        "profile": "draft",
        "routes": ["/charges", "/charges/{id}/refunds", "/own"],
        "methods": ["POST", "PATCH"],
        "header": "idempotency-key",
        "key_required": false,
        "key_quoted": false,
        "key_max_bytes": 255,
        "key_per_path": false,
        "retention_seconds": 86_400,
        "probe_header": "idempotency-probe",
        "replay_header": "idempotent-replayed",
        "retry": {
            "completed": "replay",
            "in_flight": { "status": 409, "code": "in-flight", "after_seconds": 2.0 },
            "other_request": { "status": 422, "code": "key-reused" },
            "interrupted": { "status": 409, "code": "outcome-unknown" },
            "server_error": "replay",
            "invalid_request": "replay",
            "rate_limited": "run",
        },
    });
    assert_eq!(answer.json(), expected);
}

#[test]
fn it_follows_the_options_and_the_profile() {
    let acp = layer().profile(Profile::acp()).on_in_flight(OnInFlight::Reject).discovery();
    assert_eq!(
        (&acp["profile"], &acp["key_required"], &acp["key_per_path"]),
        (&json!("acp"), &json!(true), &json!(true))
    );
    // A key that is required is required of every method that is not safe.
    assert_eq!(acp["methods"], json!(["POST", "PATCH", "PUT", "DELETE"]));
    let in_flight = json!({ "status": 409, "code": "idempotency_in_flight", "after_seconds": 0.0 });
    assert_eq!(acp["retry"]["in_flight"], in_flight);
    assert_eq!(acp["retry"]["interrupted"], json!({ "status": 409, "code": "outcome_unknown" }));
    assert_eq!(acp["retry"]["server_error"], "interrupted");
    let remembered = layer().retention(HOUR).outcome_retention(DAY).discovery();
    assert_eq!(
        (&remembered["retention_seconds"], &remembered["outcome_retention_seconds"]),
        (&json!(3_600), &json!(86_400))
    );
    let stripe = layer().profile(Profile::stripe()).on_interrupted(OnInterrupted::Rerun).discovery();
    assert_eq!(stripe["retry"]["other_request"], json!({ "status": 400, "code": "idempotency_key_reused" }));
    let classified =
        layer().classify(|_: &http::response::Parts, _: Option<&http::HeaderMap>| None::<Meaning>).discovery();
    assert_eq!(
        (&classified["retry"]["server_error"], &classified["retry"]["rate_limited"]),
        (&json!(null), &json!(null))
    );
    assert_eq!((&stripe["retry"]["interrupted"], &stripe["retry"]["invalid_request"]), (&json!("run"), &json!("run")));
}

#[tokio::test]
async fn options_on_a_covered_route_gives_the_same_where_the_application_has_no_answer() {
    let layer = discoverable();
    for (path, allow) in [("/charges", "POST,GET,HEAD"), ("/charges/17/refunds", "POST")] {
        let answer = ask(&app(&layer), Method::OPTIONS, path).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, layer.discovery()), "{path}");
        assert_eq!(answer.headers["allow"], allow);
    }
    // Under a prefix, as the client sends it.
    let nested = Router::new().route("/charges", post(charge)).layer(discoverable().discoverable(["/v1/charges"]));
    let app = Router::new().nest("/v1", nested);
    assert_eq!(ask(&app, Method::OPTIONS, "/v1/charges").await.status, 200);
}

#[tokio::test]
async fn options_elsewhere_is_the_application_s() {
    let app = app(&discoverable());
    for (path, status) in
        [("/own", 200), ("/webhooks", 405), ("/reports", 405), ("/nowhere", 404), ("/charges/17", 404)]
    {
        let answer = ask(&app, Method::OPTIONS, path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(!answer.text().contains("profile"), "{path}");
    }
    let off = Router::new().route("/charges", post(charge)).layer(layer());
    assert_eq!(ask(&off, Method::OPTIONS, "/charges").await.status, 405);
}

#[tokio::test]
async fn a_cors_preflight_is_never_answered_with_it() {
    let preflight = || {
        let request = Request::options("/charges").header("origin", "https://shop.example");
        request.header("access-control-request-method", "POST").body(Body::empty()).unwrap()
    };
    let lab = Lab::of(app(&discoverable()));
    assert_eq!(lab.send(preflight()).await.status, 405);
    // With a CORS layer inside, which answers it, and outside.
    let cors = || CorsLayer::permissive();
    let inside = Router::new().route("/charges", post(charge)).layer(cors()).layer(discoverable());
    for app in [inside, app(&discoverable()).layer(cors())] {
        let answer = Lab::of(app).send(preflight()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, ""));
        assert!(answer.headers.contains_key("access-control-allow-methods"));
    }
}
