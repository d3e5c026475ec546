//! The decision table (DESIGN.md, section 4), third part: the same request, still running.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use common::lab::{Answer, Gate, Lab, at_once, keyed, post};
use futures_util::future::join_all;
use http::{Request, StatusCode};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_idempotency::engine::{OnInFlight, OnInterrupted};
use tower_idempotency::test_util::{TestStore, Verb};
use tower_idempotency::{IdempotencyLayer, MemoryStore, Release};

const HOUR: Duration = Duration::from_secs(3_600);

fn patient() -> IdempotencyLayer<MemoryStore> {
    IdempotencyLayer::new(MemoryStore::new()).on_in_flight(OnInFlight::Wait(HOUR))
}

// Row: same request, still running → `Wait(2 s)` (default): the answer, or 409 `in-flight` + `Retry-After: 1`.

#[tokio::test]
async fn a_duplicate_waits_for_the_answer_of_the_first() {
    let (lab, gate) = Lab::gated(patient());
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let mut duplicate = Box::pin(lab.post("k", "a"));
    assert!(at_once(&mut duplicate).is_none(), "it waits");
    gate.open();
    let (first, duplicate) = (first.await.unwrap(), duplicate.await);
    assert_eq!((first.text(), first.is_replay()), ("effect 1", false));
    assert_eq!((duplicate.text(), duplicate.is_replay()), ("effect 1", true));
    assert_eq!(lab.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_that_waited_two_seconds_is_told_in_flight() {
    let (lab, gate) = Lab::gated(IdempotencyLayer::new(MemoryStore::new()));
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let began = tokio::time::Instant::now();
    lab.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    assert_eq!(began.elapsed().as_secs(), 2, "of the paused clock");
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1", "a waiter that gave up changes nothing for the run");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

// … `Reject`: that 409 at once.

#[tokio::test]
async fn where_duplicates_are_rejected_they_are_told_at_once() {
    let (lab, gate) = Lab::gated(patient().on_in_flight(OnInFlight::Reject));
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let duplicate = at_once(&mut Box::pin(lab.post("k", "a"))).expect("no waiting");
    duplicate.assert_refusal(409, "in-flight", true, Some("1"));
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert_eq!(lab.effects(), 1);
}

// Row: known key, other request → 422, even in flight.

#[tokio::test]
async fn another_request_is_refused_as_such_while_the_first_still_runs() {
    let (lab, gate) = Lab::gated(patient());
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let other = at_once(&mut Box::pin(lab.post("k", "b"))).expect("no waiting");
    other.assert_refusal(422, "key-reused", false, None);
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert_eq!(lab.effects(), 1);
}

// DESIGN.md, section 3, rule 8: if the run ends released: 409 `in-flight` with `Retry-After: 1`; consumed:
// `not-replayable`; interrupted: that row. A waiter never claims.

/// The answers of three duplicates that wait while the one run ends with `end`.
async fn waiters_of<F>(layer: IdempotencyLayer<MemoryStore>, end: F) -> Vec<Answer>
where
    F: Fn() -> Response + Clone + Send + Sync + 'static,
{
    let gate = Gate::default();
    let handler = gate.clone();
    let lab = Lab::new(layer, move |_| {
        let (gate, end) = (handler.clone(), end.clone());
        async move {
            gate.pass().await;
            end()
        }
    });
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(lab.post("k", "a"))).collect();
    assert!(waiters.iter_mut().all(|waiter| at_once(waiter).is_none()), "they wait");
    gate.open();
    let answers = join_all(waiters).await;
    first.await.unwrap();
    assert_eq!(lab.effects(), 1, "a waiter never claims");
    answers
}

#[tokio::test]
async fn waiters_of_a_released_run_are_told_to_come_again() {
    for answer in waiters_of(patient(), || (Release, "busy").into_response()).await {
        answer.assert_refusal(409, "in-flight", true, Some("1"));
    }
    let rerun = patient().on_interrupted(OnInterrupted::Rerun);
    for answer in waiters_of(rerun, || StatusCode::SERVICE_UNAVAILABLE.into_response()).await {
        answer.assert_refusal(409, "in-flight", true, Some("1"));
    }
}

#[tokio::test]
async fn waiters_of_a_consumed_run_are_told_not_replayable() {
    for answer in waiters_of(patient().max_response_body(3), || (StatusCode::CREATED, "four").into_response()).await {
        answer.assert_refusal(409, "not-replayable", false, None);
        assert_eq!(answer.json()["original_status"], 201);
    }
}

#[tokio::test]
async fn waiters_of_an_interrupted_run_are_told_outcome_unknown() {
    for answer in waiters_of(patient(), || panic!("on purpose")).await {
        answer.assert_refusal(409, "outcome-unknown", false, None);
    }
}

#[tokio::test]
async fn waiters_of_a_run_that_is_rerun_are_told_to_come_again() {
    let rerun = patient().on_interrupted(OnInterrupted::Rerun);
    for answer in waiters_of(rerun, || panic!("on purpose")).await {
        answer.assert_refusal(409, "in-flight", true, Some("1"));
    }
}

// DESIGN.md, section 4, "Service": waiters hold no permits of an inner limit (trap 77).

async fn assert_that_a_waiter_holds_no_permit(meet_at_the_look_up: bool) {
    let gate = Gate::default();
    let (waits, passes) = (gate.clone(), Gate::default());
    passes.open();
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(HOUR));
    let service = ServiceBuilder::new().layer(layer).concurrency_limit(2).service_fn(move |request: Request<Body>| {
        let gate = if request.uri().path() == "/charges" { waits.clone() } else { passes.clone() };
        async move {
            gate.pass().await;
            Ok::<_, Infallible>("done".into_response())
        }
    });
    let stall = meet_at_the_look_up.then(|| store.stall(Verb::Load));
    let mut one = Box::pin(service.clone().oneshot(post("k", "a")));
    assert!(at_once(&mut one).is_none());
    if !meet_at_the_look_up {
        gate.arrival().await;
    }
    let mut two = Box::pin(service.clone().oneshot(post("k", "a")));
    assert!(at_once(&mut two).is_none());
    drop(stall);
    let both = tokio::spawn(futures_util::future::join(one, two));
    if meet_at_the_look_up {
        gate.arrival().await;
    }
    for key in ["one", "two"] {
        let other = service.clone().oneshot(keyed("POST", "/others", key).body(Body::empty()).unwrap());
        tokio::time::timeout(HOUR / 2, other).await.expect("there is a permit left").unwrap();
    }
    gate.open();
    let (one, two) = both.await.unwrap();
    assert!(!Answer::of(one.unwrap()).await.is_replay());
    assert!(Answer::of(two.unwrap()).await.is_replay());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_holds_no_permit_of_an_inner_concurrency_limit() {
    assert_that_a_waiter_holds_no_permit(false).await;
    assert_that_a_waiter_holds_no_permit(true).await;
}

// … at most 1,024 waiters a key and 16,384 in all, beyond them the 409.

#[tokio::test]
async fn at_most_1_024_duplicates_wait_for_one_key() {
    let (lab, gate) = Lab::gated(patient());
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let mut waiters: Vec<_> = (0..1_024).map(|_| Box::pin(lab.post("k", "a"))).collect();
    assert!(waiters.iter_mut().all(|waiter| at_once(waiter).is_none()), "they wait");
    let one_more = at_once(&mut Box::pin(lab.post("k", "a"))).expect("no waiting");
    one_more.assert_refusal(409, "in-flight", true, Some("1"));
    let other = at_once(&mut Box::pin(lab.post("k", "b"))).expect("no waiting");
    other.assert_refusal(422, "key-reused", false, None);

    // One that gives up makes room for another.
    waiters.pop();
    waiters.push(Box::pin(lab.post("k", "a")));
    assert!(waiters.last_mut().is_some_and(|waiter| at_once(waiter).is_none()));
    gate.open();
    assert!(join_all(waiters).await.iter().all(Answer::is_replay));
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn at_most_16_384_duplicates_wait_in_all() {
    let (lab, gate) = Lab::gated(patient());
    let mut waiters = Vec::new();
    for key in 0..16 {
        drop(lab.spawn(post(&key.to_string(), "a")));
        gate.arrival().await;
        waiters.extend((0..1_024).map(|_| key.to_string()).map(|key| {
            let (lab, request) = (lab.clone(), post(&key, "a"));
            Box::pin(async move { lab.send(request).await })
        }));
    }
    assert!(waiters.iter_mut().all(|waiter| at_once(waiter).is_none()), "they wait");
    drop(lab.spawn(post("\"one key more\"", "a")));
    gate.arrival().await;
    let one_more = at_once(&mut Box::pin(lab.post("\"one key more\"", "a"))).expect("no waiting");
    one_more.assert_refusal(409, "in-flight", true, Some("1"));
    drop(waiters);
    let mut with_room = Box::pin(lab.post("\"one key more\"", "a"));
    assert!(at_once(&mut with_room).is_none(), "there is room again");
    gate.open();
    assert!(with_room.await.is_replay());
    assert_eq!(lab.effects(), 17);
}
