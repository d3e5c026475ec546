//! What happens over a store, as an observer learns of it, and as `stats` counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::IntoResponse as _;
use http::{Response, StatusCode};
use testkit::Gate;
use testkit::lab::asked::leave_interrupted;
use testkit::lab::events::Events;
use testkit::lab::operator::Operated as _;
use testkit::lab::time::SECOND;
use testkit::lab::{Lab, effect, gated, id, on_disk, post, settle};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::{Cause, EffectError, Reconciled, Reconciler};
use tower_idempotency::observer::{LeaseChange, RunEnd, SettledBy};
use tower_idempotency::operations::Action;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{ManualClock, StoreCall, TestStore};
use tower_idempotency::{Fingerprint, IdempotencyLayer, MemoryStore, Observer, OnInFlight, Once, Release, SledStore};

/// A layer over an observed store, and the events.
fn observed() -> (TestStore, IdempotencyLayer<TestStore>, Events) {
    let (store, events) = (TestStore::new(), Events::default());
    store.observe(events.clone()).unwrap();
    (store.clone(), IdempotencyLayer::new(store), events)
}

#[tokio::test(start_paused = true)]
async fn a_run_and_its_replay_are_observed_with_their_times() {
    let (store, layer, events) = observed();
    let lab = Lab::new(layer.clone(), |_| async {
        tokio::time::sleep(SECOND * 3).await;
        "charged"
    });
    let (claim, end) = (store.stall(StoreCall::Claim), store.stall(StoreCall::Complete));
    let run = lab.spawn(post("k", "a"));
    tokio::time::sleep(SECOND).await;
    claim.release();
    tokio::time::sleep(SECOND * 5).await;
    end.release();
    run.await.unwrap();
    assert_eq!(events.take(), ["claimed 1", "ran completed 3", "recorded 2"]);
    lab.post("k", "a").await;
    assert_eq!(events.take(), ["replayed 0"]);
    let stats = layer.stats();
    assert_eq!((stats.runs, stats.claimed, stats.recorded, stats.replays), (1, 1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_observed_when_it_has_waited_and_when_it_is_rejected() {
    let (_, layer, events) = observed();
    let gate = Gate::default();
    let lab = gated(layer.clone().on_in_flight(OnInFlight::Wait(SECOND * 4)), &gate);
    let run = lab.spawn(post("k", "a"));
    gate.arrival().await;
    lab.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    let waiting = lab.spawn(post("k", "a"));
    tokio::time::sleep(SECOND * 2).await;
    gate.open();
    run.await.unwrap();
    waiting.await.unwrap();
    let seen = events.take();
    assert_eq!(seen[..3], ["claimed 0", "waited 4", "rejected in-flight"]);
    assert_eq!(seen[3..], ["ran completed 6", "recorded 0", "waited 2", "replayed 2"]);
    assert_eq!(layer.stats().waited, 2);
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_handler_is_observed_as_what_it_is() {
    type End = fn() -> axum::response::Response;
    let ends: [(&str, End); 4] = [
        ("released", || (Release, StatusCode::BAD_GATEWAY).into_response()),
        ("unknown", || StatusCode::BAD_GATEWAY.into_response()),
        ("panicked", || panic!("on purpose")),
        ("not-replayable", || {
            let mut stream = Response::new(axum::body::Body::empty());
            stream.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            stream
        }),
    ];
    for (name, end) in ends {
        let (_, layer, events) = observed();
        Lab::new(layer, move |_| async move { end() }).post("k", "a").await;
        assert!(events.take().contains(&format!("ran {name} 0")), "{name}");
    }
    let (_, layer, events) = observed();
    let lab = Lab::new(layer.max_run(SECOND * 7), |_| std::future::pending::<String>());
    lab.post("k", "a").await;
    assert_eq!(events.take()[1..], ["ran too-long 7", "interrupted max-run", "recorded 0", "rejected outcome-unknown"]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_recorded_and_a_settlement_are_observed() {
    let (store, layer, events) = observed();
    let lab = Lab::counting(layer.clone());
    (0..9).for_each(|_| store.fail_next(StoreCall::Complete));
    lab.post("k", "a").await;
    assert!(events.take().ends_with(&["unsaved".to_owned()]));
    let run = leave_interrupted(&store, "other").await;
    events.take();
    let _settled = layer.resolve(id("other"), run.fence, Action::Release).await.unwrap();
    assert_eq!(events.take(), ["settled operator"]);
    // Nothing is settled any more.
    let _stale = layer.resolve(id("other"), run.fence, Action::Release).await.unwrap();
    leave_interrupted(&store, "third").await;
    events.take();
    let found = Reconciler::new(|_| async { Reconciled::Outcome(Response::new(axum::body::Body::from("charged"))) });
    layer.clone().reconcile_with(found).reconcile_all().await.unwrap();
    assert_eq!(events.take(), ["settled reconciler"]);
    assert_eq!(layer.stats().settled, 2);
}

#[tokio::test]
async fn a_consumer_s_rejected_message_is_observed_and_its_effect_s_error_is_no_rejection() {
    let (store, _, events) = observed();
    let once = Once::new(store);
    let run = async |message: &'static [u8]| {
        let effect = |_| async { Err::<(), _>(EffectError::MaybeStarted("no answer")) };
        once.run(id("k"), Fingerprint::of(message), effect).await.unwrap_err();
    };
    run(b"m").await;
    assert_eq!(events.take(), ["claimed 0", "ran unknown 0", "interrupted failed", "recorded 0"]);
    run(b"m").await;
    run(b"another").await;
    assert_eq!(events.take(), ["rejected outcome-unknown", "rejected key-reused"]);
}

async fn sweeps<St: Store + Clone>(store: St, clock: &ManualClock) {
    let events = Events::default();
    store.observe(events.clone()).unwrap();
    let layer = IdempotencyLayer::new(store.clone()).retention(SECOND);
    let lab = Lab::counting(layer.clone());
    for number in 0..3 {
        lab.post(&format!("k{number}"), "a").await;
    }
    clock.advance(SECOND * 2);
    events.take();
    assert_eq!(store.sweep(9).await.unwrap(), 3);
    // The writer of a store on disk counts after it has answered; its next answer comes later.
    store.sweep(9).await.unwrap();
    assert_eq!((events.take(), layer.stats().swept), (vec!["swept 3".to_owned()], 3));
}

#[tokio::test]
async fn swept_records_are_observed() {
    let clock = ManualClock::new(Timestamp::from_millis(1_000));
    sweeps(MemoryStore::builder().clock(clock.clone()).build(), &clock).await;
    let (_directory, sled) = on_disk(SledStore::builder().clock(clock.clone()));
    sweeps(sled, &clock).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder().clock(clock.clone()));
        sweeps(fjall, &clock).await;
    }
}

struct Panics(Arc<AtomicUsize>);

impl Observer for Panics {
    fn claimed(&self, _: Duration) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    }

    fn ran(&self, _: RunEnd, _: Duration) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    }

    fn recorded(&self, _: Duration) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    }
}

#[tokio::test]
async fn an_observer_that_panics_changes_nothing_for_a_run_and_a_second_one_is_refused() {
    let (store, panics) = (MemoryStore::new(), Arc::default());
    store.observe(Panics(Arc::clone(&panics))).unwrap();
    assert!(store.clone().observe(Events::default()).is_err());
    let lab = Lab::new(IdempotencyLayer::new(store), effect);
    let (first, again) = (lab.post("k", "a").await, lab.post("k", "a").await);
    assert_eq!((first.text(), again.text(), again.is_replay()), ("effect 1", "effect 1", true));
    assert_eq!(panics.load(Ordering::SeqCst), 3);
    settle().await;
}

#[test]
fn both_observers_of_a_pair_learn_of_each_event() {
    let (one, other) = (Events::default(), Events::default());
    let pair = (one.clone(), other.clone());
    pair.ran(RunEnd::Completed, SECOND);
    pair.replayed(SECOND);
    pair.rejected("in-flight");
    pair.waited(SECOND);
    pair.claimed(SECOND);
    pair.recorded(SECOND);
    pair.unsaved();
    pair.interrupted(Cause::Panicked);
    pair.settled(SettledBy::Operator);
    pair.disputed();
    pair.swept(2);
    pair.lease(LeaseChange::Lost);
    pair.breaker(true);
    let learnt = one.take();
    assert_eq!(learnt.len(), 13, "{learnt:?}");
    assert_eq!(other.take(), learnt);
}
