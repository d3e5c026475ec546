//! The span of an exchange: each of its fields has one value, and its outcome is the client's answer.

use std::time::Duration;

use axum::body::Body;
use http::request::Parts;
use http::{Request, StatusCode};
use testkit::Answer;
use testkit::lab::operator::{Operated as _, outcome};
use testkit::lab::{Lab, effect, frames, id, keyed, layer, patient, post, with};
use testkit::log::{Log, in_spans, logged};
use tower_idempotency::engine::EffectError;
use tower_idempotency::operations::Applied;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{
    Fingerprint, IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted, Once, Rejection, RejectionKind, Scope,
};
use tracing::Level;

/// Each rejection that a layer can give, in an order of its own, without the answers that are no rejections.
async fn rejections() -> Vec<Answer> {
    let mut told = Vec::new();
    let refuse = |parts: &Parts| match parts.headers.contains_key("x-stranger") {
        true => Err(Rejection::from(StatusCode::UNAUTHORIZED)),
        false => Ok(None::<Scope>),
    };

    // Before there is a record.
    let store = TestStore::new();
    let layer_of = |store: &TestStore| IdempotencyLayer::new(store.clone());
    let strict = Lab::counting(layer_of(&store).require_key(true).max_request_body(5).scope(refuse));
    told.push(strict.send(Request::post("/").body(Body::empty()).unwrap()).await);
    told.push(strict.post("a b", "a").await);
    told.push(strict.post("k", "too long").await);
    told.push(strict.send(post("k", frames([Ok("a"), Err("broken off")]))).await);
    told.push(strict.send(keyed("POST", "/", "k").header("x-stranger", "1").body(Body::empty()).unwrap()).await);
    told.push(
        strict.send(keyed("POST", "/", "k").header("idempotency-probe", "?1").body(Body::empty()).unwrap()).await,
    );
    store.fail_next(StoreCall::Claim);
    told.push(strict.post("k", "a").await);
    let full = Lab::counting(IdempotencyLayer::new(MemoryStore::builder().max_records(1).build()));
    full.post("first", "a").await;
    told.push(full.post("k", "a").await);
    told.push(Lab::counting(layer().max_runs(0)).post("k", "a").await);

    // Rejections because of a run, and because of the record that it leaves.
    let store = TestStore::new();
    let refusing = layer_of(&store);
    let panicking = Lab::new(refusing.clone(), |_| async {
        if true {
            panic!("on purpose")
        }
    });
    told.push(panicking.post("k", "a").await);
    told.push(panicking.post("k", "a").await);
    told.push(panicking.post("k", "b").await);
    told.push(panicking.send(with("authorization", "Bearer other")).await);
    told.push(Lab::counting(layer_of(&store).fingerprint_headers(["x-tenant".parse().unwrap()])).post("k", "a").await);
    let rerun = Lab::new(layer().on_interrupted(OnInterrupted::Rerun), |_| async {
        if true {
            panic!("on purpose")
        }
    });
    told.push(rerun.post("k", "a").await);
    let long = Lab::counting(layer().max_response_body(1));
    long.post("k", "a").await;
    told.push(long.post("k", "a").await);
    // Bytes that this layer has not written.
    let [run] = refusing.interrupted(2).await.unwrap().try_into().unwrap();
    let consumer = Once::<_, String>::new(store.clone());
    let settled = consumer.resolve(run.id, run.fence, outcome("no answer")).await;
    assert_eq!(settled.unwrap(), Applied::Done);
    told.push(panicking.post("k", "a").await);

    // Rejections because of a run that goes on, with and without a wait.
    let wait = OnInFlight::Wait(Duration::from_secs(1));
    for policy in [OnInFlight::Reject, wait] {
        let (gated, gate) = Lab::gated(layer().on_in_flight(policy));
        let first = gated.spawn(post("k", "a"));
        gate.arrival().await;
        told.push(gated.post("k", "a").await);
        gate.open();
        first.await.unwrap();
    }
    assert!(layer_of(&store).drain(Duration::ZERO).await.is_complete());
    told.push(panicking.post("new", "a").await);
    told
}

#[test]
fn the_span_of_each_rejection_has_one_outcome_which_is_the_one_that_the_client_was_told() {
    let mut told = Vec::new();
    let log = logged(async { told = rejections().await });
    let mut slugs: Vec<_> = told.iter().map(Answer::problem).collect();
    let mut outcomes = in_spans(&log, "outcome");
    // These ran only to make the rejections possible.
    outcomes.retain(|outcome| outcome != &["ran"]);
    let mut expected: Vec<_> = slugs.iter().map(|slug| vec![slug.clone()]).collect();
    // A span closes when its last task has ended, which may be after the next one.
    outcomes.sort();
    expected.sort();
    assert_eq!(outcomes, expected);
    slugs.dedup();
    for kind in RejectionKind::ALL.iter().chain([&RejectionKind::Custom]) {
        assert!(slugs.iter().any(|slug| slug == kind.slug()), "this test does not show {kind:?}: {slugs:?}");
    }
}

#[test]
fn a_run_and_its_replays_have_one_outcome_each() {
    let log = logged(async {
        let lab = Lab::new(patient(), effect);
        for replay in [false, true, true] {
            assert_eq!(lab.post("k", "a").await.is_replay(), replay);
        }
    });
    assert_eq!(in_spans(&log, "outcome"), [["ran"], ["replayed"], ["replayed"]]);
}

#[test]
fn the_span_of_a_run_has_its_label_once_and_that_of_a_replay_has_none() {
    let log = logged(async {
        let lab = Lab::counting(layer().label(|_: &Parts| "a-charge".to_owned()));
        lab.post("k", "a").await;
        lab.post("k", "a").await;
    });
    assert_eq!(in_spans(&log, "label"), [vec!["a-charge"], vec![]]);
}

#[test]
fn a_consumer_s_span_has_one_outcome() {
    let log = logged(async {
        let once = Once::new(MemoryStore::new());
        for message in ["a", "a", "b"] {
            let effect = |_| async { Ok::<_, EffectError<()>>(()) };
            let _ = once.run(id("message"), Fingerprint::of(message.as_bytes()), effect).await;
        }
    });
    assert_eq!(in_spans(&log, "outcome"), [["ran"], ["replayed"], ["key-reused"]]);
}

#[tokio::test]
async fn an_event_within_the_span_of_a_rejection_shows_its_outcome_once() {
    let lab = Lab::counting(layer());
    lab.post("k", "a").await;
    let log = Log::begin(Level::DEBUG);
    lab.post("k", "b").await;
    let lines = log.lines();
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(line.matches("outcome=\"key-reused\"").count(), 1, "{line}");
}
