//! The steps and their times, on tokio's paused clock.

use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use testkit::Gate;
use testkit::lab::time::{HOUR, SECOND};
use testkit::lab::{Lab, gated, post};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower_idempotency::server::health::{NotReady, Readiness};
use tower_idempotency::shutdown::Stopped;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{AnyStore, IdempotencyLayer, MemoryStore, Shutdown};

/// A little longer than a step takes.
const MOMENT: Duration = Duration::from_millis(1);
const HALF: Duration = Duration::from_millis(500);

fn is_draining(store: &TestStore) -> bool {
    Readiness::of(store).reasons == [NotReady::Draining]
}

fn shutting_down() -> (u16, String) {
    (503, "shutting-down".to_owned())
}

/// A server whose connections never end, and that shows whether it was dropped.
struct Stalled(JoinHandle<Stopped<()>>, Arc<()>);

impl Stalled {
    /// It is asked to end at once.
    fn ending(shutdown: Shutdown<TestStore>) -> Self {
        let open = Arc::new(());
        let connections = Arc::clone(&open);
        let server = async move {
            let _connections = connections;
            pending::<()>().await;
        };
        Self(tokio::spawn(shutdown.serve(server, ready(()))), open)
    }

    fn has_connections(&self) -> bool {
        Arc::strong_count(&self.1) > 1
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_not_ready_then_stops_accepting_and_then_refuses_new_keys() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let shutdown = Shutdown::of([store.clone()]).notice(SECOND * 5);
    let (server, told) = (shutdown.stop_accepting(), tokio::spawn(shutdown.stop_accepting()));
    let asked = Arc::new(Notify::new());
    let signal = Arc::clone(&asked);
    let serving = tokio::spawn(shutdown.serve(server, async move { signal.notified().await }));
    sleep(SECOND).await;
    assert!(Readiness::of(&store).is_ready());
    asked.notify_one();
    sleep(SECOND * 5 - MOMENT).await;
    assert!(is_draining(&store) && !told.is_finished() && !serving.is_finished());
    assert_eq!(lab.post("k", "a").await.status, 200, "all else goes on");
    sleep(MOMENT * 2).await;
    assert!(told.is_finished());
    assert_eq!(lab.post("new", "a").await.refusal(), shutting_down());
    assert!(lab.post("k", "a").await.is_replay());
    let stopped = serving.await.unwrap();
    assert!(stopped.is_clean() && is_draining(&store), "{stopped:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_server_ends_at_once() {
    let began = Instant::now();
    let shutdown = Shutdown::of([TestStore::new()]);
    let server = shutdown.stop_accepting();
    assert!(shutdown.serve(server, ready(())).await.is_clean());
    assert!(began.elapsed() < MOMENT * 2);
}

#[tokio::test(start_paused = true)]
async fn connections_stay_until_all_runs_are_recorded_and_their_answers_sent() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let run = gated(IdempotencyLayer::new(store.clone()), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let server = Stalled::ending(Shutdown::of([store.clone()]));
    sleep(SECOND * 10).await;
    assert!(server.has_connections());
    gate.open();
    assert_eq!(run.await.unwrap().status, 200);
    sleep(HALF - MOMENT).await;
    assert!(server.has_connections(), "the answer may still be on its way");
    sleep(MOMENT * 2).await;
    assert!(!server.has_connections());
    let stopped = server.0.await.unwrap();
    assert_eq!((stopped.output, stopped.drained.is_complete(), stopped.closed.is_ok()), (None, true, true));
    assert!(Lab::counting(IdempotencyLayer::new(store.reopen())).post("k", "a").await.is_replay());
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_client_is_gone_is_waited_for() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let run = gated(IdempotencyLayer::new(store.clone()), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    run.abort();
    let ending = tokio::spawn(Shutdown::of([store.clone()]).serve(ready(()), ready(())));
    sleep(SECOND * 10).await;
    assert!(!ending.is_finished());
    gate.open();
    assert!(ending.await.unwrap().is_clean());
    assert!(Lab::counting(IdempotencyLayer::new(store.reopen())).post("k", "a").await.is_replay());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_and_a_run_that_never_ends_hold_it_up_for_so_long_and_no_longer() {
    let began = Instant::now();
    let stalled = Stalled::ending(Shutdown::of([TestStore::new()])).0.await.unwrap();
    assert!(stalled.drained.is_complete() && !stalled.is_clean());
    assert_eq!(began.elapsed().as_millis() / 100, 35, "3 s, and half a second");

    let (store, gate) = (TestStore::new(), Gate::default());
    let layer = IdempotencyLayer::new(store.clone());
    let _run = gated(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let began = Instant::now();
    let left = Stalled::ending(Shutdown::of([store])).0.await.unwrap();
    assert_eq!((left.drained.runs, left.drained.unsaved, left.output), (1, 0, None));
    assert_eq!(began.elapsed().as_millis() / 100, 155, "15 s, and half a second");
}

#[tokio::test(start_paused = true)]
async fn the_times_can_be_set() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let _run = gated(IdempotencyLayer::new(store.clone()), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let shutdown = || Shutdown::of([store.clone()]).drain_within(SECOND);
    for (connections, ended) in [(Duration::ZERO, 15), (SECOND * 20, 205)] {
        let began = Instant::now();
        let stopped = Stalled::ending(shutdown().connections_within(connections)).0.await.unwrap();
        assert_eq!((stopped.drained.runs, began.elapsed().as_millis() / 100), (1, ended));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_by_itself_is_drained_too() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let lab = gated(IdempotencyLayer::new(store.clone()), &gate);
    let run = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let shutdown = Shutdown::of([store.clone()]).notice(HOUR);
    let serving = tokio::spawn(shutdown.serve(ready("it has failed"), pending()));
    sleep(SECOND).await;
    assert!(is_draining(&store) && !serving.is_finished());
    assert_eq!(lab.post("new", "a").await.refusal(), shutting_down());
    gate.open();
    let stopped = serving.await.unwrap();
    assert_eq!((stopped.output, stopped.drained.is_complete()), (Some("it has failed"), true));
    assert_eq!(run.await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn all_its_stores_are_drained_and_what_they_leave_is_added_up() {
    let stores = [AnyStore::new(TestStore::new()), AnyStore::new(MemoryStore::new())];
    let gate = Gate::default();
    let labs = stores.each_ref().map(|store| gated(IdempotencyLayer::new(store.clone()), &gate));
    let mut runs = Vec::new();
    for lab in &labs {
        runs.push(lab.spawn(post("k", "a")));
        gate.arrival().await;
    }
    // A store that is named twice counts once.
    let named = stores.iter().chain(&stores).cloned();
    let stopped = Shutdown::of(named).serve(ready(()), ready(())).await;
    assert_eq!((stopped.drained.runs, stopped.is_clean()), (2, false));
    for lab in &labs {
        assert_eq!(lab.post("new", "a").await.refusal(), shutting_down());
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_cancelled_stops_the_server_and_still_refuses_new_keys() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let lab = gated(IdempotencyLayer::new(store.clone()), &gate);
    let run = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let shutdown = Shutdown::of([store.clone()]);
    let told = shutdown.stop_accepting();
    let server = Stalled::ending(shutdown);
    sleep(SECOND).await;
    server.0.abort();
    sleep(MOMENT).await;
    assert!(!server.has_connections() && told.now_or_never().is_some() && is_draining(&store));
    assert_eq!(lab.post("new", "a").await.refusal(), shutting_down());
    gate.open();
    assert_eq!(run.await.unwrap().status, 200, "the run goes on");

    let unused = Shutdown::of([store]);
    let told = unused.stop_accepting();
    drop(unused);
    assert!(told.now_or_never().is_some());
}
