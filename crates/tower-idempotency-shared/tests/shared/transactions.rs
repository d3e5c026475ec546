//! Effect and record in one transaction of the application: the answers to its clients.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::any;
use bytes::Bytes;
use http::Response;
use testkit::Gate;
use testkit::lab::{Lab, post};
use tokio::time::{sleep, timeout};
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::store::CommitError;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::MemoryTransaction;
use tower_idempotency_shared::BackendError;

use crate::world::{DEATH, Effects, Store, two};

/// A server whose handlers get the store.
fn server<Fut, R>(store: &Store, policy: OnInterrupted, handler: fn(IdempotencyContext, Store) -> Fut) -> Lab
where
    Fut: Future<Output = R> + Send + 'static,
    R: IntoResponse + 'static,
{
    let (layer, store) = (IdempotencyLayer::new(store.clone()).on_interrupted(policy), store.clone());
    Lab::of(Router::new().fallback(any(move |context| handler(context, store.clone()))).layer(layer))
}

/// A transaction with the record of the run, which was not committed yet.
async fn written(context: &IdempotencyContext, store: &Store) -> Result<MemoryTransaction, CommitError<BackendError>> {
    let mut transaction = store.backend().transaction();
    let answer = Response::new(Bytes::from_static(b"charged"));
    let _ = store.complete_in(context, &mut transaction, answer).await?;
    Ok(transaction)
}

async fn commits(context: IdempotencyContext, store: Store) -> &'static str {
    written(&context, &store).await.unwrap().commit().unwrap();
    "what the handler says afterwards"
}

async fn rolls_back(context: IdempotencyContext, store: Store) -> &'static str {
    drop(written(&context, &store).await.unwrap());
    "as if it had committed"
}

// A seeded fault: the handler's returned value counts.
#[tokio::test(start_paused = true)]
async fn what_a_transaction_has_committed_is_the_answer_wherever_a_client_asks() {
    let [(_, one), (_, other)] = two().await;
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let key = format!("{policy:?}");
        let first = server(&one, policy, commits).post(&key, "a").await;
        assert_eq!((first.text(), first.is_replay()), ("charged", false), "{policy:?}");
        for store in [&one, &other] {
            let replay = server(store, policy, commits).post(&key, "a").await;
            assert_eq!((replay.text(), replay.is_replay()), ("charged", true), "{policy:?}");
        }
    }
}

// A seeded fault: the key is free under every policy, or under none.
#[tokio::test(start_paused = true)]
async fn what_a_transaction_has_not_committed_did_not_take_place() {
    let [(_, one), (_, other)] = two().await;
    let rolled_back = server(&one, OnInterrupted::Rerun, rolls_back).post("k", "a").await;
    assert_eq!(rolled_back.status, 503, "{rolled_back:?}");
    assert!(rolled_back.text().contains("was not committed"), "{rolled_back:?}");
    let retry = server(&other, OnInterrupted::Rerun, commits).post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay()), ("charged", false));
    // The store does not know the other effects of the run.
    let refusing = server(&one, OnInterrupted::Refuse, rolls_back);
    assert_eq!(refusing.post("refused", "a").await.status, 500);
    refusing.post("refused", "a").await.assert_refusal(409, "outcome-unknown", false, None);
}

/// The end of a transaction.
type Ended = Arc<Mutex<Option<Result<(), CommitError<BackendError>>>>>;

/// A server whose handlers leave a transaction open until they pass the gate, or write the record in it only then; and
/// the end of the transaction.
fn late(store: &Store, gate: &Gate, is_written: bool) -> (Lab, Ended) {
    let (ended, store, gate) = (Arc::new(Mutex::new(None)), store.clone(), gate.clone());
    let layer = IdempotencyLayer::new(store.clone());
    let told = Arc::clone(&ended);
    let handler = move |context: IdempotencyContext| async move {
        let transaction = if is_written { Some(written(&context, &store).await.unwrap()) } else { None };
        tokio::spawn(async move {
            gate.pass().await;
            let transaction = match transaction {
                Some(transaction) => Ok(transaction),
                None => written(&context, &store).await,
            };
            let committed = transaction.and_then(|transaction| transaction.commit().map_err(CommitError::Aborted));
            *told.lock().unwrap() = Some(committed);
        });
        if !is_written {
            std::future::pending::<()>().await;
        }
        "the transaction is open"
    };
    (Lab::of(Router::new().fallback(any(handler)).layer(layer)), ended)
}

// Seeded faults: the client waits for as long as the transaction is open; its end is forgotten.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_open_for_long_is_in_doubt_until_it_is_committed() {
    let [(_, one), (_, other)] = two().await;
    let gate = Gate::default();
    let (slow, ended) = late(&one, &gate, true);
    let doubtful = timeout(Duration::from_secs(60), slow.post("k", "a")).await.expect("the client is told");
    assert_eq!((doubtful.status.as_u16(), doubtful.problem().as_str()), (503, "outcome-unknown"));
    gate.open();
    sleep(Duration::from_secs(5)).await;
    assert!(matches!(*ended.lock().unwrap(), Some(Ok(()))), "{ended:?}");
    for store in [&one, &other] {
        let replay = server(store, OnInterrupted::Refuse, commits).post("k", "a").await;
        assert_eq!((replay.text(), replay.is_replay()), ("charged", true));
    }
}

// A seeded fault: the record is written whatever became of the operation.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_comes_after_a_takeover_fails() {
    let [(here, one), (_, other)] = two().await;
    let gate = Gate::default();
    let (slow, ended) = late(&one, &gate, false);
    let run = slow.spawn(post("k", "a"));
    gate.arrival().await;
    here.cut();
    sleep(DEATH).await;
    let says = Reconciler::<Response<String>>::new(|_| async { Reconciled::RunAgain });
    let layer = IdempotencyLayer::new(other).on_in_flight(OnInFlight::Reject).reconcile_with(says);
    let (effects, open) = (Effects::default(), Gate::default());
    open.open();
    let elsewhere = effects.behind(layer, &open);
    assert_eq!(elsewhere.post("k", "a").await.text(), "effect 1");
    here.mend();
    gate.open();
    sleep(Duration::from_secs(5)).await;
    assert!(matches!(*ended.lock().unwrap(), Some(Err(CommitError::Superseded))), "{ended:?}");
    assert_eq!(elsewhere.post("k", "a").await.text(), "effect 1");
    run.abort();
}
