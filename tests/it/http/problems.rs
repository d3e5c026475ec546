//! Refusals are answers of one form: a problem with a stable type. A browser may read it, and a layer outside, or the
//! application, may render it in another form.

use std::collections::HashSet;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use serde_json::json;
use testkit::Answer;
use testkit::lab::{Lab, layer, post};
use tower::ServiceExt as _;
use tower_http::cors::CorsLayer;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection, RejectionKind, Scope};

#[tokio::test]
async fn a_refusal_carries_its_rejection_for_layers_outside() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    let response = lab.app.clone().oneshot(post("a,b", "a")).await.unwrap();
    let rejection = response.extensions().get::<Rejection>().unwrap().clone();
    assert_eq!((rejection.kind, rejection.status), (RejectionKind::KeyMalformed, StatusCode::BAD_REQUEST));
    assert_eq!(Answer::of(response).await.json()["detail"], rejection.detail);
}

#[test]
fn trap_61_problem_types_are_distinct_stable_and_described() {
    let slugs: Vec<_> = RejectionKind::ALL.iter().map(|kind| kind.slug()).collect();
    let promised = [
        "key-missing", "key-malformed", "body-too-large", "body-incomplete", "store-unavailable", "store-full",
        "overloaded", "shutting-down", "key-reused", "credentials-changed", "not-verifiable", "not-found", "in-flight",
        "not-replayable", "outcome-unknown",
    ];
    assert_eq!(slugs, promised);
    assert_eq!(slugs.iter().collect::<HashSet<_>>().len(), slugs.len());
    let described = include_str!("../../../src/problem.rs");
    let sections: Vec<_> = described.lines().filter_map(|line| line.strip_prefix("//! ## ")).collect();
    assert_eq!(sections, [&promised[..], &[RejectionKind::Custom.slug()]].concat());
}

#[tokio::test]
async fn trap_61_a_refusal_names_its_type_in_body_and_link() {
    let layer = IdempotencyLayer::new(MemoryStore::new()).require_key(true).problem_base("https://pay.example/p/");
    let lab = Lab::counting(layer);
    let refused = lab.send(Request::post("/charges").body(Body::empty()).unwrap()).await;
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    assert_eq!(refused.headers["link"], "<https://pay.example/p/key-missing>; rel=\"describedby\"");
    let problem = refused.json();
    assert_eq!((&problem["type"], &problem["status"]), (&"https://pay.example/p/key-missing".into(), &400.into()));
    assert_eq!((refused.status, lab.effects()), (StatusCode::BAD_REQUEST, 0));
}

fn from_origin(origin: &str, key: &str) -> Request<Body> {
    let mut request = post(key, "a");
    request.headers_mut().insert("origin", origin.parse().unwrap());
    request
}

#[tokio::test]
async fn trap_63_with_cors_outside_a_browser_sends_the_key_and_reads_the_marker() {
    let origins = ["https://a.example", "https://b.example"];
    let layer = IdempotencyLayer::new(MemoryStore::new()).require_key(true);
    let layer = layer.outcome_header_name("idempotency-outcome".parse().unwrap());
    let headers = layer.cors_headers();
    let cors = CorsLayer::new()
        .allow_origin(origins.map(|origin| origin.parse().unwrap()))
        .allow_methods([http::Method::POST])
        .allow_headers(headers.allow)
        .expose_headers(headers.expose);
    let mut lab = Lab::counting(layer);
    lab.app = lab.app.layer(cors);

    let preflight = Request::options("/charges")
        .header("origin", origins[0])
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "idempotency-key");
    let preflight = lab.send(preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(preflight.headers["access-control-allow-headers"], "idempotency-key,idempotency-probe");
    assert_eq!((preflight.status, lab.effects()), (StatusCode::OK, 0), "a preflight has no key and needs none");

    let first = lab.send(from_origin(origins[0], "k")).await;
    let retry = lab.send(from_origin(origins[1], "k")).await;
    let refused = lab.send(from_origin(origins[0], "")).await;
    assert_eq!((first.is_replay(), retry.is_replay(), refused.status.as_u16()), (false, true, 400));
    for (answer, origin) in [(&first, origins[0]), (&retry, origins[1]), (&refused, origins[0])] {
        let allowed: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
        assert_eq!(allowed, [origin], "its own, once, and not the recorded one's");
        let exposed = "idempotent-replayed,idempotency-effect,retry-after,link,idempotency-outcome";
        assert_eq!(answer.headers["access-control-expose-headers"], exposed);
    }
    assert_eq!((retry.body, lab.effects()), (Bytes::from("effect 1"), 1));
}

#[tokio::test]
async fn render_rejection_says_how_refusals_read() {
    let render = |rejection: &Rejection| {
        let body = Bytes::from(format!("no: {}", rejection.kind.slug()));
        http::Response::builder().status(StatusCode::IM_A_TEAPOT).header("x-own", "1").body(body).unwrap()
    };
    let lab = Lab::counting(layer().render_rejection(render));
    let answer = lab.post("a b", "a").await;
    assert_eq!((answer.status.as_u16(), answer.text(), answer.header("x-own")), (418, "no: key-malformed", Some("1")));
}

#[tokio::test]
async fn render_rejection_is_given_all_it_needs_and_retry_after_is_set_whatever_it_returns() {
    let render = |rejection: &Rejection| {
        let Rejection { kind, detail, retry_after, retry_with_same_key, .. } = rejection;
        let base = rejection.problem_base();
        let seconds = retry_after.map(|pause| pause.as_secs());
        let said = json!([kind.slug(), base, rejection.type_uri(), !detail.is_empty(), seconds, retry_with_same_key]);
        Response::new(Bytes::from(said.to_string()))
    };
    let store = TestStore::new();
    let base = "https://pay.example/problems/";
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).problem_base(base).render_rejection(render));
    store.fail_next(StoreCall::Claim);
    let answer = lab.post("k", "a").await;
    let uri = format!("{base}store-unavailable");
    assert_eq!(answer.json(), json!(["store-unavailable", base, uri, true, 1, true]));
    // The hook forgot the status. A client would take 200 for the answer to its request.
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(lab.post("a b", "a").await.header("retry-after"), None);
}

#[tokio::test]
async fn retry_after_is_in_whole_seconds_rounded_up_and_never_zero() {
    // After 0 seconds a client would try again at once.
    let pauses = [
        (Duration::ZERO, "1"),
        (Duration::from_nanos(1), "1"),
        (Duration::from_millis(999), "1"),
        (Duration::from_secs(1), "1"),
        (Duration::new(1, 1), "2"),
        (Duration::from_millis(2_500), "3"),
        (Duration::from_secs(60), "60"),
        (Duration::MAX, "18446744073709551615"),
    ];
    for (pause, seconds) in pauses {
        let busy = move |_: &Parts| -> Result<Scope, _> {
            let mut busy = Rejection::from(StatusCode::TOO_MANY_REQUESTS);
            busy.retry_after = Some(pause);
            Err(busy)
        };
        let own = |_: &Rejection| Response::new(Bytes::from("busy"));
        for layer in [layer().scope(busy), layer().scope(busy).render_rejection(own)] {
            let lab = Lab::counting(layer);
            let refused = lab.post("k", "a").await;
            assert_eq!((refused.header("retry-after"), lab.effects()), (Some(seconds), 0), "{pause:?}");
        }
    }
}
