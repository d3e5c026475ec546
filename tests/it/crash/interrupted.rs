//! A run that was interrupted, by a crash, a panic, an error, a time limit or half an answer, is never hidden: it is
//! refused, or runs again only if the policy allows that (promise 5).

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use testkit::lab::asked::leave_interrupted_under;
use testkit::lab::operator::Operated as _;
use testkit::lab::steps::{Steps as _, wish};
use testkit::lab::time::{HOUR, SECOND};
use testkit::lab::{Lab, done, effect, frames, gated, hold, id, layer, on_disk, post, rerun, settle};
use testkit::{Answer, Gate};
use tokio::sync::Semaphore;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tower_idempotency::internals::{ClaimPolicy, Reply, State};
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted, SledStore};

// Row: same request, interrupted → `Refuse` (default): 409 `outcome-unknown`, no `Retry-After`; `Rerun`: reclaimed, and
// runs again if it was claimed under `Rerun` too. (`Reconcile`: a later issue.)

/// A store in which the run of key `k` was interrupted by a crash, and the lab where that happened.
async fn crashed() -> (TestStore, Lab) {
    let store = TestStore::new();
    let (lab, gate) = Lab::gated(IdempotencyLayer::new(store.clone()));
    let request = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let reopened = store.reopen();
    request.abort();
    (reopened, lab)
}

#[tokio::test]
async fn a_retry_after_a_crash_is_refused() {
    let (store, lab) = crashed().await;
    let lab = lab.behind(IdempotencyLayer::new(store), effect);
    for _ in 0..2 {
        lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    }
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn under_rerun_a_retry_of_a_run_that_was_claimed_under_it_runs_again() {
    let store = TestStore::new();
    leave_interrupted_under(ClaimPolicy::Rerun, &store, "k").await;
    let lab = Lab::counting(IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun));
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_02_a_crash_shows_at_once_and_an_operator_can_free_the_key() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let crashed = gated(IdempotencyLayer::new(store.clone()), &gate);
    let running = crashed.spawn(post("k", "a"));
    gate.arrival().await;
    let layer = IdempotencyLayer::new(store.reopen());
    let lab = Lab::counting(layer.clone());
    assert_eq!(lab.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
    assert_eq!(lab.effects(), 0);

    let listed = layer.interrupted(10).await.unwrap();
    assert_eq!(listed.iter().map(|record| record.id).collect::<Vec<_>>(), [id("k")]);
    let settled = layer.resolve(listed[0].id, listed[0].fence, Action::Release).await.unwrap();
    assert_eq!(settled, Applied::Done);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!(lab.effects(), 1);
    running.abort();
}

async fn a_late_holder_changes_nothing<St: Store>(store: St) {
    let late = hold(&store, "k").await;
    assert_eq!(store.interrupt(late.id, late.fence).await.unwrap(), Reply::Taken);
    let second = store.reclaim(wish("k"), late.fence).await.unwrap().unwrap();
    assert!(second.fence > late.fence);
    assert_eq!(second.attempt, 2);

    assert_eq!(store.complete(done(late, "late", HOUR)).await.unwrap(), Reply::Refused);
    assert_eq!(store.release(late.id, late.fence).await.unwrap(), Reply::Refused);
    assert_eq!(store.interrupt(late.id, late.fence).await.unwrap(), Reply::Refused);
    let record = store.load(late.id).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Running { .. }), "{record:?}");
    assert_eq!(record.fence, second.fence);

    assert_eq!(store.complete(done(second, "second", HOUR)).await.unwrap(), Reply::Taken);
    assert_eq!(store.complete(done(late, "late", HOUR)).await.unwrap(), Reply::Refused);
    let record = store.load(late.id).await.unwrap().unwrap();
    assert!(matches!(&record.state, State::Completed { outcome, .. } if outcome == "second"), "{record:?}");
}

#[tokio::test]
async fn trap_04_a_late_holder_neither_overwrites_nor_frees_the_second() {
    let (_directory, sled) = on_disk(SledStore::builder());
    a_late_holder_changes_nothing(sled).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder());
        a_late_holder_changes_nothing(fjall).await;
    }
    a_late_holder_changes_nothing(MemoryStore::new()).await;
    a_late_holder_changes_nothing(TestStore::new()).await;
}

#[tokio::test]
async fn trap_09_a_reclaim_whose_answer_was_lost_is_not_mistaken_for_a_run() {
    let store = TestStore::new();
    leave_interrupted_under(ClaimPolicy::Rerun, &store, "k").await;
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun));
    let faults: [fn(&TestStore, StoreCall); 2] = [TestStore::fail_next, TestStore::lose_answer];
    for fault in faults {
        fault(&store, StoreCall::Reclaim);
        lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
        assert_eq!(lab.effects(), 0);
    }
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

// Row: handler exceeds `max_run` (10 min) → its future is dropped, then as a panic.

#[tokio::test(start_paused = true)]
async fn under_rerun_a_handler_that_hung_runs_again() {
    let lab = Lab::new(rerun(), |n| async move { if n == 1 { pending().await } else { "done" } });
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", true, None);
    assert_eq!(lab.post("k", "a").await.text(), "done");
}

// Row: response body fails half-way → as a panic; the client sees the failure.

async fn read_until_it_fails(lab: &Lab) -> (StatusCode, String, String) {
    let response = lab.app.clone().oneshot(post("k", "a")).await.unwrap();
    let (status, mut body, mut read) = (response.status(), response.into_body(), String::new());
    loop {
        match body.frame().await.expect("the body ends with an error") {
            Ok(frame) => read.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
            Err(error) => return (status, read, error.to_string()),
        }
    }
}

#[tokio::test]
async fn a_body_that_fails_half_way_leaves_an_unknown_outcome() {
    let lab = Lab::new(layer(), |_| async { frames([Ok("ha"), Ok("l"), Err("disk gone")]) });
    let (status, read, error) = read_until_it_fails(&lab).await;
    assert_eq!((status.as_u16(), read.as_str()), (200, "hal"));
    assert!(error.contains("disk gone"), "{error}");
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 1);
}

// A seeded fault: such a body seems to be at its end, and a server sends an empty answer that is complete.
#[tokio::test]
async fn a_body_that_fails_at_once_does_not_seem_to_be_an_empty_one() {
    let lab = Lab::new(layer(), |_| async { frames([Err("disk gone")]) });
    let body = lab.app.clone().oneshot(post("k", "a")).await.unwrap().into_body();
    assert!(!body.is_end_stream());
    assert!(body.collect().await.unwrap_err().to_string().contains("disk gone"));
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
}

#[tokio::test]
async fn under_rerun_a_body_that_failed_half_way_runs_again() {
    let answer = |n| async move { frames(if n == 1 { vec![Ok("ha"), Err("gone")] } else { vec![Ok("ha"), Ok("lf")] }) };
    let lab = Lab::new(rerun(), answer);
    assert_eq!(read_until_it_fails(&lab).await.1, "ha");
    assert_eq!(lab.post("k", "a").await.text(), "half");
    assert_eq!(lab.effects(), 2);
}

// Row: handler panics; inner service returns `Err` → interrupted (under `Rerun`: released); 500 `outcome-unknown`, or
// the `Err`.

#[tokio::test]
async fn trap_15_whether_a_panic_frees_the_key_is_policy() {
    for (policy, retry, effects) in [(OnInterrupted::Refuse, 409, 1), (OnInterrupted::Rerun, 200, 2)] {
        let layer = IdempotencyLayer::new(TestStore::new()).on_interrupted(policy);
        let lab = Lab::new(layer.clone(), |number| async move {
            assert_ne!(number, 1, "the first run panics, on purpose");
            "done"
        });
        let first = lab.post("k", "a").await;
        assert_eq!(first.refusal(), (500, "outcome-unknown".to_owned()), "{policy:?}");
        assert_eq!(first.json()["retry_with_same_key"], matches!(policy, OnInterrupted::Rerun));
        assert_eq!(lab.post("k", "a").await.status, retry, "{policy:?}");
        assert_eq!((lab.effects(), layer.stats().interrupted), (effects, 1), "{policy:?}");
    }
}

#[tokio::test]
async fn trap_15_whether_an_error_frees_the_key_is_policy() {
    for (policy, retry, problem, effects) in
        [(OnInterrupted::Refuse, 409, "outcome-unknown", 1), (OnInterrupted::Rerun, 200, "", 2)]
    {
        let called = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&called);
        let handler = service_fn(move |_: Request<Body>| {
            let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if first { Err(io::Error::other("cut off")) } else { Ok(Response::new(Body::empty())) } }
        });
        let layer = IdempotencyLayer::new(TestStore::new()).on_interrupted(policy);
        let service = ServiceBuilder::new().layer(layer).service(handler);
        let error = service.clone().oneshot(post("k", "a")).await.unwrap_err();
        assert_eq!(error.to_string(), "cut off", "the inner error is left alone");
        let again = Answer::of(service.oneshot(post("k", "a")).await.unwrap()).await;
        assert_eq!((again.status.as_u16(), again.problem().as_str()), (retry, problem), "{policy:?}");
        assert_eq!(called.load(Ordering::SeqCst), effects, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn trap_69_a_handler_that_hangs_is_dropped_after_max_run() {
    let places = Arc::new(Semaphore::new(1));
    let handlers = Arc::clone(&places);
    let lab = Lab::new(IdempotencyLayer::new(MemoryStore::new()).max_run(SECOND), move |_| {
        let place = Arc::clone(&handlers).acquire_owned();
        async move {
            let _place = place.await;
            std::future::pending::<()>().await;
        }
    });
    let (answer, ()) = tokio::join!(lab.post("k", "a"), async {
        settle().await;
        assert_eq!(places.available_permits(), 0, "the handler hangs");
    });
    assert_eq!(answer.refusal(), (500, "outcome-unknown".to_owned()));
    assert_eq!(places.available_permits(), 1, "the handler's future is gone");
    assert_eq!(lab.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
    assert_eq!(lab.effects(), 1);
}

// Seeded fault: the limit is looked at from the second step on.
#[tokio::test(start_paused = true)]
async fn a_handler_whose_limit_is_over_before_its_first_step_takes_none() {
    let lab = Lab::new(layer().max_run(std::time::Duration::ZERO), |_| async { "charged" });
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 0);
}

#[tokio::test(start_paused = true)]
async fn max_run_and_outcome_body_timeout_bound_a_run() {
    let began = tokio::time::Instant::now();
    let lab = Lab::new(layer().max_run(SECOND * 3), |_| pending::<&str>());
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", false, None);
    assert_eq!(began.elapsed().as_secs(), 3, "of the paused clock");

    let endless = |_| async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, BoxError>>()) };
    let lab = Lab::new(layer().outcome_body_timeout(SECOND * 4), endless);
    assert_eq!(lab.app.clone().oneshot(post("k", "a")).await.unwrap().status(), 200);
    assert_eq!(began.elapsed().as_secs(), 7, "of the paused clock");
    assert_eq!(lab.post("k", "a").await.problem(), "not-replayable");
}
