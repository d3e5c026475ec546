//! Waiters are bound to the run, not to the key: their answers if it ends without an outcome. None of them runs.

use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use http::StatusCode;
use testkit::lab::{Lab, at_once, patient, post, settle};
use testkit::{Answer, Gate};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted, Release};

// docs/design.md, section 3, rule 8: if the run ends released: 409 `in-flight` with `Retry-After: 1`; consumed:
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
async fn waiters_of_a_run_that_its_status_released_are_told_to_come_again() {
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
async fn trap_73_waiters_of_a_run_without_an_outcome_do_not_run_one_after_the_other() {
    let in_flight = (409, "in-flight");
    let cases = [
        (OnInterrupted::Refuse, false, in_flight),
        (OnInterrupted::Refuse, true, (409, "outcome-unknown")),
        (OnInterrupted::Rerun, true, in_flight),
    ];
    for (policy, panics, (status, problem)) in cases {
        let gate = Gate::default();
        let passed = gate.clone();
        let lab = Lab::new(IdempotencyLayer::new(TestStore::new()).on_interrupted(policy), move |_| {
            let gate = passed.clone();
            async move {
                gate.pass().await;
                assert!(!panics, "the run panics, on purpose");
                (Release, "busy")
            }
        });
        let first = lab.spawn(post("k", "a"));
        gate.arrival().await;
        let waiting: Vec<_> = (0..20).map(|_| lab.spawn(post("k", "a"))).collect();
        settle().await;
        gate.open();
        assert_eq!(first.await.unwrap().status, if panics { 500 } else { 200 });
        for answer in join_all(waiting).await {
            let answer = answer.unwrap();
            assert_eq!(answer.refusal(), (status, problem.to_owned()), "{policy:?}");
            assert_eq!(answer.headers.contains_key("retry-after"), problem == "in-flight");
        }
        assert_eq!(lab.effects(), 1, "{policy:?}");
    }
}
