//! Claims that are answered after the end of the lease under which this process sent them.

use std::time::Duration;

use testkit::lab::steps::{Steps as _, wish};
use testkit::lab::{id, settle};
use tower_idempotency::store::StoreError;
use tower_idempotency_conformance::memory_backend::{Call, Fault, MemoryBackend};
use tower_idempotency_shared::{Backend as _, Clocks, Kind, Row, Token};

use crate::world::{LEASE, Store, database, process};

/// The row of the only process's session.
fn session(backend: &MemoryBackend) -> Row {
    let mut sessions: Vec<_> =
        backend.database().rows("").into_iter().filter(|row| row.kind == Kind::Session).collect();
    assert_eq!(sessions.len(), 1);
    sessions.remove(0)
}

/// The kinds of the rows that were written for the key `k`.
fn written(backend: &MemoryBackend) -> Vec<Kind> {
    let written = backend.database().written();
    written.into_iter().filter(|write| write.id == id("k")).map(|write| write.kind).collect()
}

/// Claims the key `k` in a task.
fn claiming(store: &Store) -> tokio::task::JoinHandle<Result<testkit::lab::steps::Claimed, StoreError>> {
    let store = store.clone();
    tokio::spawn(async move { store.claim(wish("k")).await })
}

// A seeded fault: only the session is compared.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_answered_with_less_than_half_of_the_lease_left_runs_nothing_and_is_given_back() {
    let backend = database();
    let store = process(&backend).await;
    // It can't renew its session.
    let locked = backend.database().lock("", session(&backend).id);
    let until = session(&backend).until.expect("it has a lease");
    let left = async || until.as_millis() - backend.get(Clocks::default(), &[]).await.unwrap().now.as_millis();
    let half = u64::try_from(LEASE.as_millis()).unwrap() / 2;
    while left().await > half + 500 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let held = backend.hold_answers(Call::Put);
    let claim = claiming(&store);
    settle().await;
    assert_eq!(written(&backend), [Kind::Running], "it was sent in time");
    while left().await >= half {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    held.release();
    let refused = claim.await.unwrap();
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(written(&backend), [Kind::Running, Kind::Released]);
    locked.release();
}

// A seeded fault: only the lease of the present session is looked at.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_done_under_a_session_that_was_marked_dead_runs_nothing_and_is_given_back() {
    let backend = database();
    let store = process(&backend).await;
    let locked = backend.database().lock("", id("k"));
    // It may be done, so it is sent again until something is known of it.
    backend.fail_next(Call::Put, Fault::LoseCall);
    let claim = claiming(&store);
    settle().await;
    let before = session(&backend);
    let dead = Row { kind: Kind::Released, token: Token([7; 16]), until: None, ..before.clone() };
    backend.database().insert_raw("", dead);
    tokio::time::sleep(LEASE).await;
    assert_ne!(session(&backend).id, before.id, "it goes on under another session");
    locked.release();
    let refused = claim.await.unwrap();
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(written(&backend), [Kind::Running, Kind::Released]);
}
