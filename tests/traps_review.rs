//! Traps 66–79, found in review. Each test is named after what is promised instead.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use common::lab::{
    Answer, Gate, Lab, Shedding, charge_print, foreign, gated, hold, id, on_disk, plant, post, settle, tree,
};
use futures_util::future::join_all;
use futures_util::poll;
use http::{Request, Response};
use http_body_util::channel::Channel;
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::error::Overloaded;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::record::State;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{ManualClock, TestStore, Verb};
use tower_idempotency::{
    IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted, RecordId, Release, Scope, SledStore,
};

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);
const NOON: Timestamp = Timestamp::from_millis(1_800_000_000_000);

async fn racing_duplicates<St: Store>(store: St, rounds: usize) {
    let lab = Lab::counting(IdempotencyLayer::new(store));
    for round in 1..=rounds {
        let key = format!("k{round}");
        let answers = join_all((0..6).map(|_| lab.spawn(post(&key, "a")))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| answer.body == format!("effect {round}")), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
        assert_eq!(lab.effects(), round, "one effect a key");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn trap_66_a_duplicate_that_comes_as_the_first_completes_does_not_run() {
    racing_duplicates(MemoryStore::new(), 400).await;
    racing_duplicates(TestStore::new(), 400).await;
    let (_directory, store) = on_disk(SledStore::builder());
    racing_duplicates(store, 100).await;
}

#[tokio::test]
async fn trap_67_two_layers_over_one_store_know_each_others_runs() {
    let (_directory, store) = on_disk(SledStore::builder());
    let gate = Gate::default();
    let one = IdempotencyLayer::new(store.clone());
    let two = IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject).retention(HOUR);
    let (lab, other) = (gated(one.clone(), &gate), Lab::counting(two.clone()));
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    assert_eq!(other.post("k", "a").await.refusal(), (409, "in-flight".to_owned()));
    assert_eq!(two.interrupted(10).await.unwrap(), [], "a living run is not taken for dead");
    assert_eq!(two.counts().live, 1);
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert!(other.post("k", "a").await.is_replay());
    assert_eq!((lab.effects(), other.effects()), (1, 0));
}

#[tokio::test]
async fn trap_68_a_claim_whose_requester_is_gone_is_run_and_recorded() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    let stall = store.stall(Verb::Claim);
    let request = lab.spawn(post("k", "a"));
    settle().await;
    assert_eq!((layer.counts().live, lab.effects()), (1, 0), "its claim is under way");
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    stall.release();
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), lab.effects()), ("effect 1", 1));
    assert_eq!(layer.counts().live, 0);
}

#[tokio::test(start_paused = true)]
async fn trap_68_a_claim_that_takes_too_long_is_given_back() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    let stall = store.hold_answers(Verb::Claim);
    assert_eq!(lab.post("k", "a").await.refusal(), (503, "store-unavailable".to_owned()));
    assert_eq!(lab.post("k", "a").await.refusal(), (503, "store-unavailable".to_owned()));
    stall.release();
    settle().await;
    assert_eq!((layer.counts().live, lab.effects()), (0, 0));
    assert!(store.load(id("k")).await.unwrap().is_none(), "the claim that came late was released");
    assert_eq!((lab.post("k", "a").await.text(), lab.effects()), ("effect 1", 1));
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

#[tokio::test(start_paused = true)]
async fn trap_69_a_body_that_does_not_end_is_consumed_and_passed_on_whole() {
    let (mut sender, body) = Channel::<Bytes>::new(4);
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let layer = IdempotencyLayer::new(MemoryStore::new()).outcome_body_timeout(SECOND);
    let lab = Lab::new(layer, move |_| {
        let body = body.lock().unwrap().take().expect("one effect");
        async move { Body::new(body).into_response() }
    });
    sender.send_data("begun, ".into()).await.unwrap();
    let response = lab.app.clone().oneshot(post("k", "a")).await.unwrap();
    let retry = lab.post("k", "a").await;
    assert_eq!(retry.refusal(), (409, "not-replayable".to_owned()));
    assert_eq!(retry.json()["original_status"], 200);
    sender.send_data("and ended".into()).await.unwrap();
    drop(sender);
    assert_eq!(Answer::of(response).await.text(), "begun, and ended");
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_70_fail_open_opens_nothing_for_a_key_with_a_run_under_way() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let layer = IdempotencyLayer::new(store.clone()).fail_open(true);
    let lab = gated(layer.clone(), &gate);
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    store.crash();
    let duplicate = lab.spawn(post("k", "a"));
    settle().await;
    assert_eq!((duplicate.is_finished(), lab.effects()), (false, 1), "it waits for the run");
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert!(duplicate.await.unwrap().is_replay());
    let late = lab.post("k", "a").await;
    assert_eq!((late.text(), late.is_replay()), ("effect 1", true), "this process remembers the outcome");
    assert_eq!((lab.effects(), layer.counts().unprotected), (1, 0));
    assert_eq!(lab.post("new", "a").await.text(), "effect 2", "of a new key nothing is known");
    assert_eq!(layer.counts().unprotected, 1);
}

/// The duplicate looked at the free slot before the first came, and loads when the first's record can be seen, but the store
/// has not yet said that it is durable. What saves it is the second look.
#[tokio::test(start_paused = true)]
async fn trap_71_a_record_that_can_be_seen_but_is_not_known_to_be_durable_is_not_replayed() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(HOUR)));
    let loading = store.stall(Verb::Load);
    let duplicate = lab.spawn(post("k", "a"));
    settle().await;
    store.stall(Verb::Load).release();
    store.lose_answer(Verb::Complete);
    let first = lab.spawn(post("k", "a"));
    settle().await;
    let seen = store.load(id("k")).await.unwrap().expect("a record");
    assert!(matches!(seen.state, State::Completed { .. }), "{seen:?}");
    loading.release();
    settle().await;
    assert_eq!((first.is_finished(), duplicate.is_finished()), (false, false), "nobody was told");
    assert!(!first.await.unwrap().is_replay());
    assert!(duplicate.await.unwrap().is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_71_no_duplicate_is_answered_before_the_record_is_durable() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(HOUR)));
    let stall = store.stall(Verb::Complete);
    let mut requests: Vec<_> = (0..20).map(|_| Box::pin(lab.app.clone().oneshot(post("k", "a")))).collect();
    for _ in 0..3 {
        for request in &mut requests {
            assert!(poll!(request).is_pending());
        }
        settle().await;
    }
    // The power fails now: nobody was told anything that the disk doesn't know.
    let reopened = Lab::counting(IdempotencyLayer::new(store.reopen()));
    assert_eq!(reopened.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
    assert_eq!((lab.effects(), reopened.effects()), (1, 0));
    drop((requests, stall));
}

async fn claimed_again<St: Store + Clone>(store: St, clock: &ManualClock) {
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).retention(HOUR));
    lab.post("done", "a").await;
    lab.post("running", "a").await;
    clock.advance(HOUR * 2);
    assert_eq!(lab.post("done", "a").await.text(), "effect 3");
    let running = hold(&store, "running").await;
    while store.sweep(100).await.unwrap() > 0 {}
    clock.advance(HOUR - SECOND);
    assert_eq!(store.sweep(100).await.unwrap(), 0);
    let retry = lab.post("done", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 3", true, 3));
    let record = store.load(running.id).await.unwrap().expect("the new claim is there");
    assert!(matches!(record.state, State::Running { .. }) && record.fence == running.fence, "{record:?}");
}

#[tokio::test]
async fn trap_72_the_old_expiry_of_a_key_claimed_again_does_not_sweep_the_new_record() {
    let clock = ManualClock::new(NOON);
    claimed_again(MemoryStore::builder().clock(clock.clone()).build(), &clock).await;
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    claimed_again(store.clone(), &clock).await;
    let tree = tree(&store);
    assert_eq!(tree.scan_prefix("e").count(), 1, "the old lists went when their time was over");
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
        let lab = Lab::new(IdempotencyLayer::new(TestStore::new()).on_interrupted(policy.clone()), move |_| {
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

async fn jumps<St: Store>(layer: IdempotencyLayer<St>, clock: &ManualClock) {
    let lab = Lab::counting(layer.retention(HOUR));
    lab.post("k", "a").await;
    for wall in [NOON.as_millis() + 86_400_000, NOON.as_millis() - 86_400_000, 0] {
        clock.jump(Timestamp::from_millis(wall));
        assert!(lab.post("k", "a").await.is_replay(), "the wall clock shows {wall}");
    }
    clock.advance(HOUR - SECOND);
    assert!(lab.post("k", "a").await.is_replay());
    clock.advance(SECOND);
    assert_eq!((lab.post("k", "a").await.text(), lab.effects()), ("effect 2", 2), "nor does it live longer");
}

#[tokio::test]
async fn trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record() {
    let clock = ManualClock::new(NOON);
    jumps(IdempotencyLayer::new(MemoryStore::builder().clock(clock.clone()).build()), &clock).await;
    let clock = ManualClock::new(NOON);
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    jumps(IdempotencyLayer::new(store), &clock).await;
}

#[tokio::test(start_paused = true)]
async fn trap_76_a_layer_within_an_exchange_of_the_same_store_passes() {
    let store = MemoryStore::new();
    let inner = IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(HOUR)).retention(HOUR);
    let mut lab = Lab::counting(inner);
    lab.app = axum::Router::new().nest("/v1", lab.app).layer(IdempotencyLayer::new(store.clone()));
    let request = || Request::post("/v1/charges").header("idempotency-key", "k").body(Body::empty()).unwrap();
    let first = lab.send(request()).await;
    let retry = lab.send(request()).await;
    assert_eq!((first.text(), first.is_replay()), ("effect 1", false));
    assert_eq!((retry.text(), retry.is_replay()), ("effect 1", true));
    assert_eq!((lab.effects(), store.len()), (1, 1));
}

/// Counts an effect for every request, and answers `effect N`; the one with the key `slow` waits at the gate.
fn charge(gate: &Gate, effects: &Arc<AtomicUsize>) -> BoxCloneSyncService<Request<Body>, Response<Body>, BoxError> {
    let (gate, effects) = (gate.clone(), Arc::clone(effects));
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let (gate, number) = (gate.clone(), effects.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            if request.headers()["idempotency-key"] == "slow" {
                gate.pass().await;
            }
            Ok(format!("effect {number}").into_response())
        }
    }))
}

#[tokio::test]
async fn trap_77_a_waiter_holds_no_permit_of_an_inner_limit() {
    let (gate, effects) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let layer = IdempotencyLayer::new(MemoryStore::new()).on_in_flight(OnInFlight::Wait(HOUR));
    // One permit for the run, and one that its waiters would keep.
    let service =
        ServiceBuilder::new().layer(layer).layer(ConcurrencyLimitLayer::new(2)).service(charge(&gate, &effects));
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

#[tokio::test]
async fn trap_78_load_that_was_shed_frees_the_key_where_it_is_classified() {
    for (classified, retry) in [(true, 200), (false, 409)] {
        let (gate, effects) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        let mut layer = IdempotencyLayer::new(MemoryStore::new());
        if classified {
            layer = layer.classify(Shedding);
        }
        let service =
            ServiceBuilder::new().layer(layer).load_shed().concurrency_limit(1).service(charge(&gate, &effects));
        let first = tokio::spawn(service.clone().oneshot(post("slow", "a")));
        gate.arrival().await;
        let error = service.clone().oneshot(post("k", "a")).await.unwrap_err();
        assert!(error.is::<Overloaded>(), "{error}");
        gate.open();
        assert_eq!(first.await.unwrap().unwrap().status(), 200);
        assert_eq!(service.oneshot(post("k", "a")).await.unwrap().status(), retry);
        assert_eq!(effects.load(Ordering::SeqCst), if classified { 2 } else { 1 });
    }
}

#[tokio::test]
async fn trap_79_a_record_is_compared_by_the_options_it_was_made_with() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    plant(&store, id("without"), charge_print().finish()).await;
    plant(&store, id("with"), charge_print().with_credentials().finish()).await;
    plant(&store, id("bob's"), charge_print().credential("authorization", b"Bearer bob").finish()).await;
    for key in ["without", "with"] {
        let replay = lab.post(key, "a").await;
        assert_eq!((replay.text(), replay.is_replay()), ("recorded", true), "{key}");
        assert_eq!(lab.post(key, "b").await.refusal(), (422, "key-reused".to_owned()), "{key}");
    }
    assert_eq!(lab.post("bob's", "a").await.refusal(), (422, "credentials-changed".to_owned()));
    assert_eq!(lab.effects(), 0);
}

#[tokio::test]
async fn trap_79_what_was_recorded_by_unknown_rules_is_refused_and_never_run() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    plant(&store, id("options"), foreign(charge_print().with_credentials().finish(), 2, [9; 8])).await;
    plant(&store, id("version"), foreign(charge_print().with_credentials().finish(), 1, [0; 8])).await;
    let scope = Scope::new("alice");
    let scoped_id = RecordId::new(Some(&scope), &tower_idempotency::Key::new("scoped").unwrap());
    plant(&store, scoped_id, charge_print().with_credentials().finish()).await;
    let scoped = Lab::counting(IdempotencyLayer::new(store).scope(move |_| Ok(scope.clone())));
    for (lab, key) in [(&lab, "options"), (&lab, "version"), (&scoped, "scoped")] {
        let refused = lab.post(key, "a").await;
        assert_eq!(refused.refusal(), (409, "not-verifiable".to_owned()), "{key}");
        assert!(refused.text().contains("Do not mint a new key"));
        assert!(!refused.headers.contains_key("retry-after"));
        assert_eq!(lab.effects(), 0);
    }
    // What both rules know of, differs.
    assert_eq!(scoped.post("scoped", "b").await.refusal(), (422, "key-reused".to_owned()));
}
