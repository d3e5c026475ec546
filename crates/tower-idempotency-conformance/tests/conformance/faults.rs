//! The faults of the database in memory, on command.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tower_idempotency::clock::{ManualClock, Timestamp};
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_conformance::memory_backend::{Call, Fault, FaultRates, MemoryBackend, Replication};
use tower_idempotency_shared::{
    Backend as _, BackendError, Clocks, Expect, Kind, NewExpiry, NewFence, Row, Stamp, Token, Write,
};

const ID: RecordId = RecordId::from_bytes([7; 32]);

fn claim(token: u8) -> Write {
    Write {
        id: ID,
        expect: Expect::Absent,
        token: Token([token; 16]),
        fence: NewFence::Above(Fence(0)),
        kind: Kind::Running,
        session: None,
        until: None,
        began: Stamp::Now,
        since: Stamp::Now,
        expires: NewExpiry::In(Duration::from_secs(3_600)),
        state: Vec::new().into(),
    }
}

/// The next write of the row that the write with `token` has left.
fn next(token: u8, new: u8) -> Write {
    Write { expect: Expect::Token(Token([token; 16])), fence: NewFence::Keep, kind: Kind::Completed, ..claim(new) }
}

async fn put(backend: &MemoryBackend, write: Write) -> Result<Option<Row>, BackendError> {
    backend.put(Clocks::default(), &[write]).await.map(|mut answer| answer.rows.remove(0))
}

/// The current token of the row.
async fn token(backend: &MemoryBackend) -> Option<u8> {
    backend.get(Clocks::default(), &[ID]).await.unwrap().rows[0].as_ref().map(|row| row.token.0[0])
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_held_up_arrives_though_its_future_was_dropped() {
    let one = MemoryBackend::new();
    let other = one.another_process();
    let hold = one.hold(Call::Put);
    assert!(put(&one, claim(1)).now_or_never().is_none(), "a call that is held up was answered");
    assert_eq!((hold.held(), token(&other).await), (1, None));
    // Only this process's puts are held up.
    assert_eq!(token(&one).await, None);
    hold.wait_until_held(1).await;
    assert!(hold.release_one());
    assert_eq!(token(&other).await, Some(1));
    let waiting = tokio::spawn({
        let one = one.clone();
        async move { put(&one, next(1, 2)).await }
    });
    hold.wait_until_held(1).await;
    hold.release();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().token, Token([2; 16]));
    assert_eq!(put(&one, next(2, 3)).await.unwrap().unwrap().token, Token([3; 16]));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_held_up_and_the_row_is_seen_meanwhile() {
    let backend = MemoryBackend::new();
    let hold = backend.hold_answers(Call::Put);
    let mut waiting = Box::pin(put(&backend, claim(1)));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!((hold.held(), token(&backend).await), (1, Some(1)));
    hold.drop_held();
    assert!(matches!(waiting.await, Err(BackendError::Uncertain(_))));
}

#[tokio::test(start_paused = true)]
async fn each_fault_does_what_it_says() {
    let backend = MemoryBackend::new();
    let with = async |fault, write: Write| {
        backend.fail_next(Call::Put, fault);
        put(&backend, write).await
    };
    assert!(matches!(with(Fault::Refuse, claim(1)).await, Err(BackendError::Nothing(_))));
    assert!(matches!(with(Fault::LoseCall, claim(1)).await, Err(BackendError::Uncertain(_))));
    assert_eq!((token(&backend).await, backend.late()), (None, 0));
    assert!(matches!(with(Fault::LoseAnswer, claim(1)).await, Err(BackendError::Uncertain(_))));
    assert_eq!((token(&backend).await, backend.late()), (Some(1), 0));
    // Late: after a write of the same row it changes nothing; before it, it does.
    assert!(matches!(with(Fault::Late, next(1, 2)).await, Err(BackendError::Uncertain(_))));
    assert_eq!(token(&backend).await, Some(1));
    assert_eq!((backend.deliver_late(), token(&backend).await), (1, Some(2)));
    // Doubled: the second time it is the write that was sent before, or comes too late.
    let written = backend.database().writes();
    assert!(with(Fault::Double, next(2, 3)).await.unwrap().is_some());
    assert_eq!((backend.deliver_late(), backend.database().writes()), (1, written + 2));
    with(Fault::Double, next(3, 4)).await.unwrap();
    put(&backend, next(4, 5)).await.unwrap();
    assert_eq!((backend.deliver_late(), token(&backend).await), (1, Some(5)));
    let counts = backend.counts();
    assert_eq!((counts.puts, counts.writes, counts.lists), (7, 7, 0));
}

#[tokio::test(start_paused = true)]
async fn a_way_that_is_cut_refuses_and_what_was_under_way_may_arrive_yet() {
    let backend = MemoryBackend::new();
    let other = backend.another_process();
    let hold = backend.hold(Call::Put);
    let mut waiting = Box::pin(put(&backend, claim(1)));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    backend.cut();
    assert!(matches!(waiting.await, Err(BackendError::Uncertain(_))));
    assert!(matches!(backend.get(Clocks::default(), &[ID]).await, Err(BackendError::Nothing(_))));
    assert_eq!(token(&other).await, None);
    hold.release();
    assert_eq!(token(&other).await, Some(1));
    backend.mend();
    assert_eq!(token(&backend).await, Some(1));
    backend.database().stop();
    assert!(matches!(other.get(Clocks::default(), &[ID]).await, Err(BackendError::Nothing(_))));
    backend.database().start();
    assert_eq!(token(&other).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_failover_loses_what_the_standby_has_not_got() {
    let backend = MemoryBackend::new();
    let database = backend.database().clone();
    put(&backend, claim(1)).await.unwrap();
    database.replication(Replication::Behind);
    for write in [next(1, 2), next(2, 3), next(3, 4)] {
        put(&backend, write).await.unwrap();
    }
    database.replicate_some(1);
    let server = database.server();
    database.fail_over();
    assert_eq!(token(&backend).await, Some(2));
    assert_ne!(database.server(), server);
    database.restart();
    assert_eq!(token(&backend).await, Some(2));
}

/// A write that waits for the standby is neither visible nor answered. A restart shows it, although it may still be
/// lost. That is why a read needs a barrier.
#[tokio::test(start_paused = true)]
async fn what_awaits_the_standby_is_hidden_until_a_restart_shows_it() {
    let backend = MemoryBackend::new();
    let database = backend.database().clone();
    put(&backend, claim(1)).await.unwrap();
    database.replication(Replication::Awaited);
    let mut waiting = Box::pin(put(&backend, next(1, 2)));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    // The row is busy: the answer has the token that was expected.
    assert_eq!(put(&backend, next(1, 3)).await.unwrap().unwrap().token, Token([1; 16]));
    database.restart();
    assert!(matches!(waiting.await, Err(BackendError::Uncertain(_))));
    assert_eq!(token(&backend).await, Some(2));
    database.fail_over();
    assert_eq!(token(&backend).await, Some(1));
    let mut waiting = Box::pin(put(&backend, next(1, 4)));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    database.replicate();
    assert_eq!(waiting.await.unwrap().unwrap().token, Token([4; 16]));
    database.fail_over();
    assert_eq!(token(&backend).await, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_locked_row_is_busy() {
    let backend = MemoryBackend::new();
    put(&backend, claim(1)).await.unwrap();
    let lock = backend.database().lock("", ID);
    assert_eq!(put(&backend, next(1, 2)).await.unwrap().unwrap().token, Token([1; 16]));
    lock.release();
    assert_eq!(put(&backend, next(1, 2)).await.unwrap().unwrap().token, Token([2; 16]));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_makes_no_fence_smaller() {
    let clock = ManualClock::new(Timestamp::from_millis(1_790_000_000_000));
    let backend = MemoryBackend::with_clock(clock.clone());
    let first = put(&backend, claim(1)).await.unwrap().unwrap().fence;
    clock.jump(Timestamp::from_millis(1_790_000_000_000 - 60_000));
    let write = Write { fence: NewFence::Above(Fence(0)), ..next(1, 2) };
    assert_eq!(put(&backend, write).await.unwrap().unwrap().fence, Fence(first.0 + 1));
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_to_all_of_the_namespace_unless_the_database_is_silent() {
    let backend = MemoryBackend::new();
    let (mut own, mut other) = (backend.another_process().changes(), backend.namespace("other").changes());
    put(&backend, claim(1)).await.unwrap();
    assert_eq!(own.next().now_or_never(), Some(Some(ID)));
    backend.database().mute_notifications(true);
    put(&backend, next(1, 2)).await.unwrap();
    assert_eq!((own.next().now_or_never(), other.next().now_or_never()), (None, None));
}

/// The number of each kind of answer to a thousand claims, and the number of writes of the row.
async fn storm(seed: u64) -> [usize; 4] {
    let backend = MemoryBackend::new();
    backend.fail_at_random(seed, FaultRates { delay: Duration::from_secs(5), ..FaultRates::default() });
    let mut answers = [0; 4];
    for token in 0..1_000 {
        let write = Write { token: Token(u128::to_le_bytes(token)), ..claim(0) };
        answers[match put(&backend, write).await {
            Ok(_) => 0,
            Err(BackendError::Nothing(_)) => 1,
            Err(_) => 2,
        }] += 1;
    }
    backend.fail_no_more();
    answers[3] = backend.database().writes();
    put(&backend, claim(1)).await.unwrap();
    answers
}

#[tokio::test(start_paused = true)]
async fn faults_at_random_are_those_of_their_seed() {
    let first = storm(1).await;
    assert!(first.iter().all(|count| *count > 0), "{first:?}");
    assert_eq!(storm(1).await, first);
    assert_ne!(storm(2).await, first);
}
