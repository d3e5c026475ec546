//! The contents of a store's memory, and the look-up of a transaction that was to write a record.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use testkit::lab::done;
use testkit::lab::steps::Hold;
use tokio::runtime::Runtime;
use tower_idempotency::internals::{
    Cause, Claim, ClaimPolicy, End, Operation, Origin, Records as _, Reply, Stepped, Transition,
};
use tower_idempotency::internals::{Completion, Resolution, State};
use tower_idempotency::store::StoreError;
use tower_idempotency::{Fingerprint, RecordId};
use tower_idempotency_conformance::memory_backend::Replication;
use tower_idempotency_conformance::memory_backend::{Call, MemoryBackend};
use tower_idempotency_shared::{Backend as _, Clocks};
use tower_idempotency_shared::{Kind, Row, SharedStore, Token};

use crate::world::{builder, database};

const ID: RecordId = RecordId::from_bytes([7; 32]);
const MINUTE: Duration = Duration::from_secs(60);

async fn open() -> SharedStore<MemoryBackend> {
    let backend = database();
    builder(&backend).open(backend.clone()).await.unwrap()
}

/// A claim of a run whose bound is a minute.
fn claim() -> Transition {
    Transition::Claim(Claim {
        operation: Operation { id: ID, fingerprint: Fingerprint::of(b"m"), origin: Origin::default() },
        policy: ClaimPolicy::Refuse,
        may_repeat: false,
        bound: MINUTE,
        interrupted_retention: MINUTE,
        timeout: MINUTE,
    })
}

/// A run of this process.
async fn claimed(store: &SharedStore<MemoryBackend>) -> Hold {
    let Stepped { reply, record } = store.apply(ID, claim()).await.unwrap();
    assert_eq!(reply, Reply::Taken);
    let record = record.unwrap();
    Hold { id: ID, fence: record.fence, attempt: record.attempt }
}

// A seeded fault: the ids of which no notification came are kept.
#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_ids_for_which_nobody_listens_any_more() {
    let store = open().await;
    let listens = store.changed(ID);
    for number in 0..100 {
        drop(store.changed(RecordId::from_bytes([number; 32])));
    }
    assert_eq!(store.kept().0, 100);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(store.kept().0, 1, "that of the one who listens");
    drop(listens);
}

// Seeded faults: the rows of runs whose bound is over are kept; those of claims without a run in this process are not.
#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_a_run_whose_bound_is_over() {
    let store = open().await;
    claimed(&store).await;
    tokio::time::sleep(MINUTE / 2).await;
    assert_eq!(store.kept().1, 1);
    tokio::time::sleep(MINUTE * 60).await;
    assert_eq!(store.kept().1, 0);
}

/// Puts a row there that another process has written over that of the run.
fn overwrite(store: &SharedStore<MemoryBackend>, kind: Kind) {
    let database = store.backend().database();
    let row = database.rows("").into_iter().find(|row| row.id == ID).unwrap();
    database.insert_raw("", Row { kind, token: Token([7; 16]), session: None, until: None, ..row });
}

// A seeded fault: the run is kept until its bound.
#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_a_run_whose_row_a_later_release_has_written() {
    let store = open().await;
    let hold = claimed(&store).await;
    overwrite(&store, Kind::Other(42));
    assert!(store.apply(ID, Transition::Complete(completion(hold))).await.is_err());
    assert_eq!(store.kept().1, 0);
}

// A seeded fault: the run is kept until its bound.
#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_a_run_that_was_ended_elsewhere_once_a_step_is_refused_by_its_row() {
    let store = open().await;
    let hold = claimed(&store).await;
    overwrite(&store, Kind::Released);
    let settle = Transition::Resolve(hold.fence, Resolution::Release, MINUTE);
    assert_eq!(store.apply(ID, settle).await.unwrap().reply, Reply::Refused);
    assert_eq!(store.kept().1, 0);
}

// A seeded fault: a step that meets a run of this process lets go of it.
#[tokio::test(start_paused = true)]
async fn a_run_is_kept_though_its_key_is_claimed_once_more() {
    let store = open().await;
    claimed(&store).await;
    assert_eq!(store.apply(ID, claim()).await.unwrap().reply, Reply::Refused);
    assert_eq!(store.kept().1, 1);
}

// A seeded fault: a step that meets an earlier row of the key lets go of the later run.
#[tokio::test(start_paused = true)]
async fn a_run_is_kept_though_a_step_that_was_slow_has_read_what_was_there_before_it() {
    let store = open().await;
    let earlier = claimed(&store).await;
    let release = Transition::Release(earlier.fence);
    assert_eq!(store.apply(ID, release.clone()).await.unwrap().reply, Reply::Taken);
    let read = store.backend().hold_answers(Call::Get);
    let slow = store.clone();
    let slow = tokio::spawn(async move { slow.apply(ID, release).await });
    read.wait_until_held(1).await;
    claimed(&store).await;
    read.release();
    assert!(slow.await.unwrap().is_ok());
    assert_eq!(store.kept().1, 1);
}

// A seeded fault: the claim counts as not made, and a handler may run without one.
#[test]
fn a_claim_that_was_sent_when_the_runtime_ended_may_have_been_made() {
    let runtime = Runtime::new().unwrap();
    let store = runtime.block_on(open());
    let held = store.backend().hold(Call::Put);
    let handle = runtime.handle().clone();
    let claiming = std::thread::spawn(move || handle.block_on(store.apply(ID, claim())));
    runtime.block_on(held.wait_until_held(1));
    drop(runtime);
    let claimed = claiming.join().unwrap();
    assert!(matches!(claimed, Err(StoreError::Uncertain { .. })), "{claimed:?}");
}

// A seeded fault: only a claim of the store's own runtime is given back.
#[test]
fn a_claim_of_another_runtime_that_is_dropped_is_given_back() {
    let (own, other) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let store = own.block_on(open());
    let held = store.backend().hold(Call::Put);
    other.block_on(async {
        let claiming = Box::pin(store.apply(ID, claim()));
        let Either::Right((_, dropped)) = select(claiming, Box::pin(held.wait_until_held(1))).await else {
            panic!("it is held up")
        };
        drop(dropped);
    });
    held.release();
    let is_free = async {
        loop {
            let changed = store.changed(ID);
            if store.backend().database().rows("").iter().any(|row| row.id == ID && row.kind == Kind::Released) {
                return;
            }
            changed.await;
        }
    };
    own.block_on(async { tokio::time::timeout(MINUTE, is_free).await }).expect("it is given back");
}

fn completion(hold: Hold) -> Completion {
    done(hold, "outcome", MINUTE)
}

// A seeded fault: a row that the transaction still has locked counts as not written.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_takes_long_is_waited_for() {
    let store = open().await;
    let backend = store.backend().clone();
    let (record, pending) = store.complete_apart(completion(claimed(&store).await), false).unwrap();
    let locked = backend.database().lock("", ID);
    let mut settled = Box::pin(pending.end());
    assert!(tokio::time::timeout(MINUTE / 2, &mut settled).await.is_err(), "the transaction is not over");
    // It commits as it ends.
    locked.release();
    assert!(backend.another_process().put(Clocks::default(), &[record.write().clone()]).await.is_ok());
    assert_eq!(settled.await, End::Outcome(Bytes::from_static(b"outcome")));
}

// A seeded fault: the key counts as free, whatever has become of the operation.
#[tokio::test(start_paused = true)]
async fn a_transaction_whose_operation_was_ended_meanwhile_leaves_no_free_key() {
    let store = open().await;
    let hold = claimed(&store).await;
    let (_record, pending) = store.complete_apart(completion(hold), true).unwrap();
    let interrupt = Transition::Interrupt { fence: hold.fence, cause: Cause::Unknown, lost: None };
    assert_eq!(store.apply(ID, interrupt).await.unwrap().reply, Reply::Taken);
    assert_eq!(pending.end().await, End::Interrupted { cause: Cause::Failed });
    assert!(store.load(ID).await.unwrap().is_some());
}

// Seeded faults: the end that the store wrote itself counts as another process's; the key is free, or counts as free,
// under every policy.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_was_rolled_back_leaves_a_free_key_only_where_a_run_has_no_other_effects() {
    for is_free in [true, false] {
        let store = open().await;
        let (_record, pending) = store.complete_apart(completion(claimed(&store).await), is_free).unwrap();
        let expected = if is_free { End::Released } else { End::Interrupted { cause: Cause::Failed } };
        assert_eq!(pending.end().await, expected);
        let state = store.load(ID).await.unwrap().map(|record| record.state);
        let is_interrupted = matches!(state, Some(State::Interrupted { .. }));
        assert_eq!((state.is_none(), is_interrupted), (is_free, !is_free), "{state:?}");
    }
}

// A seeded fault: the run counts as under way until its bound, and its process's session states that.
#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_a_run_once_it_is_known_how_its_transaction_ended() {
    for is_committed in [true, false] {
        let store = open().await;
        let (record, pending) = store.complete_apart(completion(claimed(&store).await), true).unwrap();
        if is_committed {
            store.backend().put(Clocks::default(), &[record.write().clone()]).await.unwrap();
        }
        assert_eq!(store.kept().1, 1);
        let settled = pending.end().await;
        assert_eq!(matches!(settled, End::Outcome(_)), is_committed, "{settled:?}");
        assert_eq!(store.kept().1, 0);
    }
}

// A seeded fault: the store drops its row of the key, whatever run the row is of.
#[tokio::test(start_paused = true)]
async fn a_later_run_of_the_key_is_kept_when_an_earlier_ones_transaction_turns_out_to_be_rolled_back() {
    let store = open().await;
    let hold = claimed(&store).await;
    let (_record, pending) = store.complete_apart(completion(hold), true).unwrap();
    assert_eq!(store.apply(ID, Transition::Release(hold.fence)).await.unwrap().reply, Reply::Taken);
    let later = claimed(&store).await;
    assert_eq!(pending.end().await, End::Interrupted { cause: Cause::Failed });
    assert_eq!(store.kept().1, 1, "others are not told that the later run is over");
    assert_eq!(store.apply(ID, Transition::Complete(completion(later))).await.unwrap().reply, Reply::Taken);
}

// A seeded fault: a transaction's record counts as the process's own write, and is answered without a barrier.
#[tokio::test(start_paused = true)]
async fn what_a_transaction_wrote_is_told_only_when_it_is_durable() {
    let store = open().await;
    let backend = store.backend().clone();
    let hold = claimed(&store).await;
    let completion = completion(hold);
    let (record, pending) = store.complete_apart(completion, false).unwrap();
    // The transaction is committed, and its standby never gets that. A server that is started again shows it.
    backend.database().replication(Replication::Awaited);
    let transaction = backend.another_process();
    let committing = tokio::spawn(async move { transaction.put(Clocks::default(), &[record.write().clone()]).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    backend.database().restart();
    assert!(committing.await.unwrap().is_err(), "its answer is lost");
    let mut settled = Box::pin(pending.end());
    assert!(tokio::time::timeout(MINUTE / 12, &mut settled).await.is_err(), "it is not durable");
    backend.database().fail_over();
    backend.database().replication(Replication::InStep);
    assert_eq!(settled.await, End::Interrupted { cause: Cause::Failed });
}

/// A store whose transaction was committed, and then lost in a failover that the store has noticed.
async fn after_a_failover_lost_a_transaction(is_free: bool) -> SharedStore<MemoryBackend> {
    let store = open().await;
    let backend = store.backend().clone();
    backend.database().replication(Replication::Behind);
    let (record, pending) = store.complete_apart(completion(claimed(&store).await), is_free).unwrap();
    backend.another_process().put(Clocks::default(), &[record.write().clone()]).await.unwrap();
    assert_eq!(pending.end().await, End::Outcome(Bytes::from_static(b"outcome")));
    assert!(store.load(ID).await.unwrap().is_some());
    backend.database().fail_over();
    backend.database().replication(Replication::InStep);
    // The process notices that another server answers.
    store.load(RecordId::from_bytes([8; 32])).await.unwrap();
    tokio::time::sleep(MINUTE / 2).await;
    store
}

// Seeded faults: the record is put back without its effects; the process that knows it goes on replaying it.
#[tokio::test(start_paused = true)]
async fn trap_118_what_a_transaction_wrote_is_not_put_back_after_a_failover_has_lost_it_with_its_effects() {
    let store = after_a_failover_lost_a_transaction(true).await;
    assert_eq!(store.load(ID).await.unwrap(), None);
    assert!(store.backend().get(Clocks::default(), &[ID]).await.unwrap().rows[0].is_none());
}

// A seeded fault: it is lost with its effects under every policy.
#[tokio::test(start_paused = true)]
async fn what_a_transaction_wrote_is_put_back_where_the_run_may_have_effects_that_no_failover_loses() {
    let store = after_a_failover_lost_a_transaction(false).await;
    let there = store.backend().get(Clocks::default(), &[ID]).await.unwrap().rows.remove(0);
    assert_eq!(there.map(|row| row.kind), Some(Kind::Completed));
}
