//! A rejection that only an operator can settle names its operation as the log does, to its owner and to no stranger.

use axum::response::Response;
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;
use testkit::lab::{Lab, at_once, id, layer, patient, post, rerun, with};
use testkit::log::Log;
use testkit::{Answer, Gate};
use tower::ServiceExt as _;
use tower_idempotency::FingerprintBody;
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted, Rejection, Scope};
use tracing::Level;

/// A lab whose handlers panic.
fn panicking(layer: IdempotencyLayer<MemoryStore>) -> Lab {
    Lab::new(layer, |_| async {
        if true {
            panic!("on purpose")
        }
    })
}

#[tokio::test]
async fn an_unknown_outcome_carries_the_record_id_that_the_log_has() {
    // Of each kind of rejection one line a minute is above DEBUG.
    let (lab, log) = (panicking(layer()), Log::begin(Level::DEBUG));
    let own = lab.post("k", "a").await;
    own.assert_refusal(500, "outcome-unknown", false, None);
    let retry = lab.post("k", "a").await;
    retry.assert_refusal(409, "outcome-unknown", false, None);
    let short = id("k").short();
    assert_eq!([&own.json()["record_id"], &retry.json()["record_id"]], [short.as_str(), short.as_str()]);
    let lines = log.lines();
    let refused: Vec<_> = lines.iter().filter(|line| line.contains("refused: outcome-unknown")).collect();
    assert_eq!(refused.len(), 2, "{lines:#?}");
    assert!(refused.iter().all(|line| line.contains(&format!("record_id=\"{short}\""))), "{lines:#?}");
}

#[tokio::test]
async fn who_waits_for_a_run_that_is_interrupted_gets_its_record_id() {
    let gate = Gate::default();
    let handler = gate.clone();
    let lab = Lab::new(patient(), move |_| {
        let gate = handler.clone();
        async move {
            gate.pass().await;
            if true {
                panic!("on purpose")
            }
        }
    });
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let mut waiter = Box::pin(lab.post("k", "a"));
    assert!(at_once(&mut waiter).is_none());
    gate.open();
    assert_eq!(waiter.await.json()["record_id"], id("k").short());
    assert_eq!(first.await.unwrap().json()["record_id"], id("k").short());
}

#[tokio::test]
async fn a_stranger_s_request_is_told_no_record_id() {
    let lab = panicking(layer());
    lab.send(with("authorization", "Bearer owner")).await;
    assert!(lab.send(with("authorization", "Bearer owner")).await.json().get("record_id").is_some());
    let stranger = lab.send(with("authorization", "Bearer stranger")).await;
    let mut other = with("authorization", "Bearer owner");
    *other.uri_mut() = "/other".parse().unwrap();
    let nobody = lab.post("k", "a").await;
    for refused in [stranger, nobody, lab.send(other).await] {
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.json().get("record_id"), None, "{}", refused.text());
    }
}

#[tokio::test]
async fn what_no_operator_can_settle_has_no_record_id() {
    let (gated, gate) = Lab::gated(layer().on_in_flight(OnInFlight::Reject));
    let first = gated.spawn(post("k", "a"));
    gate.arrival().await;
    gated.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    gate.open();
    first.await.unwrap();
    let long = Lab::counting(layer().max_response_body(1));
    long.post("k", "a").await;
    long.post("k", "a").await.assert_refusal(409, "not-replayable", false, None);
    Lab::counting(layer()).post("a b", "a").await.assert_refusal(400, "key-malformed", false, None);
}

// Seeded fault: `not-verifiable` names no record.
#[tokio::test]
async fn a_request_that_can_t_be_compared_names_its_record_and_a_stranger_s_does_not() {
    let store = MemoryStore::new();
    let over = || IdempotencyLayer::new(store.clone());
    let owner = || with("authorization", "Bearer owner");
    panicking(over()).send(owner()).await;
    let changed = Lab::counting(over().fingerprint_body(FingerprintBody::CanonicalJson));
    let refused = changed.send(owner()).await;
    refused.assert_refusal(409, "not-verifiable", false, None);
    assert_eq!(refused.json()["record_id"], id("k").short());
    assert_eq!(changed.send(with("authorization", "Bearer stranger")).await.json().get("record_id"), None);
}

#[tokio::test]
async fn a_run_that_may_be_repeated_names_its_record_too() {
    let lab = panicking(rerun());
    assert_eq!(lab.post("k", "a").await.json()["record_id"], id("k").short());
    assert_eq!(lab.post("k", "a").await.refusal(), (500, "outcome-unknown".to_owned()), "it ran again");
}

#[tokio::test]
async fn a_hook_and_layers_outside_are_given_the_whole_id_within_its_scope() {
    let render = |rejection: &Rejection| {
        let whole = rejection.record_id.map(|id| id.to_string());
        Response::new(Bytes::from(json!([whole, rejection.problem()["record_id"]]).to_string()))
    };
    let of_alice = |_: &http::request::Parts| Scope::new("alice").ok();
    let lab = panicking(layer().scope(of_alice).render_rejection(render));
    let whole = tower_idempotency::RecordId::new(Scope::new("alice").ok().as_ref(), &"k".parse().unwrap());
    let response = lab.app.clone().oneshot(post("k", "a")).await.unwrap();
    assert_eq!(response.extensions().get::<Rejection>().unwrap().record_id, Some(whole));
    assert_eq!(Answer::of(response).await.json(), json!([whole.to_string(), whole.short()]));
}

#[tokio::test]
async fn a_grpc_status_ends_with_the_record_id() {
    let lab = panicking(layer().on_interrupted(OnInterrupted::Refuse));
    let call = || -> Request<axum::body::Body> { with("content-type", "application/grpc") };
    for _ in 0..2 {
        let refused = lab.send(call()).await;
        assert_eq!(refused.header("grpc-status"), Some("2"));
        let message = refused.header("grpc-message").unwrap();
        assert!(message.ends_with(&format!("(record_id {})", id("k").short())), "{message}");
    }
}
