//! The same request, still running: a duplicate waits for the answer of the first, within its timeout and a bound on
//! how many wait, and holds nothing that others need.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, poll};
use http::Request;
use testkit::lab::time::{HOUR, SECOND};
use testkit::lab::{Lab, at_once, gated, id, keyed, layer, numbered, patient, post, settle};
use testkit::{Answer, Gate};
use tower::limit::ConcurrencyLimitLayer;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_idempotency::engine::{EffectError, OnceError};
use tower_idempotency::internals::Records as _;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{Fingerprint, IdempotencyLayer, MemoryStore, OnInFlight, Once};

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

// Waiters hold no permits of an inner limit (trap 77).

#[tokio::test(start_paused = true)]
async fn a_waiter_that_came_during_the_look_up_holds_no_permit_of_an_inner_limit() {
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
    let stall = store.stall(StoreCall::Load);
    let mut one = Box::pin(service.clone().oneshot(post("k", "a")));
    assert!(at_once(&mut one).is_none());
    let mut two = Box::pin(service.clone().oneshot(post("k", "a")));
    assert!(at_once(&mut two).is_none());
    drop(stall);
    let both = tokio::spawn(futures_util::future::join(one, two));
    gate.arrival().await;
    for key in ["one", "two"] {
        let other = service.clone().oneshot(keyed("POST", "/others", key).body(Body::empty()).unwrap());
        tokio::time::timeout(HOUR / 2, other).await.expect("there is a permit left").unwrap();
    }
    gate.open();
    let (one, two) = both.await.unwrap();
    assert!(!Answer::of(one.unwrap()).await.is_replay());
    assert!(Answer::of(two.unwrap()).await.is_replay());
}

// … at most 1,024 waiters a key and 16,384 in all, beyond them the 409.

#[tokio::test]
async fn trap_08_at_most_1024_wait_for_one_run() {
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

#[tokio::test(start_paused = true)]
async fn trap_07_a_waiter_that_gives_up_leaves_the_claim_alone() {
    let (store, gate) = (MemoryStore::new(), Gate::default());
    let layer = IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(Duration::from_secs(1)));
    let lab = gated(layer.clone(), &gate);
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let claimed = store.load(id("k")).await.unwrap();

    let gone = lab.spawn(post("k", "a"));
    settle().await;
    gone.abort();
    let late = lab.post("k", "a").await;
    assert_eq!(late.refusal(), (409, "in-flight".to_owned()));
    assert_eq!(late.headers["retry-after"], "1");
    assert_eq!(store.load(id("k")).await.unwrap(), claimed);
    assert_eq!((layer.stats().live, layer.stats().runs), (1, 1));

    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_08_at_most_16384_wait_in_all() {
    let gate = Gate::default();
    let once = Once::new(MemoryStore::new()).on_in_flight(OnInFlight::Wait(HOUR));
    let run = |key: usize| {
        let gate = gate.clone();
        let effect = move |_| async move {
            gate.pass().await;
            Ok::<_, EffectError<()>>(())
        };
        let once = once.clone();
        async move { once.run(id(&format!("k{key}")), Fingerprint::of(b"m"), effect).await }.boxed()
    };
    let mut running: Vec<_> = (0..17).map(run).collect();
    for run in &mut running {
        assert!(poll!(run).is_pending());
    }
    settle().await;
    let mut waiting: Vec<_> = (0..16 * 1_024).map(|number| run(number % 16)).collect();
    for waiter in &mut waiting {
        assert!(poll!(waiter).is_pending());
    }
    let refused = run(16).await;
    assert!(matches!(refused, Err(OnceError::InFlight)), "{refused:?}");

    drop(waiting.pop());
    let mut last = run(16);
    assert!(poll!(&mut last).is_pending(), "a waiter that leaves makes room");
    gate.open();
    assert!(join_all(running).await.iter().all(|outcome| !outcome.as_ref().unwrap().replayed));
    assert!(last.await.unwrap().replayed);
    assert_eq!(once.stats().runs, 17);
}

#[tokio::test]
async fn trap_77_a_waiter_holds_no_permit_of_an_inner_limit() {
    let (gate, effects) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let layer = IdempotencyLayer::new(MemoryStore::new()).on_in_flight(OnInFlight::Wait(HOUR));
    // One permit for the run, and one that its waiters would keep.
    let service =
        ServiceBuilder::new().layer(layer).layer(ConcurrencyLimitLayer::new(2)).service(numbered(&gate, &effects));
    let first = tokio::spawn(service.clone().oneshot(post("slow", "a")));
    gate.arrival().await;
    let waiting: Vec<_> = (0..5).map(|_| tokio::spawn(service.clone().oneshot(post("slow", "a")))).collect();
    settle().await;
    assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
    let other = tokio::time::timeout(SECOND * 30, service.clone().oneshot(post("other", "a"))).await;
    assert_eq!(Answer::of(other.expect("a permit is free").unwrap()).await.text(), "effect 2");
    gate.open();
    assert_eq!(Answer::of(first.await.unwrap().unwrap()).await.text(), "effect 1");
    for waiter in waiting {
        assert!(Answer::of(waiter.await.unwrap().unwrap()).await.is_replay());
    }
    assert_eq!(effects.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn on_in_flight_says_how_long_a_duplicate_waits() {
    let (lab, gate) = Lab::gated(layer().on_in_flight(OnInFlight::Wait(SECOND * 7)));
    drop(lab.spawn(post("k", "a")));
    gate.arrival().await;
    let began = tokio::time::Instant::now();
    assert_eq!(lab.post("k", "a").await.problem(), "in-flight");
    assert_eq!(began.elapsed().as_secs(), 7, "of the paused clock");
}
