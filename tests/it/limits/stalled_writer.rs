//! A store on disk whose writer stalls in the middle of a batch.

use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use testkit::lab::disk::{Disk, Table as _, View as _};
use testkit::lab::steps::{Claimed, Steps as _, Wish, wish};
use testkit::lab::{Lab, hold, on_disk, post, settle};
use testkit::{Gate, on_both};
use tower_idempotency::internals::List;
use tower_idempotency::store::{Abort, CommitError, Health, StoreError};
use tower_idempotency::{IdempotencyLayer, Release};

use super::overload::overloaded;

/// Runs `act` on a thread of its own, where a runtime that stalls is noticed.
fn without_standing_still(act: impl AsyncFnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(act());
        done.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(60)).expect("the runtime stands still, or the test failed");
}

/// A store whose writer stalls in the middle of a batch, with its lock held, until the sender is used.
fn blocked(store: &impl Disk) -> std::sync::mpsc::Sender<()> {
    let (table, records) = (store.table("elsewhere"), store.records());
    let ((go_on, gate), (began, begun)) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel());
    drop(store.transaction([&table], move |_| {
        let held = records.hold_up_reads();
        began.send(()).unwrap();
        let _ = gate.recv();
        drop(held);
        Ok::<_, Abort<()>>(())
    }));
    begun.recv().unwrap();
    go_on
}

on_both!(fn trap_84_a_read_that_hangs_holds_up_nobody_but_who_waits_for_it);
fn trap_84_a_read_that_hangs_holds_up_nobody_but_who_waits_for_it<D: Disk>() {
    without_standing_still(async || {
        let (directory, store) = on_disk(D::builder());
        let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
        assert_eq!(lab.post("cold", "a").await.text(), "effect 1");
        drop(lab);
        store.close().await.unwrap();
        let store = D::open(directory.path()).unwrap();
        let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
        let go_on = blocked(&store);
        let cold = lab.spawn(post("cold", "a"));
        let listed = tokio::spawn({
            let store = store.clone();
            async move { store.list(List::Interrupted, None, 1).await }
        });
        settle().await;
        // The runtime, which has one thread, goes on.
        assert!(!cold.is_finished() && !listed.is_finished());
        assert_eq!(lab.send(axum::http::Request::get("/").body(Body::empty()).unwrap()).await.text(), "effect 1");
        assert!(store.health() == Health::Good);
        go_on.send(()).unwrap();
        assert!(cold.await.unwrap().is_replay());
        assert!(listed.await.unwrap().unwrap().records.is_empty());
    });
}

on_both!(fn trap_83_claims_queued_behind_a_batch_that_hangs_are_not_done_when_it_returns);
fn trap_83_claims_queued_behind_a_batch_that_hangs_are_not_done_when_it_returns<D: Disk>() {
    without_standing_still(async || {
        let (_directory, store) = on_disk(D::builder());
        let before = hold(&store, "before").await;
        let go_on = blocked(&store);
        let late: Vec<_> = (0..100)
            .map(|number| store.claim(Wish { timeout: Duration::ZERO, ..wish(&format!("late{number}")) }))
            .collect();
        let patient = store.claim(wish("patient"));
        go_on.send(()).unwrap();
        for refused in futures_util::future::join_all(late).await {
            assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        }
        let Ok(Claimed::Fresh(after)) = patient.await else { panic!("refused") };
        assert!(after.fence.0 - before.fence.0 < 20, "none of them was given a fence: {before:?}, {after:?}");
        assert_eq!(store.len(), 2);
    });
}

on_both!(fn while_4096_calls_wait_neither_new_keys_nor_the_applications_own_transactions_are_taken);
fn while_4096_calls_wait_neither_new_keys_nor_the_applications_own_transactions_are_taken<D: Disk>() {
    without_standing_still(async || {
        let (_directory, store) = on_disk(D::builder());
        let table = store.table("ours");
        let lab = Lab::counting(IdempotencyLayer::new(store.clone()).fail_open(true));
        let go_on = blocked(&store);
        let write = |key: u64| {
            store.transaction([&table], move |[table]| {
                table.insert(key.to_be_bytes(), b"")?;
                Ok::<_, Abort<()>>(())
            })
        };
        let waiting: Vec<_> = (0..4_096).map(write).collect();
        let refused = write(4_096).await;
        assert!(matches!(refused, Err(CommitError::Store(StoreError::Overloaded { .. }))), "{refused:?}");
        assert_eq!(lab.post("new", "a").await.refusal(), overloaded());
        go_on.send(()).unwrap();
        let done = futures_util::future::join_all(waiting).await.into_iter().filter(Result::is_ok).count();
        // Calls that the store reached too late, if any, were not begun.
        assert_eq!(done, table.count(""));
        assert_eq!(lab.post("new", "a").await.text(), "effect 1");
    });
}

on_both!(fn a_release_and_a_panic_that_end_behind_a_batch_that_hangs_are_answered_once_it_returns);
fn a_release_and_a_panic_that_end_behind_a_batch_that_hangs_are_answered_once_it_returns<D: Disk>() {
    without_standing_still(async || {
        let (_directory, store) = on_disk(D::builder());
        let gate = Gate::default();
        let handler = gate.clone();
        let lab = Lab::new(IdempotencyLayer::new(store.clone()), move |number| {
            let gate = handler.clone();
            async move {
                gate.pass().await;
                match number {
                    1 => (Release, "busy").into_response(),
                    // Without a message in the log.
                    2 => std::panic::resume_unwind(Box::new("on purpose")),
                    number => format!("effect {number}").into_response(),
                }
            }
        });
        let released = lab.spawn(post("released", "a"));
        gate.arrival().await;
        let panicked = lab.spawn(post("panicked", "a"));
        gate.arrival().await;
        let go_on = blocked(&store);
        gate.open();
        settle().await;
        assert!(!released.is_finished() && !panicked.is_finished(), "neither end is durable");
        go_on.send(()).unwrap();
        assert_eq!(released.await.unwrap().text(), "busy");
        assert_eq!(panicked.await.unwrap().problem(), "outcome-unknown");
        assert_eq!(lab.post("released", "a").await.text(), "effect 3");
        assert_eq!(lab.post("panicked", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
    });
}
